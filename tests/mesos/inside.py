# mypy: ignore-errors
"""For Python 2.7: the genuine master inside this process, until SIGTERM.

A scheduler's driver told to use the master "local" starts a whole cluster in its process; MESOS_NUM_SLAVES=0 leaves the
master of it. The driver must have a scheduler: one that wants nothing, in a role of its own.
"""

import os
import signal
import sys
import time

from mesos.interface import Scheduler, mesos_pb2
from mesos.scheduler import MesosSchedulerDriver


class Idle(Scheduler):
    def registered(self, driver, framework_id, master):
        driver.suppressOffers()
        sys.stdout.write("ready\n")
        sys.stdout.flush()

    def resourceOffers(self, driver, offers):
        for offer in offers:
            driver.declineOffer(offer.id)

    def error(self, driver, message):
        sys.stderr.write(message)
        os._exit(1)


signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0))
framework = mesos_pb2.FrameworkInfo(user="root", name="idle", role="idle")
driver = MesosSchedulerDriver(Idle(), framework, "local", 1)  # the cluster ends with it
driver.start()
while True:
    time.sleep(0.1)

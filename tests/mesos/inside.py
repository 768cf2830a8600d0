# mypy: ignore-errors
"""For Python 2.7: the genuine master inside this process, until SIGTERM.

A scheduler's driver told to use the master "local" starts a whole cluster in its process; MESOS_NUM_SLAVES=0 leaves the
master of it. The driver must have a scheduler: one that wants nothing, in a role of its own.
"""

import ctypes
import os
import signal
import sys
import time

from mesos.interface import Scheduler, mesos_pb2
from mesos.scheduler import MesosSchedulerDriver, _scheduler


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


class Text(ctypes.Structure):
    """An Option<std::string>: whether there is none, and a string that is short enough to be held where it is."""

    _fields_ = [
        ("none", ctypes.c_int),
        ("data", ctypes.c_void_p),
        ("size", ctypes.c_size_t),
        ("short", ctypes.c_char * 16),
    ]

    def __init__(self, text=None):
        ctypes.Structure.__init__(self, none=text is None, size=len(text or ""), short=text or "")
        self.data = ctypes.addressof(self) + Text.short.offset


def delegate_to_master():
    """Paths without a process are the master's, as in Mesos' own program. Only the first initialization of libprocess
    counts, and the driver's would name no delegate."""
    name = "_ZN7process10initializeERK6OptionINSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEEES9_S9_"
    initialize = getattr(ctypes.CDLL(_scheduler.__file__), name)
    initialize.restype = ctypes.c_bool
    initialize(ctypes.byref(Text("master")), ctypes.byref(Text()), ctypes.byref(Text()))


signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0))
delegate_to_master()
framework = mesos_pb2.FrameworkInfo(user="root", name="idle", role="idle")
driver = MesosSchedulerDriver(Idle(), framework, "local", 1)  # the cluster ends with it
driver.start()
while True:
    time.sleep(0.1)

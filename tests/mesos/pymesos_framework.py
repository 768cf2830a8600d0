# mypy: ignore-errors
"""A framework on pymesos, for the environment that has it: one task, killed when it runs and a line is read.

usage: pymesos_framework.py MASTER NAME PORT COMMAND [USER PASSWORD]; each status is a line of JSON in the output

MASTER may be zk://..., too.
"""

import json
import sys
import threading

from pymesos import MesosSchedulerDriver, Scheduler

master, name, port, command, *credential = sys.argv[1:]


class OneTask(Scheduler):
    launched = False

    def resourceOffers(self, driver, offers):
        for offer in offers:
            if self.launched:
                driver.declineOffer(offer["id"])
                continue
            self.launched = True
            resources = [
                {"name": "cpus", "type": "SCALAR", "scalar": {"value": 0.1}},
                {"name": "mem", "type": "SCALAR", "scalar": {"value": 32}},
                {"name": "ports", "type": "RANGES", "ranges": {"range": [{"begin": int(port), "end": int(port)}]}},
            ]
            task = {"name": name, "task_id": {"value": name}, "agent_id": offer["agent_id"], "resources": resources}
            driver.launchTasks(offer["id"], [task | {"command": {"value": command}}])

    def statusUpdate(self, driver, update):
        """The driver acknowledges it when this returns."""
        if "uuid" not in update:
            sys.stderr.write(f"The master says: {update}\n")  # of itself, when an agent that it did not know is back
            return
        print(json.dumps({"state": update["state"]}), flush=True)
        if update["state"] == "TASK_KILLED":
            killed.set()


def kill_when_told():
    sys.stdin.readline()
    driver.killTask({"value": name})


killed = threading.Event()
framework = {"user": "root", "name": name, "checkpoint": True, "failover_timeout": 600}
principal, secret = credential or (None, None)
driver = MesosSchedulerDriver(OneTask(), framework, master, principal=principal, secret=secret)
driver.start()
threading.Thread(target=kill_when_told, daemon=True).start()
killed.wait()
driver.stop()
driver.join()

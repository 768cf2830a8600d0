# mypy: ignore-errors
"""A framework on mesoshttp, for the environment that has it: one task, killed when it runs and a line is read.

usage: mesoshttp_framework.py MASTER NAME PORT COMMAND; each status is a line of JSON in the output
"""

import json
import os
import sys
import threading
import time

from mesoshttp.client import MesosClient

master, name, port, command = sys.argv[1:]
client = MesosClient(mesos_urls=[f"http://{master}/master"], frameworkName=name, max_reconnect=0)
launched = False


def ask(driver):
    """The library reads an event when the next one comes: so let there be many, answers about a task that is none."""
    while True:
        driver.reconcile([{"task_id": {"value": "none"}}])
        time.sleep(0.2)


def subscribed(driver):
    threading.Thread(target=ask, args=(driver,), daemon=True).start()


def offered(offers):
    global launched
    for offer in offers:
        if launched:
            offer.decline()
            continue
        launched = True
        resources = [
            {"name": "cpus", "type": "SCALAR", "scalar": {"value": 0.1}},
            {"name": "mem", "type": "SCALAR", "scalar": {"value": 32}},
            {"name": "ports", "type": "RANGES", "ranges": {"range": [{"begin": int(port), "end": int(port)}]}},
        ]
        agent_id = offer.get_offer()["agent_id"]
        task = {"name": name, "task_id": {"value": name}, "agent_id": agent_id, "resources": resources}
        offer.accept([task | {"command": {"value": command}}])


def updated(update):
    status = update["status"]
    if status["task_id"]["value"] != name:
        return
    print(json.dumps({"state": status["state"]}), flush=True)
    driver = client.get_driver()
    if status["state"] == "TASK_RUNNING":
        sys.stdin.readline()
        driver.kill(status["agent_id"]["value"], name)
    elif status["state"] not in ("TASK_STARTING", "TASK_KILLING"):
        driver.tearDown()
        os._exit(0)  # it would wait for a last event


client.on(MesosClient.SUBSCRIBED, subscribed)
client.on(MesosClient.OFFERS, offered)
client.on(MesosClient.UPDATE, updated)
client.register()

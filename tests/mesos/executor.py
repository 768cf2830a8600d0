"""An executor for the tests, as small as one can be: its tasks do nothing but answer on their ports.

It takes everything from its environment, subscribes again when the connection breaks, and then tells what nobody has
acknowledged. Messages of its framework: `finish TASK`, `exit STATUS`, `eat` memory, `leave`, after which it does not
subscribe again, `say TEXT`, which it says back. SIGUSR1 ends its task `ends`.
"""

import base64
import http.client
import json
import os
import signal
import socket
import sys
import threading
import time
import uuid
from contextlib import closing, suppress
from typing import Any

PATH = "/slave(1)/api/v1/executor"
WHO = {name: {"value": os.environ[f"MESOS_{name.upper()}"]} for name in ("framework_id", "executor_id")}
HEADERS = {"Content-Type": "application/json"}

tasks: dict[str, Any] = {}
updates: dict[str, Any] = {}
sockets: dict[str, list[socket.socket]] = {}


def post(kind: str, **body: Any) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    connection = http.client.HTTPConnection(os.environ["MESOS_AGENT_ENDPOINT"])
    connection.request("POST", PATH, json.dumps({"type": kind, **WHO, **body}), HEADERS)
    return connection, connection.getresponse()


def call(kind: str, **body: Any) -> None:
    with suppress(OSError, http.client.HTTPException):  # without an agent: it is repeated on subscribing
        connection, response = post(kind, **body)
        with closing(connection):
            print(kind, response.status, response.read().decode(), flush=True)


def update(task: str, state: str) -> None:
    number = base64.b64encode(uuid.uuid4().bytes).decode()
    status = {"task_id": {"value": task}, "state": state, "source": "SOURCE_EXECUTOR", "uuid": number}
    updates[number] = status | {"timestamp": time.time(), "message": f"{state} of the tests"}
    call("UPDATE", update={"status": updates[number]})


def answer(listener: socket.socket, text: str) -> None:
    with suppress(OSError):
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(text.encode())


def launch(info: dict[str, Any]) -> None:
    name = info["task_id"]["value"]
    tasks[name] = info
    for resource in info["resources"]:
        for each in resource.get("ranges", {}).get("range", ()):
            for port in range(each["begin"], each["end"] + 1):
                listener = socket.create_server(("", port))
                sockets.setdefault(name, []).append(listener)
                threading.Thread(target=answer, args=(listener, name), daemon=True).start()
    update(name, "TASK_RUNNING")


def end(name: str, state: str) -> None:
    for listener in sockets.pop(name, ()):
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
    update(name, state)


def obey(event: dict[str, Any]) -> None:
    print(event["type"], flush=True)
    match event["type"]:
        case "LAUNCH":
            launch(event["launch"]["task"])
        case "LAUNCH_GROUP":
            for info in event["launch_group"]["task_group"]["tasks"]:
                launch(info)
        case "KILL":
            end(event["kill"]["task_id"]["value"], "TASK_KILLED")
        case "ACKNOWLEDGED":
            updates.pop(event["acknowledged"]["uuid"], None)
            tasks.pop(event["acknowledged"]["task_id"]["value"], None)
        case "MESSAGE":
            word, _, text = base64.b64decode(event["message"]["data"]).decode().partition(" ")
            if word == "finish":
                end(text, "TASK_FINISHED")
            elif word == "exit":
                os._exit(int(text))
            elif word == "eat":
                end(str(bytearray(1 << 30)), "TASK_FINISHED")
            elif word == "leave":
                time.sleep(1000)
            else:
                call("MESSAGE", message={"data": base64.b64encode(text.encode()).decode()})
        case "SHUTDOWN":
            if "STUBBORN" not in os.environ:
                os._exit(0)


def follow() -> None:
    missed = {
        "unacknowledged_tasks": list(tasks.values()),
        "unacknowledged_updates": [{"status": each} for each in updates.values()],
    }
    connection, response = post("SUBSCRIBE", subscribe=missed)
    with closing(connection), response:
        if response.status != 200:
            print("SUBSCRIBE", response.status, response.read().decode(), flush=True)
            return
        while length := response.readline():
            obey(json.loads(response.read(int(length))))


signal.signal(signal.SIGUSR1, lambda *_: end("ends", "TASK_FINISHED"))
while True:
    with suppress(OSError, http.client.HTTPException, ValueError):
        follow()
    if os.environ["MESOS_CHECKPOINT"] == "0":
        sys.exit(1)
    time.sleep(0.1)

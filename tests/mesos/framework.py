"""A framework in a testbed's namespace: a client of the v1 scheduler API, as small as one can be.

It acknowledges every update, keeps them all by task, and subscribes again when its master comes back.
"""

import base64
import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from portslice.demo.testbed import Testbed
from tests.kernel import peer
from tests.kernel.waiting import until

_PATH = "/master/api/v1/scheduler"
_PATIENCE_SECS = 2.0


class Connection(http.client.HTTPConnection):
    """HTTP from inside a namespace."""

    def __init__(self, namespace: Path, address: str) -> None:
        super().__init__(address)
        self._namespace = namespace

    def connect(self) -> None:
        self.sock = peer.open_socket(self._namespace, "tcp", connect=(self.host, self.port))


def send(connection: Connection, sender: str, name: str, body: bytes) -> tuple[int, str]:
    """Send the agent a message as libprocess does; status and text of the answer."""
    with closing(connection):
        connection.request("POST", f"/slave(1)/mesos.internal.{name}", body, {"Libprocess-From": sender})
        response = connection.getresponse()
        return response.status, response.read().decode()


def scalar(name: str, value: float) -> dict[str, Any]:
    return {"name": name, "type": "SCALAR", "scalar": {"value": value}}


def port_ranges(*ranges: tuple[int, int]) -> dict[str, Any]:
    range_ = [{"begin": begin, "end": end} for begin, end in ranges]
    return {"name": "ports", "type": "RANGES", "ranges": {"range": range_}}


def task(name: str, command: str | dict[str, Any], *ports: tuple[int, int]) -> dict[str, Any]:
    """A TaskInfo, but for the agent."""
    resources = [scalar("cpus", 0.01), scalar("mem", 32), *([port_ranges(*ports)] if ports else [])]
    info = {"value": command} if isinstance(command, str) else command
    return {"name": name, "task_id": {"value": name}, "command": info, "resources": resources}


def _sum(resources: Iterable[dict[str, Any]]) -> tuple[Counter[str], set[int]]:
    """Scalars by name, and ports."""
    scalars: Counter[str] = Counter()
    ports: set[int] = set()
    for each in resources:
        if "scalar" in each:
            scalars[each["name"]] += each["scalar"]["value"]
        elif each["name"] == "ports":
            ports.update(port for one in each["ranges"]["range"] for port in range(one["begin"], one["end"] + 1))
    return scalars, ports


class Framework:
    """One framework."""

    def __init__(self, bed: Testbed, address: str, **info: Any) -> None:
        self._bed = bed
        self._address = address
        self._info = {
            "user": "root",
            "name": "tests",
            "roles": ["*"],
            "checkpoint": True,
            "failover_timeout": 600,
            "capabilities": [{"type": "MULTI_ROLE"}, {"type": "TASK_KILLING_STATE"}, {"type": "PARTITION_AWARE"}],
            **info,
        }
        self._stream = ""
        self._agent_id: dict[str, Any] = {}
        self._subscribed = threading.Event()
        self._offers: dict[str, dict[str, Any]] = {}
        self._closed = False
        self.id = ""
        self.updates: dict[str, list[dict[str, Any]]] = {}
        self.messages: list[tuple[str, str]] = []  # of executors: id and text
        self.failures: list[dict[str, Any]] = []  # of agents and executors
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        until(self._subscribed.is_set, "subscription")

    # What happened

    def states(self, name: str) -> list[str]:
        """Of a task, as they came; those of a reconciliation, which nobody acknowledges, are not among them."""
        return [each["state"] for each in self.updates.get(name, []) if "uuid" in each]

    def status(self, name: str, state: str) -> dict[str, Any]:
        """The update of a task that brings this state, when it comes."""

        def found() -> dict[str, Any] | None:
            return next((each for each in self.updates.get(name, []) if each["state"] == state), None)

        try:
            return until(found, f"{state} of {name}")
        except AssertionError as error:
            raise AssertionError(f"{error}; there is {self.updates.get(name)}") from None

    def offer(self) -> dict[str, Any]:
        """An offer."""
        return until(lambda: next(iter(list(self._offers.values())), None), "offer")

    @property
    def has_offers(self) -> bool:
        """Whether there is something to be had now."""
        return bool(self._offers)

    def _offers_of_one(self, needed: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """All offers of an agent, when they hold these resources together. What has just been given back is offered
        apart from the rest. After a while: what there is."""
        deadline = time.monotonic() + _PATIENCE_SECS
        while True:
            agent_id = self.offer()["agent_id"]
            offers = [each for each in list(self._offers.values()) if each["agent_id"] == agent_id]
            amounts, ports = _sum(needed)
            offered, offered_ports = _sum(one for each in offers for one in each["resources"])
            enough = all(offered[name] > amount - 1e-6 for name, amount in amounts.items()) and ports <= offered_ports
            if offers and (enough or time.monotonic() > deadline):
                return offers
            time.sleep(0.02)

    # What is to happen

    def launch(self, *tasks: dict[str, Any]) -> None:
        """Launch tasks on all that an agent offers."""
        self._accept("LAUNCH", lambda infos: {"task_infos": infos}, *tasks)

    def launch_group(self, executor: dict[str, Any], *tasks: dict[str, Any]) -> None:
        """Launch a task group likewise."""
        info = {**executor, "framework_id": {"value": self.id}}
        self._accept("LAUNCH_GROUP", lambda infos: {"executor": info, "task_group": {"tasks": infos}}, *tasks)

    def _accept(self, kind: str, launch: Callable[[list[Any]], dict[str, Any]], *tasks: dict[str, Any]) -> None:
        executors = {each["executor"]["executor_id"]["value"]: each["executor"] for each in tasks if "executor" in each}
        asking = (*tasks, *executors.values())
        offers = self._offers_of_one([one for each in asking for one in each.get("resources", ())])
        self._agent_id = offers[0]["agent_id"]
        infos = [each | {"agent_id": self._agent_id} for each in tasks]
        for each in offers:
            self._offers.pop(each["id"]["value"], None)
        operation = {"type": kind, kind.lower(): launch(infos)}
        ids = [each["id"] for each in offers]
        filters = {"refuse_seconds": 0.1}
        self._call("ACCEPT", accept={"offer_ids": ids, "operations": [operation], "filters": filters})

    def run(self, info: dict[str, Any]) -> dict[str, Any]:
        """Launch one, and wait until it runs; that status."""
        self.launch(info)
        return self.status(info["name"], "TASK_RUNNING")

    def kill(self, name: str, **kill: Any) -> None:
        """End a task."""
        self._call("KILL", kill={"task_id": {"value": name}, **kill})

    def tell(self, executor: str, text: str) -> None:
        """Send an executor a message, on the agent that was launched on last."""
        data = base64.b64encode(text.encode()).decode()
        self._call("MESSAGE", message={"agent_id": self._agent_id, "executor_id": {"value": executor}, "data": data})

    def shut_down(self, executor: str) -> None:
        """End an executor there."""
        self._call("SHUTDOWN", shutdown={"agent_id": self._agent_id, "executor_id": {"value": executor}})

    def reconcile(self, name: str) -> str:
        """The state that the master knows of a task."""
        before = len(self.updates.get(name, []))
        self._call("RECONCILE", reconcile={"tasks": [{"task_id": {"value": name}}]})
        until(lambda: len(self.updates.get(name, [])) > before, "reconciliation")
        return str(self.updates[name][-1]["state"])

    def tear_down(self) -> None:
        """End the framework and all its tasks."""
        until(self._subscribed.is_set, "subscription")  # a master that has just started does not know it yet
        self._closed = True
        self._call("TEARDOWN")
        self._reader.join(60)

    def close(self) -> None:
        """Be done with it: somebody else has ended it."""
        self._closed = True
        self._reader.join(10)

    # Inside

    def _call(self, kind: str, **body: Any) -> None:
        """Call, and again if the master has started anew meanwhile: it may not know of the framework yet."""
        errors: list[Exception] = []

        def called() -> bool:
            try:
                self._send(kind, **body)
            except (OSError, http.client.HTTPException, ValueError) as error:
                errors.append(error)
                return False
            return True

        try:
            until(called, f"answer to {kind}")
        except AssertionError as error:
            raise AssertionError(f"{error}: {errors[-1]}") from errors[-1]

    def _send(self, kind: str, **body: Any) -> None:
        connection = Connection(self._bed.host, self._address)
        call = {"type": kind, "framework_id": {"value": self.id}, **body}
        headers = {"Content-Type": "application/json", "Mesos-Stream-Id": self._stream}
        with closing(connection):
            text = json.dumps(call, ensure_ascii=False).encode(errors="surrogateescape")  # it may be no text
            connection.request("POST", _PATH, text, headers)
            response = connection.getresponse()
            if response.status != 202:  # the reader subscribes again then
                raise ValueError(f"{kind}: {response.status} {response.read()!r}")

    def _read(self) -> None:
        while not self._closed:
            with suppress(OSError, http.client.HTTPException, ValueError):
                self._follow()
            self._offers.clear()
            self._subscribed.clear()
            time.sleep(0.1)

    def _follow(self) -> None:
        connection = Connection(self._bed.host, self._address)
        framework_id = {"value": self.id}
        known = {"framework_id": framework_id} if self.id else {}
        info = self._info | ({"id": framework_id} if self.id else {})
        call = {"type": "SUBSCRIBE", "subscribe": {"framework_info": info}, **known}
        with closing(connection):
            connection.request("POST", _PATH, json.dumps(call), {"Content-Type": "application/json"})
            with connection.getresponse() as response:
                if response.status != 200:
                    raise ValueError(response.read())
                self._stream = response.headers["Mesos-Stream-Id"]
                while length := self._line(response):
                    self._event(json.loads(response.read(int(length))))

    @staticmethod
    def _line(response: http.client.HTTPResponse) -> bytes:
        """The length of the next record; empty at the end."""
        line = b""
        while (byte := response.read(1)) not in (b"\n", b""):
            line += byte
        return line

    def _event(self, event: dict[str, Any]) -> None:
        match event["type"]:
            case "SUBSCRIBED":
                self.id = event["subscribed"]["framework_id"]["value"]
                self._subscribed.set()
            case "OFFERS":
                self._offers |= {each["id"]["value"]: each for each in event["offers"]["offers"]}
            case "RESCIND":
                self._offers.pop(event["rescind"]["offer_id"]["value"], None)
            case "UPDATE":
                status = event["update"]["status"]
                known = self.updates.setdefault(status["task_id"]["value"], [])
                # The same again is no new one: the agent has not heard in time that it has come.
                if "uuid" not in status or all(each.get("uuid") != status["uuid"] for each in known):
                    known.append(status)
                if "uuid" in status and not self._closed:  # its end is not known before the stream has ended
                    names = ("agent_id", "task_id", "uuid")
                    self._send("ACKNOWLEDGE", acknowledge={name: status[name] for name in names})
            case "MESSAGE":
                message = event["message"]
                self.messages.append((message["executor_id"]["value"], base64.b64decode(message["data"]).decode()))
            case "FAILURE":
                self.failures.append(event["failure"])
            case "ERROR":
                raise ValueError(event["error"]["message"])

"""Executors at the master: what agents are sent, what is counted and given back, and what frameworks hear of it.

Agents and frameworks are at the other end of recorders; that real ones agree is in tests/kernel.
"""

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, cast

import pytest
from google.protobuf.message import Message

from portslice.engines.master.cluster import Cluster
from portslice.engines.master.flags import MasterFlags
from portslice.engines.master.master import Master
from portslice.engines.master.model import Agent
from portslice.engines.master.registry import Registry
from portslice.engines.mesos.schema import messages_pb2 as messages
from portslice.engines.mesos.schema.mesos_pb2 import (
    TASK_FINISHED,
    TASK_RUNNING,
    ExecutorID,
    ExecutorInfo,
    FrameworkInfo,
    SlaveInfo,
    TaskStatus,
)
from portslice.engines.mesos.schema.scheduler_pb2 import Operation
from portslice.engines.mesos.v1 import from_json
from portslice.engines.mesos.wire import Link, Pid
from portslice.errors import ParseError

_P = ParamSpec("_P")

PID = Pid("slave(1)", "127.0.0.1", 5051)
OWN = {"cpus": 1.0, "mem": 32.0, "disk": 10.0}
EXECUTOR: dict[str, Any] = {"executor_id": {"value": "e"}, "command": {"value": "serve"}, "name": "server"}


class Wire:
    """An agent's connection: what is sent there."""

    def __init__(self) -> None:
        self.sent: list[Message] = []

    def send(self, _sender: Pid, _receiver: str, message: Message) -> None:
        self.sent.append(message)

    def take(self, kind: type[Any]) -> list[Any]:
        found = [each for each in self.sent if isinstance(each, kind)]
        self.sent = [each for each in self.sent if not isinstance(each, kind)]
        return found


class Events:
    """A framework's stream: what it reads."""

    id = "stream"

    def __init__(self) -> None:
        self.read: list[tuple[str, dict[str, Any]]] = []

    def put(self, kind: str, body: dict[str, Any]) -> None:
        self.read.append((kind, body))

    def end(self) -> None:
        pass

    def take(self, kind: str) -> list[dict[str, Any]]:
        found = [body[kind.lower()] for each, body in self.read if each == kind]
        self.read = [each for each in self.read if each[0] != kind]
        return found


class World:
    """A master with one agent and one framework."""

    def __init__(self, directory: Path, checkpoint: bool = True, **flags: Any) -> None:
        self.cluster = Cluster(MasterFlags(work_dir=directory, **flags), Registry(directory))
        self.master = Master(self.cluster)
        self.wire, self.events = Wire(), Events()
        self.agent = self._connected(self.master.membership.register(self._info(), PID, "1.11.0", [], None))
        info = FrameworkInfo(user="root", name="f", checkpoint=checkpoint)
        info.capabilities.add(type=FrameworkInfo.Capability.PARTITION_AWARE)
        self.framework = self.master.subscriptions.subscribe(info, (), self.events)

    def accept(self, *operations: dict[str, Any]) -> None:
        self.master.offers.make()
        offers = list(self.framework.offers)
        self.master.launching.accept(self.framework, offers, [from_json(Operation, each) for each in operations], 0)

    def launch(self, *tasks: dict[str, Any]) -> None:
        self.accept({"type": "LAUNCH", "launch": {"task_infos": list(tasks)}})

    def group(self, executor: dict[str, Any], *tasks: dict[str, Any]) -> None:
        whole = {"executor": executor, "task_group": {"tasks": list(tasks)}}
        self.accept({"type": "LAUNCH_GROUP", "launch_group": whole})

    def task(self, name: str, executor: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        kind = {"command": {"value": "true"}} if executor is None else {"executor": executor}
        ids = {"name": name, "task_id": {"value": name}, "agent_id": {"value": self.agent.id}}
        return ids | kind | {"resources": resources(cpus=1.0)} | more

    def default(self, name: str = "d") -> dict[str, Any]:
        ids = {"executor_id": {"value": name}, "framework_id": {"value": self.framework.id}}
        return {"type": "DEFAULT", **ids, "resources": resources(**OWN)}

    def updated(self, name: str, state: int) -> None:
        status = TaskStatus(task_id={"value": name}, state=cast(Any, state), uuid=name.encode())
        status.slave_id.value = self.agent.id
        update = messages.StatusUpdate(
            framework_id={"value": self.framework.id}, slave_id=status.slave_id, status=status, timestamp=1
        )
        update.uuid = status.uuid
        self.master.tasks.updated(self.agent, update)

    def exited(self, executor: str, status: int = 0) -> None:
        ids = {"slave_id": {"value": self.agent.id}, "framework_id": {"value": self.framework.id}}
        message = messages.ExitedExecutorMessage(**ids, executor_id={"value": executor}, status=status)
        self.master.executors.exited(self.agent, message)

    def come_back(self, *executors: ExecutorInfo, pid: Pid = PID) -> None:
        message = messages.ReregisterSlaveMessage(slave=self.agent.info, version="1.11.0", executor_infos=executors)
        message.tasks.extend(self.agent.tasks.values())
        message.frameworks.append(self.framework.info)
        self.agent = self._connected(self.master.membership.reregister(message, pid, [], None)[0])

    def errors(self) -> list[tuple[str, str, str, str]]:
        """Of the updates that the framework has read since."""
        names = ("state", "reason", "message")
        read = [each["status"] for each in self.events.take("UPDATE")]
        return [(each["task_id"]["value"], *(each.get(name, "") for name in names)) for each in read]

    def _connected(self, agent: Agent) -> Agent:
        agent.link, agent.master = cast(Link, self.wire), Pid("master", "127.0.0.1", 5050)
        return agent

    @staticmethod
    def _info() -> SlaveInfo:
        return from_json(SlaveInfo, {"hostname": "h", "checkpoint": True, "resources": resources(cpus=8, mem=999)})


def resources(**amounts: float) -> list[dict[str, Any]]:
    return [{"name": name, "type": "SCALAR", "scalar": {"value": amount}} for name, amount in amounts.items()]


def looped(test: Callable[_P, Coroutine[Any, Any, None]]) -> Callable[_P, None]:
    """Run with an event loop, which rounds of offers want."""

    @wraps(test)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


@looped
async def test_an_executor_is_counted_once(tmp_path: Path) -> None:
    """Its resources are taken with its first task, and given back with its exit."""
    world = World(tmp_path)
    own = EXECUTOR | {"resources": resources(cpus=2.0)}
    world.launch(world.task("a", own), world.task("b", own), world.task("c"))
    first, second, third = world.wire.take(messages.RunTaskMessage)
    assert [each.launch_executor for each in (first, second, third)] == [True, False, True]
    assert first.task.executor.framework_id.value == world.framework.id
    assert {each.allocation_info.role for each in first.task.executor.resources} == {"*"}
    assert world.agent.used().scalar("cpus") == world.framework.used().scalar("cpus") == 5.0
    assert world.agent.containers() == 2
    world.master.offers.make()
    (offer,) = world.framework.offers.values()
    assert offer.bundle.scalar("cpus") == 3.0
    assert world.events.take("OFFERS")[-1]["offers"][0]["executor_ids"] == [{"value": "e"}]
    for name in "abc":
        world.updated(name, TASK_FINISHED)
    assert (world.agent.used().scalar("cpus"), world.agent.containers()) == (2.0, 1)
    world.exited("c", 256)  # the agent's own, for a command task
    assert world.events.take("FAILURE") == []
    world.exited("e", 256)
    assert world.events.take("FAILURE") == [
        {"agent_id": {"value": world.agent.id}, "executor_id": {"value": "e"}, "status": 256}
    ]
    assert (world.agent.used().scalar("cpus"), world.framework.executors) == (0.0, {})
    world.launch(world.task("d", own))
    assert world.wire.take(messages.RunTaskMessage)[0].launch_executor


@looped
async def test_a_group_is_launched_whole(tmp_path: Path) -> None:
    world = World(tmp_path)
    bad = "TASK_ERROR", "REASON_TASK_GROUP_INVALID"
    text = "'ExecutorInfo.type' must be set"
    for executor, message in (
        ({name: value for name, value in world.default().items() if name != "type"}, text),
        (world.default() | {"framework_id": None}, "'ExecutorInfo.framework_id' must be set"),
        (world.default() | {"command": {}}, "'ExecutorInfo.command' must not be set for 'DEFAULT' executor"),
        (world.default() | {"type": "CUSTOM"}, "'ExecutorInfo.command' must be set for 'CUSTOM' executor"),
        (world.default() | {"resources": []}, "Executor 'd' uses less CPUs (None) than the minimum required (0.01)"),
        (
            world.default() | {"resources": resources(cpus=1, mem=5)},
            "Executor 'd' uses less memory (5MB) than the minimum required (32MB)",
        ),
        (world.default() | {"resources": resources(cpus=1, mem=32)}, "Executor 'd' uses no disk"),
    ):
        world.group(executor, world.task("one"), world.task("two"))
        assert world.errors() == [("one", *bad, message), ("two", *bad, message)]
    world.group(world.default(), world.task("one"), world.task("two", EXECUTOR))
    assert {each[3] for each in world.errors()} == {"The `ExecutorInfo` of task 'two' is different from executor 'd'"}
    world.group(world.default(), world.task("one"), world.task("two", resources=resources(cpus=99)))
    ((_, _, _, too_much), _) = world.errors()
    assert too_much.startswith("Total resources cpus:101; mem:32; disk:10 required by task group and its executor are")
    twin = world.task("one")
    world.group(world.default(), twin, twin)
    assert world.errors()[0][3].startswith("Task has duplicate ID")
    assert (world.wire.take(messages.RunTaskGroupMessage), world.agent.containers()) == ([], 0)
    world.agent.info.resources.add(name="disk", type="SCALAR", scalar={"value": 99}, role="*")
    world.come_back()
    world.group(world.default(), world.task("one"), world.task("two"))
    (sent,) = world.wire.take(messages.RunTaskGroupMessage)
    assert [each.task_id.value for each in sent.task_group.tasks] == ["one", "two"]
    assert (sent.launch_executor, sent.executor.executor_id.value) == (True, "d")
    assert [each.executor == sent.executor for each in sent.task_group.tasks] == [True, True]
    assert world.agent.used().scalar("cpus") == 3.0
    assert world.agent.containers() == 1
    world.group(world.default(), world.task("three"))
    assert not world.wire.take(messages.RunTaskGroupMessage)[0].launch_executor


@looped
async def test_executors_that_may_not_be_launched(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.launch(world.task("first", EXECUTOR))
    nameless = {name: value for name, value in EXECUTOR.items() if name != "command"}
    differs = "ExecutorInfo is not compatible with existing ExecutorInfo with same ExecutorID."
    invalid = "Executor uses invalid resources: Invalid scalar resource 'cpus'"
    for executor, message in (
        (EXECUTOR | {"executor_id": {"value": "a/b"}}, "'a/b' contains invalid characters"),
        (nameless, "'ExecutorInfo.command' must be set"),
        (EXECUTOR | {"type": "DEFAULT"}, "'ExecutorInfo.type' must be 'CUSTOM'"),
        (
            EXECUTOR | {"framework_id": {"value": "x"}},
            f"ExecutorInfo has an invalid FrameworkID (Actual: x vs Expected: {world.framework.id})",
        ),
        (EXECUTOR | {"name": "other"}, differs),
        (
            EXECUTOR | {"executor_id": {"value": "n"}, "resources": resources(cpus=99)},
            "Total resources cpus:100 required by task and its executor is more than available cpus:7; mem:999",
        ),
        (EXECUTOR | {"resources": resources(cpus=-1)}, invalid),
    ):
        world.launch(world.task("bad", executor))
        ((name, state, reason, said),) = world.errors()
        assert (name, state, reason) == ("bad", "TASK_ERROR", "REASON_TASK_INVALID")
        assert said.partition("\n")[0] == message
    assert list(world.agent.executors) == [(world.framework.id, "e")]


@looped
async def test_never_more_containers_than_the_limit(tmp_path: Path) -> None:
    """An executor is one, whatever tasks it has; so is a command task."""
    world = World(tmp_path, max_executors_per_agent=2)
    other = EXECUTOR | {"executor_id": {"value": "other"}}
    world.launch(*(world.task(name, EXECUTOR) for name in "abc"), world.task("command"), world.task("d", other))
    assert [each.task.task_id.value for each in world.wire.take(messages.RunTaskMessage)] == [*"abc", "command"]
    text = "Agent h has reached the maximum number of executors, 2"
    assert world.errors() == [("d", "TASK_DROPPED", "REASON_INVALID_OFFERS", text)]
    world.events.take("OFFERS")
    world.master.offers.make()
    assert world.events.take("OFFERS") == []
    world.updated("command", TASK_FINISHED)
    world.master.offers.make()
    assert len(world.events.take("OFFERS")) == 1


@looped
async def test_messages_go_both_ways(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.launch(world.task("a", EXECUTOR))
    executor_id = ExecutorID(value="e")
    world.master.executors.message(world.framework, world.agent.id, executor_id, b"hello")
    (sent,) = world.wire.take(messages.FrameworkToExecutorMessage)
    assert (sent.executor_id.value, sent.data) == ("e", b"hello")
    world.master.executors.said(world.agent, messages.ExecutorToFrameworkMessage(**_ids(world), data=b"\0"))
    assert world.events.take("MESSAGE") == [
        {"agent_id": {"value": world.agent.id}, "executor_id": {"value": "e"}, "data": "AA=="}
    ]
    world.master.executors.shut_down(world.framework, world.agent.id, executor_id)
    (end,) = world.wire.take(messages.ShutdownExecutorMessage)
    assert (end.executor_id.value, end.framework_id.value) == ("e", world.framework.id)
    strange = _ids(world) | {"framework_id": {"value": "unknown"}}
    world.master.executors.said(world.agent, messages.ExecutorToFrameworkMessage(**strange, data=b"x"))
    assert world.events.take("MESSAGE") == []


def _ids(world: World) -> dict[str, Any]:
    ids = (("slave_id", world.agent.id), ("framework_id", world.framework.id), ("executor_id", "e"))
    return {name: {"value": value} for name, value in ids}


@looped
async def test_executors_go_and_come_back_with_their_agent(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.launch(world.task("a", EXECUTOR | {"resources": resources(cpus=2.0)}))
    world.updated("a", TASK_RUNNING)
    (info,) = world.agent.executors.values()
    for each in info.resources:
        each.role = "*"  # a genuine agent says so
    tasks = list(world.agent.tasks.values())
    world.master.membership.lost(world.agent)
    assert world.events.take("FAILURE") == [{"agent_id": {"value": world.agent.id}}]
    assert world.errors()[-1][1] == "TASK_UNREACHABLE"
    assert (world.framework.executors, world.framework.used().amounts) == ({}, {})
    tasks[0].state = TASK_RUNNING
    world.agent.tasks = {(world.framework.id, "a"): tasks[0]}
    world.come_back(info)
    assert world.agent.used().scalar("cpus") == world.framework.used().scalar("cpus") == 3.0
    assert world.agent.containers() == 1
    world.launch(world.task("b", EXECUTOR | {"resources": resources(cpus=2.0)}))
    (sent,) = world.wire.take(messages.RunTaskMessage)[-1:]
    assert (sent.task.task_id.value, sent.launch_executor) == ("b", False)
    world.come_back()  # without it
    assert (world.agent.executors, world.framework.executors) == ({}, {})
    assert world.agent.containers() == 2
    world.launch(world.task("c", EXECUTOR))
    world.master.subscriptions.tear_down(world.framework)
    assert (world.agent.executors, world.framework.executors, world.agent.containers()) == ({}, {}, 0)


@looped
async def test_what_is_not_checkpointed_ends_with_the_connection(tmp_path: Path) -> None:
    world = World(tmp_path, checkpoint=False)
    world.launch(world.task("a", EXECUTOR))
    assert world.agent.containers() == 1
    world.master.membership.disconnected(world.agent)
    assert world.errors()[-1][:3] == ("a", "TASK_LOST", "REASON_AGENT_DISCONNECTED")
    assert (world.agent.containers(), world.framework.executors) == (0, {})


@looped
async def test_statuses_are_bounded(tmp_path: Path) -> None:
    """An executor may say that a task runs as often as it likes."""
    world = World(tmp_path)
    world.launch(world.task("a", EXECUTOR))
    for number in range(50):
        status = TaskStatus(task_id={"value": "a"}, state=TASK_RUNNING, uuid=bytes([number]), data=b"x" * 1000)
        update = messages.StatusUpdate(**_ids(world), status=status, timestamp=1)
        update.uuid = status.uuid
        world.master.tasks.updated(world.agent, update)
    (kept,) = world.agent.tasks[world.framework.id, "a"].statuses
    assert (kept.uuid, kept.HasField("data")) == (bytes([49]), False)
    assert len(world.events.take("UPDATE")) == 50


@looped
async def test_a_kill_is_repeated_to_an_agent_that_is_back(tmp_path: Path) -> None:
    """It may have died before it heard it."""
    world = World(tmp_path)
    world.launch(*(world.task(name) for name in "abc"))
    world.agent.link = None
    world.master.membership.disconnected(world.agent)
    for name in "ab":
        world.master.tasks.kill(world.framework.tasks[name], None)
    assert world.wire.take(messages.KillTaskMessage) == []
    world.updated("b", TASK_FINISHED)
    world.master.tasks.acknowledge(world.framework, world.agent.id, world.framework.tasks["b"].task_id, b"b")
    world.come_back()
    world.master.membership.welcome(world.agent, ())
    assert [each.task_id.value for each in world.wire.take(messages.KillTaskMessage)] == ["a"]


@looped
async def test_an_agent_with_impossible_resources_does_not_come_back(tmp_path: Path) -> None:
    """They would spoil every round of offers."""
    world = World(tmp_path)
    bad = from_json(ExecutorInfo, EXECUTOR | {"resources": resources(cpus=-1.0)})
    with pytest.raises(ParseError):
        world.come_back(bad)
    assert world.cluster.agents[world.agent.id] is world.agent

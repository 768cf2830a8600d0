"""Executors, as far as they are values: what their containers have, and what an agent makes of its records."""

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from portslice.engines.mesos import commands, records, status, streams, v1
from portslice.engines.mesos.executor_api import EventStream
from portslice.engines.mesos.ledger import Ledger
from portslice.engines.mesos.meta import Meta
from portslice.engines.mesos.schema import executor_pb2, mesos_pb2
from portslice.engines.mesos.schema.executor_pb2 import Event
from portslice.engines.mesos.schema.record_pb2 import TaskRecord
from portslice.engines.mesos.updates import Stream
from portslice.errors import ParseError
from portslice.ports import PortSet

FRAMEWORK = mesos_pb2.FrameworkInfo(user="root", name="f", id={"value": "f"}, checkpoint=True)


def _resources(cpus: float, mem: float, *ports: tuple[int, int]) -> list[mesos_pb2.Resource]:
    ranges = [mesos_pb2.Value.Range(begin=begin, end=end) for begin, end in ports]
    return [
        mesos_pb2.Resource(name="cpus", type=mesos_pb2.Value.SCALAR, scalar={"value": cpus}),
        mesos_pb2.Resource(name="mem", type=mesos_pb2.Value.SCALAR, scalar={"value": mem}),
        mesos_pb2.Resource(name="ports", type=mesos_pb2.Value.RANGES, ranges={"range": ranges}),
    ]


def _task(name: str, **fields: Any) -> mesos_pb2.TaskInfo:
    return mesos_pb2.TaskInfo(name=name, task_id={"value": name}, slave_id={"value": "S0"}, **fields)


def _executor(name: str = "e", **fields: Any) -> mesos_pb2.ExecutorInfo:
    return mesos_pb2.ExecutorInfo(executor_id={"value": name}, **fields)


# Containers


def test_a_container_has_what_its_executor_and_tasks_ask_for() -> None:
    executor = _executor(resources=_resources(0.1, 32))
    tasks = [_task("a", resources=_resources(1.2, 100, (1, 2))), _task("b", resources=_resources(0.1, 0.5, (3, 4)))]
    assert commands.amounts(executor, tasks) == (1.4, int(132.5 * (1 << 20)), None, PortSet.of(range(1, 5)))
    with pytest.raises(ParseError):
        commands.amounts(executor, [_task("c", resources=_resources(1, 1, (70000, 70001)))])


def test_the_executor_of_a_command_task_is_imagined() -> None:
    """As in the documentation."""
    task = _task("job.1436298853", command={"value": "iperf=1; while true"}, resources=_resources(1, 1))
    task.kill_policy.grace_period.nanoseconds = 7
    task.resources[0].allocation_info.role = "web"
    executor = commands.imagined(FRAMEWORK, task)
    assert executor.name == "Command Executor (Task: job.1436298853) (Command: sh -c 'iperf=1; whi...')"
    assert (executor.executor_id.value, executor.source) == ("job.1436298853", "job.1436298853")
    assert [(each.name, each.scalar.value) for each in executor.resources] == [("cpus", 0.1), ("mem", 32)]
    assert {each.allocation_info.role for each in executor.resources} == {"web"}
    assert executor.shutdown_grace_period.nanoseconds == 7
    record = TaskRecord(framework=FRAMEWORK, task=task, executor_id=executor.executor_id)
    assert not records.task(record).HasField("executor_id")  # the master knows of none


@pytest.mark.parametrize(("exit_status", "waited"), [(0, 0), (3, 768), (137, 9), (143, 15), (255, 65280), (None, -1)])
def test_wait_statuses(exit_status: int | None, waited: int) -> None:
    assert status.wait_status(exit_status) == waited


# Events


def test_events_as_json() -> None:
    event = Event(
        type=Event.SUBSCRIBED,
        subscribed=Event.Subscribed(
            executor_info=_executor("e", type=mesos_pb2.ExecutorInfo.CUSTOM),
            framework_info=FRAMEWORK,
            slave_info={"hostname": "h", "id": {"value": "S0"}},
            container_id={"value": "c"},
        ),
    )
    shown = v1.to_json(event)
    assert list(shown) == ["type", "subscribed"]
    assert list(shown["subscribed"]) == ["executor_info", "framework_info", "agent_info", "container_id"]
    assert shown["subscribed"]["executor_info"] == {"type": "CUSTOM", "executor_id": {"value": "e"}}
    assert shown["subscribed"]["agent_info"]["id"] == {"value": "S0"}


@pytest.mark.parametrize("kind", ["application/json", "application/x-protobuf"])
def test_events_are_records(kind: str) -> None:
    sent = bytearray()

    class Response:
        async def write(self, data: bytes) -> None:
            sent.extend(data)

    async def copy() -> None:
        stream = EventStream(kind)
        stream.put(Event(type=Event.SHUTDOWN))
        stream.end()
        await stream.copy_to(cast(Any, None), cast(Any, Response()))

    asyncio.run(copy())
    json = kind == "application/json"
    assert bytes(sent) == (b'19\n{"type":"SHUTDOWN"}' if json else b"2\n\x08\x07")
    assert Event.FromString(b"\x08\x07").type == executor_pb2.Event.SHUTDOWN
    assert streams.line({"a": 1}) == b'{"a":1}'


# Records


def test_old_updates_are_forgotten() -> None:
    """Those that the framework has, but for the last ones; so a task that is checked for years has a small record."""
    record = TaskRecord(framework=FRAMEWORK, task=_task("t"))
    sent: list[bytes] = []

    async def tell() -> None:
        stream = Stream(record, lambda _: None, lambda update: sent.append(update.uuid))
        for _ in range(1000):
            ids = FRAMEWORK.id, record.task.task_id, record.task.slave_id
            stream.add([status.update(*ids, mesos_pb2.TASK_RUNNING)])
            assert stream.acknowledge(sent[-1]) is not None
        assert stream.pending is None

    asyncio.run(tell())
    assert len(sent) == len(set(sent)) == 1000
    assert len(record.updates) < 100


def test_what_is_told_of_a_task_is_bounded() -> None:
    """The last status of each state in a row, without its data."""
    record = TaskRecord(framework=FRAMEWORK, task=_task("t"), executor_id={"value": "e"})
    states = [mesos_pb2.TASK_RUNNING] * 3 + [mesos_pb2.TASK_KILLING, mesos_pb2.TASK_RUNNING]
    for number, state in enumerate(states):
        update = status.update(FRAMEWORK.id, record.task.task_id, record.task.slave_id, state, message=str(number))
        update.status.data = b"much"
        record.updates.append(update)
    told = records.task(record).statuses
    assert [(each.state, each.message) for each in told] == [
        (mesos_pb2.TASK_RUNNING, "2"), (mesos_pb2.TASK_KILLING, "3"), (mesos_pb2.TASK_RUNNING, "4")
    ]  # fmt: skip
    assert not any(each.HasField("data") for each in told)
    assert record.updates[0].status.data == b"much"


def _ledger(directory: Path, sent: list[Any]) -> Ledger:
    meta = Meta(directory)
    meta.register(mesos_pb2.SlaveInfo(hostname="h", id={"value": "S0"}))
    return Ledger(cast(Any, None), meta, send=sent.append, ip=lambda: None)


def test_a_command_task_may_be_called_like_an_executor(tmp_path: Path) -> None:
    """It is not delivered to the executor, and does not end with it."""
    ledger = _ledger(tmp_path, [])
    own = ledger.admit(FRAMEWORK, _task("e"))
    theirs = ledger.admit(FRAMEWORK, _task("t"), executor=mesos_pb2.ExecutorID(value="e"))
    assert own is not None
    assert theirs is not None
    assert own.executor_key == theirs.executor_key
    assert ledger.of_executor(theirs.executor_key) == [theirs]


def test_what_is_said_again_of_an_unknown_task_is_no_second_end(tmp_path: Path) -> None:
    sent: list[Any] = []
    ledger = _ledger(tmp_path, sent)
    for name, reason in (
        ("a", mesos_pb2.TaskStatus.REASON_RECONCILIATION),
        ("a", mesos_pb2.TaskStatus.REASON_EXECUTOR_TERMINATED),
        ("b", mesos_pb2.TaskStatus.REASON_RECONCILIATION),
    ):
        ledger.send_once(FRAMEWORK.id, mesos_pb2.TaskID(value=name), mesos_pb2.TASK_DROPPED, "", reason)
    first, again, other = (each.uuid for each in sent)
    assert first == again == sent[0].status.uuid
    assert len(first) == 16
    assert other != first


def test_a_record_that_was_not_written_whole_goes(tmp_path: Path) -> None:
    ledger = _ledger(tmp_path, [])
    ledger.admit(FRAMEWORK, _task("whole"))
    (whole,) = tmp_path.glob("meta/slaves/latest/tasks/f/*")
    draft = whole.with_name("torn.\tnew")
    draft.write_bytes(b"x")
    assert [record.task.name for record in Meta(tmp_path).tasks()] == ["whole"]
    assert list(whole.parent.iterdir()) == [whole]


def test_an_agent_that_is_to_be_a_new_one_next_time_leaves_the_link_alone(tmp_path: Path) -> None:
    """Removing it is how an operator says so, also while the agent runs."""
    ledger = _ledger(tmp_path, [])
    Meta(tmp_path).latest.unlink()
    ledger.admit(FRAMEWORK, _task("late"))
    assert not Meta(tmp_path).latest.exists()
    assert Meta(tmp_path).slave_id is None
    assert [path.name for path in tmp_path.glob("meta/slaves/S0/tasks/f/*")] == ["late"]

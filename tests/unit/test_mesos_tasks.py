"""What an agent of a cluster remembers and repeats, and how it reads addresses."""

import asyncio
from pathlib import Path

import pytest

from portslice.engines.mesos import updates
from portslice.engines.mesos.detector import Master, detector
from portslice.engines.mesos.meta import Meta, checked_id
from portslice.engines.mesos.schema.mesos_pb2 import TASK_FINISHED, TASK_RUNNING, TASK_STARTING, SlaveID, SlaveInfo
from portslice.engines.mesos.schema.messages_pb2 import StatusUpdate
from portslice.engines.mesos.schema.record_pb2 import TaskRecord
from portslice.engines.mesos.status import update
from portslice.engines.mesos.updates import Stream
from portslice.engines.mesos.wire import Pid
from portslice.engines.mesos.zookeeper import Ensemble, master_of
from portslice.errors import ParseError


def _record(task: str = "t", framework: str = "f") -> TaskRecord:
    return TaskRecord(
        framework={"user": "root", "name": "f", "id": {"value": framework}, "checkpoint": True},
        task={"name": "t", "task_id": {"value": task}, "slave_id": {"value": "S0"}},
    )


def _updates(record: TaskRecord) -> list[StatusUpdate]:
    ids = record.framework.id, record.task.task_id, record.task.slave_id
    return [update(*ids, state) for state in (TASK_STARTING, TASK_RUNNING, TASK_FINISHED)]


# Addresses


def test_process_ids() -> None:
    pid = Pid.parse("slave(1)@10.0.0.2:5051")
    assert pid == ("slave(1)", "10.0.0.2", 5051)
    assert str(pid) == "slave(1)@10.0.0.2:5051"
    for text in ("", "master", "m@host:5050", "a/b@1.2.3.4:1", "m@1.2.3.4:99999", "m@1.2.3.4:1 ", "m\r\n@1.2.3.4:1"):
        with pytest.raises(ParseError):
            Pid.parse(text)


@pytest.mark.parametrize("text", ["127.0.0.1:5050", "master@127.0.0.1:5050", "localhost:5050\n"])
def test_a_master_that_is_named(text: str) -> None:
    assert asyncio.run(detector(text, 10).detect()).pid == Pid("master", "127.0.0.1", 5050)


@pytest.mark.parametrize("text", ["", "host", "host:", "host:0", "host:65536", "http://host:5050", "a b:5050"])
def test_no_master(text: str) -> None:
    with pytest.raises(ParseError, match=r"^Failed to create a master detector: Failed to parse "):
        detector(text, 10)


def test_ensembles() -> None:
    assert Ensemble.parse("zk://a:2181,10.0.0.1:2182/mesos/") == Ensemble("a:2181,10.0.0.1:2182", "/mesos", None)
    assert Ensemble.parse("zk://u:p:w@a/x/y") == Ensemble("a", "/x/y", "u:p:w")
    for text, why in {
        "zk://": "Failed to parse --master",
        "zk://a:2181": r"Expecting a \(chroot\) path",
        "zk://a:2181/": r"Expecting a \(chroot\) path",
        "zk://a:21811111/x": "Failed to parse --master",
        "zk://a,,b/x": "Failed to parse --master",
        "zk://secret@a/x": "Expecting 'username:password'",
        "zk://u:secret@a b/x": "Failed to parse --master",
    }.items():
        with pytest.raises(ParseError, match=f"^Failed to create a master detector: {why}") as raised:
            detector(text, 10)
        assert "secret" not in str(raised.value)


def test_what_masters_leave_in_zookeeper() -> None:
    """As a genuine one of 1.11.0 does."""
    info = (
        b'{"address":{"hostname":"h","ip":"10.0.0.1","port":5050},"capabilities":[{"type":"AGENT_UPDATE"}],"hostname":'
        b'"h","id":"5bc27b5d","ip":16777226,"pid":"master@10.0.0.1:5050","port":5050,"version":"1.11.0"}'
    )
    assert master_of(info) == Master(Pid("master", "10.0.0.1", 5050), "h")
    for data in (b"", b"[]", b"null", b"\xff", b"{}", b'{"pid":7}', b'{"pid":"master@host:5050"}'):
        with pytest.raises(ParseError, match="is no MasterInfo"):
            master_of(data)


# Status updates


def test_updates_go_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is repeated until it is acknowledged; the state that comes with it is the newest."""
    monkeypatch.setattr(updates, "RETRY_MIN_SECS", 0.001)
    sent: list[StatusUpdate] = []
    record = _record()
    first, second, third = _updates(record)

    def send(each: StatusUpdate) -> None:
        sent.append(StatusUpdate.FromString(each.SerializeToString()))

    async def deliver() -> None:
        stream = Stream(record, lambda _: None, send)
        stream.add([first, second])
        while len(sent) < 3:
            await asyncio.sleep(0.001)
        assert {each.uuid for each in sent} == {first.uuid}
        assert {each.latest_state for each in sent} == {TASK_RUNNING}
        assert stream.acknowledge(b"something else") is None
        stream.add([third])
        assert stream.acknowledge(first.uuid) is not None
        assert stream.acknowledge(first.uuid) is None  # an echo
        assert (sent[-1].uuid, sent[-1].latest_state) == (second.uuid, TASK_FINISHED)
        stream.acknowledge(second.uuid)
        stream.acknowledge(third.uuid)
        assert stream.pending is None
        count = len(sent)
        await asyncio.sleep(0.01)
        assert len(sent) == count
        assert sent[-1].uuid == third.uuid

    asyncio.run(deliver())


# On disk


def test_tasks_on_record(tmp_path: Path) -> None:
    meta = Meta(tmp_path)
    assert meta.slave_id is None
    assert meta.tasks() == []
    meta.register(SlaveInfo(hostname="h", id={"value": "S0"}))
    kept, forgotten, odd = _record("kept"), _record("forgotten", "g"), _record("odd", "g")
    kept.updates.extend(_updates(kept))
    kept.acknowledged = 1
    for record in (kept, forgotten, odd):
        meta.write(record)
    meta.forget(forgotten)
    (path,) = tmp_path.rglob("odd")
    path.write_bytes(b"\xff\xff")
    again = Meta(tmp_path)
    assert again.slave_id == SlaveID(value="S0")
    assert again.tasks() == [kept]
    again.unregister()
    assert Meta(tmp_path).slave_id is None
    assert list(tmp_path.rglob("kept")) == []


@pytest.mark.parametrize("text", ["", ".", "..", "a/b", "a\\b", "a b", "a\0", "x" * 300, "\N{SNOWMAN}" * 100])
def test_ids_that_are_no_names(text: str, tmp_path: Path) -> None:
    with pytest.raises(ParseError, match="contains invalid characters"):
        checked_id(text)

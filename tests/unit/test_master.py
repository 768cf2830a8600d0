"""A master's arithmetic and turns, the checks of a task, its JSON, and what it remembers."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portslice.engines.master import validation
from portslice.engines.master.bundle import Bundle
from portslice.engines.master.fairness import Claim, order, share
from portslice.engines.master.flags import MasterFlags, Networks
from portslice.engines.master.model import Agent, Framework
from portslice.engines.master.registry import Registry
from portslice.engines.mesos.schema.mesos_pb2 import FrameworkInfo, Resource, SlaveInfo, TaskInfo, TaskStatus
from portslice.engines.mesos.schema.scheduler_pb2 import Call
from portslice.engines.mesos.v1 import from_json, to_json
from portslice.engines.mesos.wire import Pid
from portslice.errors import FlagError, ParseError, PortsliceError
from portslice.flags import load
from portslice.ports import PortSet
from portslice.units import Duration

_KEYS = st.tuples(st.sampled_from(("cpus", "mem")), st.sampled_from(("*", "prod")))
_PORTS = st.sets(st.integers(31000, 31020), min_size=1).map(PortSet.of)


@st.composite
def bundles(draw: st.DrawFn) -> Bundle:
    amounts: dict[Any, Any] = draw(st.dictionaries(_KEYS, st.integers(1, 10_000)))
    if draw(st.booleans()):
        amounts["ports", "*"] = draw(_PORTS)
    return Bundle(amounts)


@given(bundles(), bundles())
def test_what_is_taken_away_was_there(whole: Bundle, part: Bundle) -> None:
    assert (whole + part) - (whole + part) == Bundle()
    assert part <= whole + part
    assert whole - part <= whole
    if part <= whole:
        assert (whole - part) + part == whole
        assert not (part <= whole - part and part.ranges("ports").ranges)  # a port is given once


@given(bundles())
def test_bundles_are_messages(bundle: Bundle) -> None:
    assert Bundle.of(bundle.messages("prod")) == bundle


def test_bad_resources() -> None:
    for ranges in ([(5, 4)], [(1, 70000)], [(1, 5), (5, 6)]):
        range_ = [{"begin": begin, "end": end} for begin, end in ranges]
        with pytest.raises(ParseError):
            Bundle.of([Resource(name="ports", type="RANGES", ranges={"range": range_})])
    for value in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ParseError, match="Invalid scalar resource 'cpus'"):
            Bundle.of([Resource(name="cpus", type="SCALAR", scalar={"value": value})])


def _cpus(amount: int, mem: int = 0) -> Bundle:
    return Bundle({("cpus", "*"): amount, ("mem", "*"): mem})


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=8))
def test_the_smallest_share_is_first(had: list[tuple[str, int, int]]) -> None:
    total = _cpus(9000, 900_000)
    claims = [Claim(str(at), role, _cpus(1000 * c, 100_000 * m)) for at, (role, c, m) in enumerate(had)]
    found = order(claims, total)
    assert sorted(found, key=claims.index) == claims
    of_role = {role: sum((c.has for c in claims if c.role == role), Bundle()) for role in "ab"}
    shares = [(share(of_role[c.role], total), c.role, share(c.has, total)) for c in found]
    assert [(role, own) for _, role, own in shares] == [(role, own) for _, role, own in sorted(shares)]


@given(st.integers(2, 5), st.integers(1, 30))
def test_frameworks_get_equal_parts(frameworks: int, tasks: int) -> None:
    """Each takes one CPU whenever it is its turn."""
    had = [0] * frameworks
    for _ in range(tasks):
        claims = [Claim(str(at), "*", _cpus(1000 * count)) for at, count in enumerate(had)]
        had[int(order(claims, _cpus(100_000))[0].framework)] += 1
    assert max(had) - min(had) <= 1


def test_who_declines_waits_for_the_others() -> None:
    claims = [Claim("a", "*", Bundle(), served=2), Claim("b", "*", Bundle(), served=1)]
    assert [each.framework for each in order(claims, _cpus(1000))] == ["b", "a"]


def _task(**info: Any) -> TaskInfo:
    resources = [{"name": "cpus", "type": "SCALAR", "scalar": {"value": 1}}]
    content = {"name": "t", "task_id": {"value": "t"}, "agent_id": {"value": "S0"}, "command": {"value": "true"}}
    return from_json(TaskInfo, content | {"resources": resources} | info)


def test_tasks_that_may_not_be_launched() -> None:
    ranges = {"name": "ports", "type": "RANGES", "ranges": {"range": [{"begin": 31000, "end": 31001}]}}
    left = _cpus(1000) + Bundle({("ports", "*"): PortSet.of((31001, 31002))})
    agent = Agent("S0", SlaveInfo(hostname="h"), Pid("slave(1)", "127.0.0.1", 5051), "1.11.0", [], left)
    framework = Framework("f", FrameworkInfo(user="root", name="f"))
    framework.tasks["twin"] = validation.new_task(_task(), "f")
    assert validation.check(_task(), framework, agent, left) == _cpus(1000) - Bundle({("mem", "*"): 1})
    for info, objection in (
        (_task(task_id={"value": "a/b"}), "TaskID 'a/b' contains invalid characters"),
        (_task(task_id={"value": "twin"}), "Task has duplicate ID: twin"),
        (_task(agent_id={"value": "S1"}), "Task uses invalid agent S1 while agent S0 is expected"),
        (_task(command=None), "Task should have at least one .but not both. of CommandInfo or ExecutorInfo present"),
        (_task(resources=[]), "Task uses no resources"),
        (_task(resources=[ranges]), "is more than available cpus:1; ports:\\[31001-31002\\]"),
        (_task(resources=[ranges | {"name": "ephemeral_ports"}]), "ephemeral_ports are given by the agent"),
        (_task(resources=[{"name": "cpus", "type": "SCALAR", "scalar": {"value": 1.001}}]), "cpus:1.001 required"),
    ):
        with pytest.raises(ParseError, match=objection):
            validation.check(info, framework, agent, left)


def test_json_is_that_of_the_v1_api() -> None:
    status = TaskStatus(task_id={"value": "t"}, state="TASK_RUNNING", source="SOURCE_SLAVE", uuid=b"\0\1")
    status.slave_id.value = "S0"
    assert to_json(status) == {
        "task_id": {"value": "t"},
        "state": "TASK_RUNNING",
        "agent_id": {"value": "S0"},
        "source": "SOURCE_AGENT",
        "uuid": "AAE=",
    }
    resource = Resource(name="ports", type="RANGES", ranges={"range": [{"begin": 1, "end": 2}]})
    assert to_json(resource)["ranges"] == {"range": [{"begin": 1, "end": 2}]}
    call = from_json(Call, {"type": "KILL", "kill": {"task_id": {"value": "t"}, "new": 1}, "another": [{}]})
    assert call.kill.task_id.value == "t"
    wrong: dict[str, Any]
    for wrong in ({"kill": {}}, {"kill": []}, {"type": {}}, {"acknowledge": {"uuid": 7}}):
        with pytest.raises(ParseError, match="Failed to convert JSON into Call protobuf"):
            from_json(Call, wrong)


def test_ids_survive(tmp_path: Path) -> None:
    first = Registry(tmp_path / "new")
    ids = [first.new_agent_id(), first.new_framework_id()]
    assert ids == [f"{first.id}-S0", f"{first.id}-0000"]
    first.put_framework(ids[1], {"name": "f"})
    first.put_framework("gone", {"name": "g"})
    first.remove_framework("gone")
    second = Registry(tmp_path / "new")
    assert second.new_agent_id() == f"{first.id}-S1"
    assert second.new_framework_id() == f"{first.id}-0001"
    assert second.frameworks == {ids[1]: {"name": "f"}}
    assert second.is_removed("gone")
    (tmp_path / "new/registry.json").write_text("[]")
    with pytest.raises(PortsliceError, match="cannot be used"):
        Registry(tmp_path / "new")


def test_networks() -> None:
    assert [str(each) for each in Networks.parse("10.0.0.7, 10.1.0.0/24").networks] == ["10.0.0.7/32", "10.1.0.0/24"]
    with pytest.raises(ParseError, match="Expecting addresses or networks"):
        Networks.parse("10.0.0.300")


@pytest.mark.parametrize("flag", ["--zk=zk://a:2181/mesos", "--quorum=2"])
def test_it_is_not_elected(flag: str) -> None:
    with pytest.raises(FlagError, match="This master is for one host"):
        load(MasterFlags, [flag], {})


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"agent_ping_timeout": Duration.parse("0secs")}, "for --agent_ping_timeout: Must be between 1secs and 15mins"),
        ({"agent_ping_timeout": Duration.parse("1hrs")}, "Invalid value '1hrs' for --agent_ping_timeout: "),
        ({"max_agent_ping_timeouts": 0}, "Invalid value '0' for --max_agent_ping_timeouts: Must be at least 1"),
        ({"allocation_interval": Duration.parse("0secs")}, "for --allocation_interval: Must be more than 0"),
    ],
)
def test_flags_that_no_master_can_have(flags: dict[str, Any], message: str) -> None:
    MasterFlags().check()
    with pytest.raises(PortsliceError, match=message):
        MasterFlags(**flags).check()

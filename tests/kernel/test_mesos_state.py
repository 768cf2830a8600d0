"""What an agent of a genuine Apache Mesos master tells of its tasks, beside what the master tells of them."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from portslice.demo.node import Node
from portslice.demo.testbed import HOST_ADDRESS
from tests.kernel.asking import over_socket
from tests.kernel.calling import call_over_tcp
from tests.kernel.test_openapi import valid
from tests.kernel.waiting import until
from tests.mesos.cluster import genuine, joined
from tests.mesos.framework import Framework, port_ranges, scalar, task
from tests.mesos.master import AnyMaster

pytestmark = [pytest.mark.native, pytest.mark.timeout(600)]  # the first time it is installed

MEMBERS = ("cpus", "mem", "ports")
LABELS = {"labels": [{"key": "tier", "value": "front"}]}
DISCOVERY = {"visibility": "CLUSTER", "name": "web", "ports": {"ports": [{"number": 31005, "name": "http"}]}}


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[AnyMaster, Node]]:
    """A master and an agent of it on one host, which this module's tests share."""
    with joined(genuine(), "--hostname=member") as both:
        yield both


@pytest.fixture
def framework(cluster: tuple[AnyMaster, Node]) -> Iterator[Framework]:
    """A framework; its tasks end with it."""
    framework = Framework(cluster[0].bed, cluster[0].address)
    yield framework
    framework.tear_down()
    until(lambda: not _of(cluster[1], framework, "frameworks"), "end of a framework")


def _of(agent: Node, framework: Framework, kind: str = "frameworks") -> dict[str, Any]:
    """What /state says of a framework."""
    return next((each for each in agent.get("/state")[kind] if each["id"] == framework.id), {})


def _tasks(shown: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The tasks of a framework in /state."""
    executors = [*shown.get("executors", ()), *shown.get("completed_executors", ())]
    kinds = ("tasks", "queued_tasks", "completed_tasks")
    return {one["id"]: one for each in executors for kind in kinds for one in each[kind]}


def _call(agent: Node, kind: str) -> dict[str, Any]:
    return dict(call_over_tcp(agent, kind).json[kind.lower()])


def test_an_agent_tells_of_its_master(cluster: tuple[AnyMaster, Node]) -> None:
    master, agent = cluster
    (known,) = master.get("/slaves")["slaves"]
    state = agent.get("/state")
    assert (state["id"], state["pid"], state["hostname"]) == (known["id"], known["pid"], "member")
    assert state["master_hostname"] == HOST_ADDRESS
    assert sorted(state["capabilities"]) == sorted(known["capabilities"])
    assert {name: state["resources"][name] for name in MEMBERS} == {name: known["resources"][name] for name in MEMBERS}
    assert _call(agent, "GET_AGENT")["agent_info"]["id"] == {"value": known["id"]}
    assert agent.get("/metrics/snapshot")["slave/registered"] == 1


def test_state_is_the_masters(cluster: tuple[AnyMaster, Node], framework: Framework) -> None:
    """Framework, task, resources and statuses, member by member."""
    master, agent = cluster
    agent.launch("own")
    framework.run(task("web", "sleep 1000", (31005, 31006)) | {"labels": LABELS, "discovery": DISCOVERY})
    shown = _of(agent, framework)
    told = next(each for each in master.get("/state")["frameworks"] if each["id"] == framework.id)
    for name in ("name", "user", "checkpoint", "failover_timeout", "roles"):
        assert shown[name] == told[name], name
    (executor,) = shown["executors"]
    assert (executor["id"], executor["source"], executor["role"]) == ("web", "web", "*")
    assert executor["directory"] == agent.client.container("web")["sandbox"]
    assert executor["container"] == agent.client.container("web")["id"]
    assert (executor["resources"]["cpus"], executor["resources"]["mem"]) == (0.11, 64)
    (ours,), (theirs,) = executor["tasks"], told["tasks"]
    for name in theirs:
        if name != "statuses":
            assert ours[name] == theirs[name], name
    times = [each["timestamp"] for each in ours["statuses"]]
    assert [each["timestamp"] for each in theirs["statuses"]] == times
    assert ours["statuses"] == theirs["statuses"]
    assert [each["id"] for each in agent.get("/state")["frameworks"]] == ["", framework.id]
    valid(agent.get("/state"), {"$ref": "#/components/schemas/State"})
    latest = json.loads(over_socket(agent, "/files/debug").body)
    assert latest[f"/framework/{framework.id}/executor/web/latest"] == executor["directory"]
    (listed,) = agent.get(f"/containers?framework_id={framework.id}")
    assert listed["executor_id"] == "web"
    agent.kill("own")


def test_the_operator_api_says_the_same(cluster: tuple[AnyMaster, Node], framework: Framework) -> None:
    _, agent = cluster
    status = framework.run(task("web", "sleep 1000", (31005, 31006)) | {"labels": LABELS})
    state = _call(agent, "GET_STATE")
    infos = [each["framework_info"] for each in state["get_frameworks"]["frameworks"]]
    (info,) = (each for each in infos if each["id"] == {"value": framework.id})
    assert (info["name"], info["roles"]) == ("tests", ["*"])
    assert {each["type"] for each in info["capabilities"]} == {"MULTI_ROLE", "TASK_KILLING_STATE", "PARTITION_AWARE"}
    (shown,) = state["get_tasks"]["launched_tasks"]
    allocated = {"allocation_info": {"role": "*"}}
    wanted = [scalar("cpus", 0.01), scalar("mem", 32.0), port_ranges((31005, 31006))]
    assert shown["resources"] == [{**each, **allocated} for each in wanted]
    assert (shown["state"], shown["labels"], shown["framework_id"]) == ("TASK_RUNNING", LABELS, {"value": framework.id})
    running = shown["statuses"][-1]
    assert {name: status[name] for name in running} == running
    assert running["source"] == "SOURCE_EXECUTOR"
    executors = [each["executor_info"] for each in state["get_executors"]["executors"]]
    (executor,) = executors
    assert executor["framework_id"] == {"value": framework.id}
    assert executor["resources"] == [{**each, **allocated} for each in (scalar("cpus", 0.1), scalar("mem", 32.0))]
    for kind in ("GET_TASKS", "GET_EXECUTORS", "GET_FRAMEWORKS"):
        assert _call(agent, kind) == state[kind.lower()]


def test_what_ended_is_told_as_the_framework_was_told(cluster: tuple[AnyMaster, Node], framework: Framework) -> None:
    """Also of a task that a kill ended in another way than by its signal, and by another agent than launched it."""
    _, agent = cluster
    before = agent.get("/metrics/snapshot")
    framework.launch(
        task("good", "true"),
        task("bad", "exit 3"),
        task("signalled", "kill -TERM $$"),  # nobody wanted that
        task("stopped", "trap 'exit 5' TERM; while :; do sleep 0.1; done"),
        task("nowhere", {"value": "true", "user": "nobody-of-this-host"}),
        task("stays", "sleep 1000"),
    )
    framework.status("stopped", "TASK_RUNNING")
    sandbox = agent.client.container("stopped")["sandbox"]
    assert sandbox
    framework.status("stays", "TASK_RUNNING")
    framework.kill("stopped")
    wanted = {"good": "FINISHED", "bad": "FAILED", "signalled": "FAILED", "stopped": "KILLED", "nowhere": "FAILED"}
    for name, state in wanted.items():
        framework.status(name, f"TASK_{state}")
    names = {"good", "bad", "signalled", "stopped"}

    def completed() -> bool:
        executors = _of(agent, framework).get("completed_executors", ())
        return {each["id"] for each in executors} == names

    until(completed, "completed executors")
    for restarted in (False, True):
        if restarted:
            agent.crash()
            agent.start()
        shown = _tasks(_of(agent, framework))
        assert {name: shown[name]["state"] for name in names} == {name: f"TASK_{wanted[name]}" for name in names}
        for name in (*names, "stays"):
            assert [each["state"] for each in shown[name]["statuses"]] == framework.states(name)
        if not restarted:
            after = agent.get("/metrics/snapshot")
            counted = {state: after[f"slave/tasks_{state}"] - before[f"slave/tasks_{state}"] for state in _COUNTED}
            assert counted == {"finished": 1, "failed": 3, "killed": 1, "lost": 0}
            # Two for each task that ran, one more for each that ended, and one of the kill.
            assert after["slave/valid_status_updates"] == before["slave/valid_status_updates"] + 10 + 4 + 1
            assert after["slave/executors_terminated"] == before["slave/executors_terminated"] + len(names)
            assert (after["slave/tasks_running"], after["slave/executors_running"]) == (1, 1)
            assert after["slave/frameworks_active"] == 1
    framework.kill("stays")
    framework.status("stays", "TASK_KILLED")
    # A framework of which nothing lives any more is a completed one, and keeps its name.
    over = until(lambda: _of(agent, framework, "completed_frameworks"), "completed framework")
    assert over["name"] == "tests"
    assert over["executors"] == []
    assert _tasks(over)["stays"]["state"] == "TASK_KILLED"
    infos = [each["framework_info"] for each in _call(agent, "GET_FRAMEWORKS")["completed_frameworks"]]
    assert framework.id in {each["id"]["value"] for each in infos}


_COUNTED = ("finished", "failed", "killed", "lost")


def test_a_torn_down_frameworks_tasks_are_killed(cluster: tuple[AnyMaster, Node]) -> None:
    """Nobody hears of it, and it is told all the same."""
    _, agent = cluster
    other = Framework(cluster[0].bed, cluster[0].address)
    other.run(task("ends", "sleep 1000"))
    other.tear_down()
    shown = until(lambda: _of(agent, other, "completed_frameworks"), "completed framework")
    assert _tasks(shown)["ends"]["state"] == "TASK_KILLED"

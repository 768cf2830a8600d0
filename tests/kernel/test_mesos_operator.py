"""What a master shows: ours says what a genuine one says of the same agent, framework and tasks, but for what is listed
here with the reason."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from tests.kernel.waiting import until
from tests.mesos import cluster
from tests.mesos.framework import Connection, Framework, task
from tests.mesos.master import AnyMaster
from tests.mesos.own import OwnMaster

pytestmark = [pytest.mark.native, pytest.mark.timeout(600)]  # the first time it is installed

ENDPOINTS = (
    "/state", "/state-summary", "/slaves", "/frameworks", "/tasks", "/roles", "/quota", "/weights",
    "/maintenance/schedule", "/maintenance/status", "/flags",
)  # fmt: skip
CALLS = (
    "GET_HEALTH", "GET_FLAGS", "GET_VERSION", "GET_LOGGING_LEVEL", "GET_STATE", "GET_AGENTS", "GET_FRAMEWORKS",
    "GET_EXECUTORS", "GET_TASKS", "GET_ROLES", "GET_MASTER", "GET_OPERATIONS", "GET_WEIGHTS", "GET_QUOTA",
    "GET_MAINTENANCE_SCHEDULE", "GET_MAINTENANCE_STATUS",
)  # fmt: skip
ARGUMENTS: dict[str, dict[str, Any]] = {
    "GET_METRICS": {"get_metrics": {}},
    "SET_LOGGING_LEVEL": {"set_logging_level": {"level": 1, "duration": {"nanoseconds": 1_000_000}}},
    "TEARDOWN": {"teardown": {"framework_id": {"value": "unknown"}}},
}
BAD = ("GET_METRICS", "SET_LOGGING_LEVEL", "TEARDOWN", "MARK_AGENT_GONE", "UNKNOWN", "NO_SUCH_CALL")
EVENTS = ("SUBSCRIBED", "HEARTBEAT", "FRAMEWORK_ADDED", "TASK_ADDED", "TASK_UPDATED", "FRAMEWORK_REMOVED")

# What a genuine one has and ours has not, by the end of the path, and why.
NOT_OURS = {
    r"ephemeral_ports": "a genuine one offers them in its own books, and takes them out of what it sends",
    r"executors\[\]\.command\.value": "command lines are untold",
    r"executor_info\.command(\..*)?": "command lines are untold",
    r"master_info\.capabilities(\[\]\.type)?": "no agent is drained or changes its resources, and there is no quota",
    r"framework\.unregistered_time(\.nanoseconds)?": "0, in FRAMEWORK_ADDED",
    r"flags\.\w+": "each has its own",
}
# And what ours has more.
OURS = {
    r"\.role": "also where it is `*`",
    r"dominant_share": "whose turn it is",
    r"portslice_version": "our own",
    r"framework\.offer_constraints": "empty, in FRAMEWORK_ADDED as elsewhere",
    r"flags\.\w+": "each has its own",
}


def _call(master: AnyMaster, kind: str, **body: Any) -> tuple[int, Any]:
    with closing(Connection(master.bed.host, master.address)) as connection:
        content = json.dumps({"type": kind, **body})
        connection.request("POST", "/master/api/v1", content, {"Content-Type": "application/json"})
        response = connection.getresponse()
        text = response.read().decode()
        return response.status, json.loads(text) if text.startswith("{") else text


def _completed(master: AnyMaster) -> list[str]:
    frameworks = [each for each in master.get("/frameworks")["frameworks"] if not _is_idle(each)]
    return [task["id"] for each in frameworks for task in each["completed_tasks"]]


def _watch(master: AnyMaster, events: list[dict[str, Any]]) -> None:
    with closing(Connection(master.bed.host, master.address)) as connection:
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/master/api/v1", json.dumps({"type": "SUBSCRIBE"}), headers)
        with connection.getresponse() as response:
            while len(events) < 100 and (length := Framework._line(response)):
                events.append(json.loads(response.read(int(length))))
                if events[-1]["type"] == "FRAMEWORK_REMOVED":
                    return


def _seen(kind: type[AnyMaster]) -> dict[str, Any]:
    """All that a master shows of one agent, one framework, and two tasks, one of which has ended."""
    with cluster.joined(kind, "--hostname=member", "--attributes=rack:a;level:10;keys:[1000-1500]") as (master, _):
        events: list[dict[str, Any]] = []
        watcher = threading.Thread(target=_watch, args=(master, events), daemon=True)
        watcher.start()
        until(lambda: events, "SUBSCRIBED")
        framework = Framework(master.bed, master.address)
        framework.run(task("ends", "true"))
        framework.status("ends", "TASK_FINISHED")
        framework.run(task("runs", "sleep 1000", (31005, 31006)))
        framework.offer()
        until(lambda: _completed(master) == ["ends"], "acknowledgement")
        seen: dict[str, Any] = {each: master.get(each) for each in ENDPOINTS}
        seen |= {each: _call(master, each, **ARGUMENTS.get(each, {})) for each in (*CALLS, *ARGUMENTS)}
        seen |= {f"bad {each}": _call(master, each) for each in BAD}
        framework.tear_down()
        watcher.join(60)
        seen["events"] = {each: [one for one in events if one["type"] == each] for each in EVENTS}
        master.stop()
    return {name: _without_idle(value) for name, value in seen.items()}


def _without_idle(value: Any) -> Any:
    """Without the framework, of the old kind, inside which the genuine one runs."""
    if isinstance(value, dict):
        return {name: _without_idle(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_without_idle(each) for each in value if not (isinstance(each, dict) and _is_idle(each))]
    return value


def _is_idle(each: dict[str, Any]) -> bool:
    return "idle" in (each.get("name"), each.get("framework_info", {}).get("name"))


@pytest.fixture(scope="module")
def genuine() -> dict[str, Any]:
    return _seen(cluster.genuine())


@pytest.fixture(scope="module")
def own() -> dict[str, Any]:
    return _seen(OwnMaster)


def _paths(value: Any, above: str = "") -> Iterator[str]:
    """Of all members, wherever they are."""
    if isinstance(value, dict):
        for name, member in value.items():
            yield f"{above}.{name}"
            yield from _paths(member, f"{above}.{name}")
    elif isinstance(value, list):
        for each in value:
            yield from _paths(each, f"{above}[]")


def _unlisted(paths: set[str], listed: dict[str, str]) -> list[str]:
    return sorted(each for each in paths if not any(re.search(f"{pattern}$", each) for pattern in listed))


def test_ours_shows_what_a_genuine_one_shows(genuine: dict[str, Any], own: dict[str, Any]) -> None:
    assert genuine.keys() == own.keys()
    for name in genuine:
        theirs, ours = (set(_paths(each[name])) for each in (genuine, own))
        assert _unlisted(theirs - ours, NOT_OURS) == [], name
        assert _unlisted(ours - theirs, OURS) == [], name


def test_answers_are_the_same(genuine: dict[str, Any], own: dict[str, Any]) -> None:
    """Where they do not tell of the time, the machine or ids."""
    for name in genuine:
        if name in ARGUMENTS or name.startswith("bad "):
            assert own[name][0] == genuine[name][0], name
            if isinstance(genuine[name][1], str):
                assert own[name] == genuine[name]
    for name in ("GET_HEALTH", "GET_LOGGING_LEVEL", "GET_OPERATIONS", "GET_WEIGHTS", "GET_QUOTA"):
        assert own[name] == genuine[name]
    for name in ("GET_MAINTENANCE_SCHEDULE", "GET_MAINTENANCE_STATUS", "/quota", "/weights", "/maintenance/status"):
        assert own[name] == genuine[name]
    for seen in (genuine, own):
        (framework,) = seen["/frameworks"]["frameworks"]
        seen["resources"] = {name: framework["used_resources"][name] for name in ("cpus", "mem", "ports")}
        seen["states"] = {each["name"]: each["state"] for each in framework["tasks"] + framework["completed_tasks"]}
        seen["statuses"] = [
            (each["task_updated"]["status"]["task_id"]["value"], each["task_updated"]["status"]["state"])
            for each in seen["events"]["TASK_UPDATED"]
        ]
        seen["counts"] = {name: n for name, n in seen["/state-summary"]["slaves"][0].items() if name[:5] == "TASK_"}
    for name in ("resources", "states", "statuses", "counts"):
        assert own[name] == genuine[name]
    assert all(own["events"].values())

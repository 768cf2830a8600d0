"""`portslice master`: what a genuine one does otherwise or not at all, and who is let in. That agents and frameworks
find it like a genuine one is in test_mesos_master.py."""

import json
import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import pytest

from portslice.demo.node import Node
from portslice.demo.testbed import HOST_ADDRESS, WORLD_ADDRESS, Testbed, testbed
from portslice.engines.master.operator.watching import MOST_WATCHERS
from portslice.engines.mesos.schema import messages_pb2 as messages
from tests.kernel import peer
from tests.kernel.waiting import until
from tests.mesos import own
from tests.mesos.framework import Connection, Framework, port_ranges, scalar, task
from tests.mesos.own import OwnMaster

pytestmark = [pytest.mark.native, pytest.mark.timeout(300)]

PATH = "/api/v1/scheduler"
TWO_BLOCKS = ("--resources=cpus:4;mem:2048;ports:[31000-32000];ephemeral_ports:[32768-32895]",)
EXECUTOR = Path(own.__file__).with_name("executor.py")
QUICK = {"allocation_interval": "100ms"}


class Elsewhere(Testbed):
    """The same ground, but the host is where the world was."""

    @property
    def host(self) -> Path:
        return self.directory / "world"


def _member(bed: Testbed, *flags: str, name: str = "node") -> Node:
    joins = (f"--master={HOST_ADDRESS}:5050", "--registration_backoff_factor=10ms", f"--hostname={name}")
    return Node(bed, *joins, "--ephemeral_ports_per_container=64", *TWO_BLOCKS, *flags, name=name)


@pytest.fixture(scope="module")
def ground() -> Iterator[Testbed]:
    with testbed() as bed:
        yield bed


@pytest.fixture(scope="module")
def agent(ground: Testbed) -> Iterator[Node]:
    """An agent with room for two containers; each test has a master of its own for it."""
    agent = _member(ground)
    try:
        agent.start()
        yield agent
    finally:
        left = agent.cleanup()
    assert left == []


@pytest.fixture
def master(ground: Testbed, agent: Node) -> Iterator[OwnMaster]:
    master = OwnMaster(ground, HOST_ADDRESS, agent_networks=WORLD_ADDRESS, **QUICK)
    master.start()
    until(master.agents, "agent of the master")
    yield master
    master.stop()


def _call(where: Path, kind: str, stream: str | None = None, **body: Any) -> tuple[int, str]:
    headers = {"Content-Type": "application/json"} | ({"Mesos-Stream-Id": stream} if stream is not None else {})
    with closing(Connection(where, f"{HOST_ADDRESS}:5050")) as connection:
        connection.request("POST", PATH, json.dumps({"type": kind, **body}), headers)
        response = connection.getresponse()
        return response.status, response.read().decode()


def _running(agent: Node) -> set[str]:
    return {each["name"] for each in agent.client.containers() if each["state"] == "running"}


def test_never_more_tasks_than_blocks(ground: Testbed, agent: Node, master: OwnMaster) -> None:
    """And with --max_executors_per_slave no more than that; also not after the master's restart."""
    framework = Framework(ground, master.address)
    framework.launch(*(task(name, "sleep 1000") for name in ("a", "b", "c")))
    dropped = framework.status("c", "TASK_DROPPED")
    assert dropped["message"] == "Agent node has reached the maximum number of executors, 2"
    for name in ("a", "b"):
        framework.status(name, "TASK_RUNNING")
    assert _running(agent) == {"a", "b"}
    until(lambda: "it has reached the maximum number of executors, 2" in master.log, "warning")
    assert master.get("/frameworks")["frameworks"][0]["offers"] == []
    framework.kill("a")
    framework.status("a", "TASK_KILLED")
    framework.run(task("d", "sleep 1000"))
    master.stop()
    limited = OwnMaster(ground, HOST_ADDRESS, max_executors_per_slave="1", **QUICK)
    limited.start()
    try:
        until(limited.agents, "agent of the master")
        assert framework.reconcile("d") == "TASK_RUNNING"
        for name in ("b", "d"):
            until(lambda: "the maximum number of executors, 1" in limited.log, "warning")
            assert limited.get("/frameworks")["frameworks"][0]["offers"] == []
            framework.kill(name)
            framework.status(name, "TASK_KILLED")
        framework.run(task("e", "sleep 1000"))
        framework.tear_down()
        until(lambda: not _running(agent), "end of the tasks")
        snapshot = limited.get("/../metrics/snapshot")
        assert (snapshot["master/slaves_active"], snapshot["master/tasks_killed"]) == (1, 2)
        assert limited.get("/state")["completed_frameworks"][0]["id"] == framework.id
    finally:
        limited.stop()
        master.start()


def test_two_hosts(ground: Testbed, agent: Node, master: OwnMaster) -> None:
    """An agent in another network namespace is let in by its address; both are offered, each with its own ports."""
    there = Elsewhere(ground.directory)
    ground.run(ground.world, "sysctl", "-qw", "net.ipv4.ip_local_port_range=57345 61000")
    ground.run(ground.world, "ip", "route", "add", "default", "via", HOST_ADDRESS)
    other = _member(there, "--eth0_name=world", name="other")
    try:
        other.start()
        until(lambda: len(master.agents()) == 2, "second agent")
        framework = Framework(ground, master.address)
        names = {each["id"]: each["hostname"] for each in master.agents()}
        assert sorted(names.values()) == ["node", "other"]
        for name in ("one", "two"):
            framework.run(task(name, "sleep 1000", (31005, 31005)))  # the same port, so on different agents
        assert {framework.status(name, "TASK_RUNNING")["agent_id"]["value"] for name in ("one", "two")} == set(names)
        assert len(_running(agent)) == len(_running(other)) == 1
        framework.tear_down()
        until(lambda: not _running(agent) | _running(other), "end of the tasks")
    finally:
        left = other.cleanup()
        ground.run(ground.world, "ip", "route", "del", "default")
    assert left == []


def test_tasks_that_are_not_launched(ground: Testbed, master: OwnMaster, agent: Node) -> None:
    framework = Framework(ground, master.address)
    same = port_ranges((31000, 31000))
    greedy = task("greedy", "true") | {"resources": [scalar("cpus", 99)]}
    neither = {key: value for key, value in task("neither", "true").items() if key != "command"}
    twins = [task(name, "sleep 1000") | {"resources": [scalar("cpus", 0.1), same]} for name in ("first", "second")]
    framework.launch(*twins, greedy, neither)
    framework.status("first", "TASK_RUNNING")
    for name, message in (
        ("second", "is more than available"),
        ("greedy", "Total resources cpus:99 required by task and its executor is more than available"),
        ("neither", "Task should have at least one (but not both) of CommandInfo or ExecutorInfo present"),
    ):
        status = framework.status(name, "TASK_ERROR")
        assert message in status["message"]
        assert (status["source"], status["reason"]) == ("SOURCE_MASTER", "REASON_TASK_INVALID")
    framework.tear_down()
    until(lambda: not _running(agent), "end of the tasks")


def _of_executor(name: str, executor: dict[str, Any] | None = None) -> dict[str, Any]:
    info = task(name, "")
    del info["command"]
    return info if executor is None else info | {"executor": executor}


def test_executors(ground: Testbed, agent: Node, master: OwnMaster) -> None:
    """Each is one container, and known again after a restart; its exit gives back what it had."""
    command = f"exec python3 {shutil.copy(EXECUTOR, ground.directory / 'executor.py')}"
    has = [scalar("cpus", 0.1), scalar("mem", 64), scalar("disk", 1)]
    names = {"executor_id": {"value": "e"}, "name": "The executor", "command": {"value": command}}
    executor = names | {"type": "CUSTOM", "resources": has}
    framework = Framework(ground, master.address)
    for name in ("one", "two"):
        framework.run(_of_executor(name, executor))
    framework.run(task("command", "sleep 1000"))
    assert _running(agent) == {"e", "command"}

    def known() -> tuple[list[str], set[str], float]:
        (shown,) = master.get("/frameworks")["frameworks"]
        executors = [each["executor_id"] for each in shown["executors"]]
        return executors, {each["executor_id"] for each in shown["tasks"]}, shown["used_resources"]["mem"]

    assert known() == (["e"], {"e", ""}, 160.0)
    framework.tell("e", "say hello")
    until(lambda: framework.messages == [("e", "hello")], "message")
    master.stop()
    master.start()
    until(master.agents, "agent of the master")
    assert framework.reconcile("one") == "TASK_RUNNING"
    assert known() == (["e"], {"e", ""}, 160.0)
    until(lambda: "it has reached the maximum number of executors, 2" in master.log, "warning")
    framework.kill("command")
    framework.status("command", "TASK_KILLED")
    assert framework.offer()["executor_ids"] == [{"value": "e"}]
    framework.tell("e", "exit 3")
    until(lambda: framework.failures, "failure")
    failure = framework.failures.pop()
    assert failure["executor_id"] == {"value": "e"}
    assert failure["status"] == 3 << 8
    for name in ("one", "two"):
        framework.status(name, "TASK_FAILED")
    assert known()[2] == 0
    framework.launch_group(executor, *(_of_executor(name) for name in ("three", "four")))
    for name in ("three", "four"):
        framework.status(name, "TASK_RUNNING")
    assert _running(agent) == {"e"}
    framework.shut_down("e")
    until(lambda: framework.failures, "end of the executor")
    until(lambda: known()[2] == 0, "end of its tasks")
    framework.tear_down()


def test_bad_calls(ground: Testbed, master: OwnMaster) -> None:
    framework = Framework(ground, master.address)
    known: dict[str, Any] = {"framework_id": {"value": framework.id}}
    stream = framework._stream
    invalid = "Failed to validate scheduler::Call: "
    other = {"offer_ids": [], "operations": [{"type": "RESERVE"}]}
    for kind, body, answer in (
        ("", {}, (400, f"{invalid}Expecting 'type' to be present")),
        ("KILL", {}, (400, f"{invalid}Expecting 'framework_id' to be present")),
        ("KILL", known, (400, f"{invalid}Expecting 'kill' to be present")),
        ("SUBSCRIBE", {}, (400, f"{invalid}Expecting 'subscribe' to be present")),
        ("TEARDOWN", {"framework_id": {"value": "f"}}, (400, "Framework cannot be found")),
        ("TEARDOWN", known, (400, "All non-subscribe calls should include the 'Mesos-Stream-Id' header")),
        ("REQUEST", known | {"stream": stream}, (400, f"{invalid}REQUEST calls are not supported by this master")),
        (
            "ACCEPT",
            known | {"stream": stream, "accept": other},
            (400, f"{invalid}RESERVE operations are not supported by this master, LAUNCH and LAUNCH_GROUP only"),
        ),
    ):
        assert _call(ground.host, kind, **body) == answer
    status, text = _call(ground.host, "TEARDOWN", stream="x", **known)
    assert (status, text.partition(" included")[0]) == (400, "The stream ID 'x'")
    framework.tear_down()
    info = {"user": "root", "name": "again", "id": known["framework_id"]}
    status, text = _call(ground.host, "SUBSCRIBE", subscribe={"framework_info": info}, **known)
    assert (status, json.loads(text.partition("\n")[2])["error"]["message"]) == (200, "Framework has been removed")


def test_failover(ground: Testbed, master: OwnMaster, agent: Node) -> None:
    """Who subscribes with a framework's id takes its place, tasks and all."""
    framework = Framework(ground, master.address)
    framework.run(task("stays", "sleep 1000"))
    first = framework._stream
    known: dict[str, Any] = {"framework_id": {"value": framework.id}}
    info = framework._info | {"id": known["framework_id"]}
    # The old one subscribes again at once, and so this one hears that it was failed over.
    status, text = _call(ground.host, "SUBSCRIBE", subscribe={"framework_info": info}, **known)
    assert status == 200
    assert '"message":"Framework failed over"' in text
    until(lambda: framework._subscribed.is_set() and framework._stream != first, "subscription")
    assert _call(ground.host, "TEARDOWN", stream=first, **known)[0] == 400
    assert framework.reconcile("stays") == "TASK_RUNNING"
    assert framework.states("stays") == ["TASK_STARTING", "TASK_RUNNING"]
    framework.tear_down()
    until(lambda: not _running(agent), "end of the task")


def _wait_for_rounds(master: OwnMaster) -> None:
    def rounds() -> float:
        return float(master.get("/../metrics/snapshot")["allocator/mesos/allocation_runs"])

    before = rounds()
    until(lambda: rounds() > before + 2, "rounds of offers")


def test_whoever_declines_lets_others_go_first(ground: Testbed, master: OwnMaster) -> None:
    first = Framework(ground, master.address)
    try:
        for kind, body in (("DECLINE", {"filters": {"refuse_seconds": 3600}}), ("SUPPRESS", {})):
            offer = first.offer()
            decline = {"offer_ids": [offer["id"]], **body}
            known: dict[str, Any] = {"framework_id": {"value": first.id}}
            if kind == "SUPPRESS":
                assert _call(ground.host, kind, first._stream, **known)[0] == 202
                decline["filters"] = {"refuse_seconds": 0.0}
            first._offers.clear()
            assert _call(ground.host, "DECLINE", first._stream, decline=decline, **known)[0] == 202
            second = Framework(ground, master.address)
            assert second.offer()["agent_id"] == offer["agent_id"]
            second.tear_down()
            _wait_for_rounds(master)
            assert first._offers == {}
            assert _call(ground.host, "REVIVE", first._stream, **known)[0] == 202
            assert first.offer()["agent_id"] == offer["agent_id"]
    finally:
        first.tear_down()


def test_an_agent_that_does_not_answer(ground: Testbed, agent: Node) -> None:
    """It is unreachable after some pings, and its tasks are; both come back."""
    master = OwnMaster(ground, HOST_ADDRESS, agent_ping_timeout="1secs", max_agent_ping_timeouts="5", **QUICK)
    master.start()
    try:
        (before,) = until(master.agents, "agent of the master")
        framework = Framework(ground, master.address)
        framework.run(task("stays", "sleep 1000"))
        assert agent.process is not None
        agent.process.send_signal(signal.SIGSTOP)
        try:
            unreachable = framework.status("stays", "TASK_UNREACHABLE")
            assert unreachable["message"] == "Agent node is unreachable"
            assert master.get("/slaves")["slaves"] == []
        finally:
            agent.process.send_signal(signal.SIGCONT)
        (after,) = until(master.agents, "agent of the master")
        assert after["id"] == before["id"]
        assert framework.reconcile("stays") == "TASK_RUNNING"
        assert framework.states("stays") == ["TASK_STARTING", "TASK_RUNNING"]
        framework.tear_down()
        until(lambda: not _running(agent), "end of the task")
    finally:
        master.stop()


def _send(where: Path, sender: str, name: str, body: bytes) -> tuple[int, str]:
    with closing(Connection(where, f"{HOST_ADDRESS}:5050")) as connection:
        connection.request("POST", f"/master/mesos.internal.{name}", body, {"Libprocess-From": sender})
        response = connection.getresponse()
        return response.status, response.read().decode()


def test_strangers_are_refused(ground: Testbed, agent: Node) -> None:
    """A container, another user, the world, and whoever claims to be the agent."""
    master = OwnMaster(ground, HOST_ADDRESS, **QUICK)
    master.start()
    try:
        (registered,) = until(master.agents, "agent of the master")
        framework = Framework(ground, master.address)
        framework.run(task("victim", "sleep 1000"))
        inside = agent.namespace(agent.client.container("victim"))
        subscribe: dict[str, Any] = {"subscribe": {"framework_info": {"user": "root", "name": "forged"}}}
        for where in (ground.world, inside):
            status, text = _call(where, "SUBSCRIBE", **subscribe)
            assert status == 403, text
            assert "Frameworks are processes of root on this host" in text
        gone = messages.UnregisterSlaveMessage(slave_id={"value": registered["id"]}).SerializeToString()
        slave = {"hostname": "forged", "port": 6000}
        new = messages.RegisterSlaveMessage(slave=slave, version="1.11.0").SerializeToString()
        genuine = registered["pid"]
        for where, sender, objection in (
            (ground.world, genuine, f"it comes from {WORLD_ADDRESS}"),
            (ground.world, f"slave(1)@{WORLD_ADDRESS}:6000", f"--agent_networks does not name {WORLD_ADDRESS}"),
            (inside, genuine, "it comes from a container"),
            (inside, f"slave(1)@{HOST_ADDRESS}:6000", "it comes from a container"),
            (ground.host, genuine, "that agent has another connection"),
        ):
            for name, body in (("UnregisterSlaveMessage", gone), ("RegisterSlaveMessage", new)):
                status, text = _send(where, sender, name, body)
                assert status == 403, text
                assert objection in text
        user = ("setpriv", "--reuid=65534", "curl", "-sS", "--globoff", "-H", f"Libprocess-From: {genuine}")
        url = f"http://{master.address}/master/mesos.internal.UnregisterSlaveMessage"
        assert "a process of the user 65534" in ground.run(ground.host, *user, "--data", "x", url).stdout
        status, text = _send(ground.host, f"slave(1)@{HOST_ADDRESS}:6000", "UnregisterSlaveMessage", gone)
        assert (status, "no such agent is registered" in text) == (403, True)
        (still,) = master.agents()
        assert [still[each] for each in ("id", "pid", "registered_time")] == [
            registered[each] for each in ("id", "pid", "registered_time")
        ]
        assert framework.states("victim") == ["TASK_STARTING", "TASK_RUNNING"]
        framework.tear_down()
    finally:
        master.stop()


def test_credentials_let_frameworks_in(ground: Testbed) -> None:
    file = ground.directory / "credentials"
    file.write_text('{"credentials":[{"principal":"jobs","secret":"open"}]}')
    file.chmod(0o600)
    master = OwnMaster(ground, HOST_ADDRESS, credentials=f"file://{file}", **QUICK)
    master.start()
    try:
        url = f"http://{master.address}{PATH}"
        curl = ("curl", "-sS", "-H", "Content-Type: application/json", "--data", '{"type":"TEARDOWN"}', url)
        for where in (ground.host, ground.world):
            assert ground.run(where, *curl).stdout == "401 Unauthorized."
            assert ground.run(where, *curl, "--user", "jobs:wrong").stdout == "401 Unauthorized."
            assert "Expecting 'framework_id'" in ground.run(where, *curl, "--user", "jobs:open").stdout
    finally:
        master.stop()


def _operator(ground: Testbed, where: Path, kind: str, *options: str, **body: Any) -> tuple[int, str]:
    curl = ("curl", "-sS", "-w", "%{http_code}", "-H", "Content-Type: application/json", *options)
    url = f"http://{HOST_ADDRESS}:5050/api/v1"
    answer = ground.run(where, *curl, "--data", json.dumps({"type": kind, **body}), url).stdout
    return int(answer[-3:]), answer[:-3]


def test_who_may_change_something(ground: Testbed, master: OwnMaster, agent: Node) -> None:
    """Anybody reads; the operator API's changes are for those who may be frameworks."""
    framework = Framework(ground, master.address)
    framework.run(task("stays", "sleep 1000"))
    level: dict[str, Any] = {"set_logging_level": {"level": 1, "duration": {"nanoseconds": 60_000_000_000}}}
    end: dict[str, Any] = {"teardown": {"framework_id": {"value": framework.id}}}
    inside = agent.namespace(agent.client.container("stays"))
    for where in (ground.world, inside):
        assert _operator(ground, where, "GET_HEALTH")[0] == 200
        for kind, body in (("SET_LOGGING_LEVEL", level), ("TEARDOWN", end)):
            status, text = _operator(ground, where, kind, **body)
            assert (status, text.partition(" are ")[0]) == (403, "Those who change something")
    page = ("-H", "Origin: http://elsewhere")
    assert _operator(ground, ground.host, "TEARDOWN", *page, **end)[0] == 403
    assert _operator(ground, ground.host, "SET_LOGGING_LEVEL", **level)[0] == 200
    assert json.loads(_operator(ground, ground.host, "GET_LOGGING_LEVEL")[1])["get_logging_level"] == {"level": 1}
    metrics = json.loads(_operator(ground, ground.host, "GET_METRICS", get_metrics={})[1])["get_metrics"]["metrics"]
    assert {"name": "master/tasks_running", "value": 1.0} in metrics
    assert _operator(ground, ground.host, "TEARDOWN", **end) == (200, "")
    until(lambda: not _running(agent), "end of the task")
    framework.close()


def test_names_of_endpoints(ground: Testbed, master: OwnMaster) -> None:
    """Those of old clients, JSONP, the help, and what is none."""

    def get(path: str) -> tuple[str, str]:
        answer = ground.run(ground.world, "curl", "-sS", "-w", "%{http_code}", f"http://{master.address}{path}").stdout
        return answer[-3:], answer[:-3]

    for path in ("/state.json", "/master/state.json", "/slaves.json", "/tasks.json", "/state-summary", "/slaves/"):
        status, text = get(path)
        assert (status, text[0]) == ("200", "{")
    assert get("/frameworks?jsonp=take")[1].startswith('take({"frameworks":')
    assert "/master/state-summary" in get("/help")[1]
    for path in ("/master/metrics/snapshot", "/slave(1)/state", "/nothing"):
        assert get(path) == ("404", "404 Not Found.")


def test_what_is_no_http(ground: Testbed, master: OwnMaster) -> None:
    """Is answered, and leaves one line in the log."""
    before = len(master.log)
    for number in range(20):
        with closing(peer.open_socket(ground.world, "tcp", connect=(HOST_ADDRESS, 5050))) as stranger:
            stranger.sendall(b"\x16\x03\x01 TLS, or so\r\n\r\n" if number % 2 else b"GET / HTTP/1.1\r\nHost\r\n\r\n")
            assert stranger.recv(100).startswith(b"HTTP/1.0 400 ")
    lines = master.log[before:].splitlines()
    assert [each for each in lines if "Traceback" in each] == []
    assert 1 <= sum("to what is no HTTP from" in each for each in lines) <= 3


def test_half_a_subscription(ground: Testbed, master: OwnMaster, agent: Node) -> None:
    """Many that begin and do not go on are in nobody's way."""
    head = f"POST {PATH} HTTP/1.1\r\nHost: m\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n"
    with ExitStack() as stack:
        for number in range(200):
            half = stack.enter_context(closing(peer.open_socket(ground.host, "tcp", connect=(HOST_ADDRESS, 5050))))
            half.sendall((head + ("\r\n{" if number % 2 else "X-Half: ")).encode())
        framework = Framework(ground, master.address)
        framework.run(task("runs", "sleep 1000"))
        assert len(master.get("/frameworks")["frameworks"]) == 1
        framework.tear_down()
        until(lambda: not _running(agent), "end of the task")


def test_a_framework_that_does_not_read(ground: Testbed, master: OwnMaster) -> None:
    """Is hung up on before much waits for it."""
    info = {"user": "root", "name": "deaf", "roles": ["*"], "capabilities": [{"type": "MULTI_ROLE"}]}
    content = json.dumps({"type": "SUBSCRIBE", "subscribe": {"framework_info": info}})
    with closing(Connection(ground.host, master.address)) as deaf:
        deaf.request("POST", PATH, content, {"Content-Type": "application/json"})
        response = deaf.getresponse()
        stream = response.headers["Mesos-Stream-Id"]
        record = response.read(int(Framework._line(response)))
        known: dict[str, Any] = {"framework_id": json.loads(record)["subscribed"]["framework_id"]}
        nowhere = {"agent_id": {"value": "none"}}  # or an agent that may come back might have it
        wanted = [{"task_id": {"value": f"{number}-{'x' * 2000}"}, **nowhere} for number in range(500)]

        def ended() -> bool:
            answer = _call(ground.host, "RECONCILE", stream, reconcile={"tasks": wanted}, **known)
            return answer[1] == "Framework cannot be found"

        until(ended, "end of the framework")
        assert "Hanging up on" in master.log


def test_watchers_are_few(ground: Testbed, master: OwnMaster) -> None:
    """One too many takes the place of the first."""
    head = b"POST /api/v1 HTTP/1.1\r\nHost: m\r\nContent-Type: application/json\r\nContent-Length: 20\r\n\r\n"
    with ExitStack() as stack:
        watchers = []
        for _ in range(MOST_WATCHERS + 1):
            watcher = stack.enter_context(closing(peer.open_socket(ground.world, "tcp", connect=(HOST_ADDRESS, 5050))))
            watcher.sendall(head + b'{"type":"SUBSCRIBE"}')
            watcher.settimeout(60)
            assert watcher.recv(9) == b"HTTP/1.1 "
            watchers.append(watcher)
        with suppress(ConnectionResetError):
            while watchers[0].recv(1 << 16):
                pass
        watchers[-1].settimeout(0.1)
        with suppress(TimeoutError):
            while answer := watchers[-1].recv(1 << 16):
                pass
            assert answer, "the last one watches"

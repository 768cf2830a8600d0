"""The reading endpoints as clients of Mesos know them: names, methods, statuses, headers and bodies.

What the tables expect was recorded from a genuine agent of Mesos 1.11.0, without tasks.
"""

import gzip
import json
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from portslice.demo.node import Node, node
from portslice.demo.testbed import HOST_ADDRESS, WORLD_ADDRESS, Testbed, testbed
from tests.kernel.asking import answers, ask, ask_over, connection, over_socket, wire
from tests.kernel.waiting import until

pytestmark = pytest.mark.native

MB = 1 << 20
JSON, TEXT = "application/json", "text/plain; charset=utf-8"
NOT_FOUND = (404, TEXT, "404 Not Found.")
MESOS_METRICS = {
    line for line in (Path(__file__).parent / "mesos_metrics.txt").read_text().splitlines() if not line.startswith("#")
}
ATTRIBUTES = "rack:abc;level:10;keys:[1000-1500]"
# Sends from a port below every slice, which is refused and counted, and does not end at once when it is to.
STUBBORN = """
import signal, socket, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", 2000))
for _ in range(7): s.sendto(b"x", (sys.argv[1], 9))
print("ready", flush=True)
time.sleep(1000)
"""
RESOURCES = "cpus:2;mem:1024;disk:1024;cpus(prod):1;ports:[31000-32000];ephemeral_ports:[32768-57344]"


@pytest.fixture(scope="module")
def shared_node() -> Iterator[Node]:
    with testbed() as bed, node(bed, f"--attributes={ATTRIBUTES}", f"--resources={RESOURCES}") as agent:
        yield agent


def metrics(agent: Node) -> dict[str, float]:
    return dict(ask(agent, "/metrics/snapshot").json)


# Statuses, headers, bodies


@pytest.mark.parametrize(
    ("method", "path", "answer"),
    [
        ("GET", "/monitor/statistics", (200, JSON, "[]")),
        ("POST", "/monitor/statistics", (200, JSON, "[]")),
        ("GET", "/slave(1)/monitor/statistics", (200, JSON, "[]")),
        ("GET", "/monitor/statistics?jsonp=cb", (200, "text/javascript", "cb([])")),
        ("GET", "/containers", (200, JSON, "[]")),
        ("GET", "/containers?container_id=nope", (200, JSON, "[]")),
        ("GET", "/health", (200, None, "")),
        ("HEAD", "/health", (200, None, "")),
        ("POST", "/health", (200, None, "")),
        (
            "GET",
            "/metrics/snapshot?timeout=abc",
            (400, TEXT, "Invalid timeout 'abc': Failed to convert '' to number.\n"),
        ),
        ("GET", "/nope", NOT_FOUND),
        ("GET", "/monitor", NOT_FOUND),
        ("GET", "/system", NOT_FOUND),
        ("GET", "/slave(1)", NOT_FOUND),
        ("GET", "/slave(1)/nope", NOT_FOUND),
        ("GET", "/slave(1)/monitor", NOT_FOUND),
        ("POST", "/slave(1)/mesos.internal.NoSuchMessage", NOT_FOUND),
        # Not recorded, but specified.
        ("GET", "/health/../flags", NOT_FOUND),
        ("GET", "/logging/toggle", (200, TEXT, "0\n")),
        ("GET", "/logging/toggle?level=1", (400, TEXT, "Expecting 'duration=value' in query.\n")),
        ("GET", "/help/slave(1)/nope", (404, TEXT, "No help available for '/slave(1)/nope'.\n")),
        (
            "POST",
            "/overview",
            (405, TEXT, "405 Method Not Allowed. Expecting one of { 'GET' }, but received 'POST'."),
        ),
        (
            "GET",
            "/containers?container_id=a&framework_id=b",
            (
                400,
                TEXT,
                "Supported query parameters are container_id only, framework_id only, or executor_id and framework_id "
                "only",
            ),
        ),
    ],
)
def test_answers(agent: Node, method: str, path: str, answer: tuple[int, str | None, str]) -> None:
    status, content_type, body = answer
    got = ask(agent, path, method)
    assert (got.status, got.headers.get("Content-Type"), got.text) == answer
    allow = "GET" if status == 405 else None
    expected = {"Content-Length": str(len(body)), "Content-Type": content_type, "Allow": allow}
    del got.headers["Date"]
    assert got.headers == {name: value for name, value in expected.items() if value is not None}


def test_a_version_under_any_method(agent: Node) -> None:
    version = ask(agent, "/version").json
    build = {"build_date": str, "build_time": float, "build_user": str, "git_sha": str, "git_tag": str}
    assert {name: type(value) for name, value in version.items()} == {**build, "portslice_version": str, "version": str}
    assert version["version"] == "1.11.0"
    assert ask(agent, "/version", "DELETE").json == version
    head = ask(agent, "/version", "HEAD")
    assert (head.status, head.body) == (200, b"")
    assert int(head.headers["Content-Length"]) == len(ask(agent, "/version").body)


@pytest.mark.parametrize(
    "paths",
    [
        ["/monitor/statistics", "/monitor/statistics/", "/monitor/statistics.json", "/monitor/statistics/and/more"],
        ["/containers", "/containers/", "/containers.json"],
        ["/state", "/state.json", "/state/"],
        ["/flags", "/flags.json"],
    ],
)
def test_all_names_of_an_endpoint(agent: Node, paths: list[str]) -> None:
    agent.launch("web")
    for prefix in ("", "/slave(1)", "/slave%281%29"):
        for path in paths:
            answer = ask(agent, prefix + path)
            assert (answer.status, answer.headers["Content-Type"]) == (200, JSON), prefix + path
            assert paths[0] == "/flags" or '"web"' in answer.text


def test_metrics_have_a_name_of_old(agent: Node) -> None:
    assert ask(agent, "/metrics/snapshot.json").json.keys() == metrics(agent).keys()


def test_gzip_where_asked_for_and_worth_it(agent: Node) -> None:
    small = ask(agent, "/monitor/statistics", Accept_Encoding="gzip")
    assert (small.headers.get("Content-Encoding"), small.text) == (None, "[]")
    answer = ask(agent, "/flags", Accept_Encoding="gzip")
    plain = ask(agent, "/flags")
    assert len(plain.body) >= 1024
    assert answer.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(answer.body) == plain.body
    assert "Content-Encoding" not in plain.headers


# How clients ask

_HOST = b"Host: \r\n"  # empty, as libprocess sends it
_BODY = b'{"a":' + b"1" * 2000 + b"}"
_ZIPPED = gzip.compress(_BODY)


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (b"", b""),
        (b"Content-Length: 0\r\n", b""),
        (b"Content-Length: %d\r\n" % len(_BODY), _BODY),
        (b"Transfer-Encoding: chunked\r\n", b"%x\r\n%s" % (len(_BODY), _BODY) + b"\r\n0\r\n\r\n"),
        (b"Content-Encoding: gzip\r\nContent-Length: %d\r\n" % len(_ZIPPED), _ZIPPED),
    ],
    ids=["without-length", "empty", "with-length", "chunked", "gzip"],
)
def test_bodies_are_read_and_the_connection_goes_on(agent: Node, head: bytes, body: bytes) -> None:
    with wire(agent) as opened:
        post = b"POST /monitor/statistics HTTP/1.1\r\n" + _HOST + head + b"\r\n" + body
        opened.sendall(post + b"GET /health HTTP/1.1\r\n" + _HOST + b"\r\n")
        first, second = answers(opened, "POST", "GET")
    assert (first.status, first.text) == (200, "[]")
    assert (second.status, second.text) == (200, "")


def test_requests_in_a_pipeline_are_answered_in_their_order(agent: Node) -> None:
    paths = ["/version", "/nope", "/health", "/flags"] * 5
    with wire(agent) as opened:
        opened.sendall(b"".join(b"GET %s HTTP/1.1\r\n%s\r\n" % (path.encode(), _HOST) for path in paths))
        got = [(answer.status, len(answer.body)) for answer in answers(opened, *["GET"] * len(paths))]
    alone = [ask(agent, path) for path in paths[:4]]
    assert got == [(answer.status, len(answer.body)) for answer in alone] * 5


def test_a_connection_stays_open(agent: Node) -> None:
    with closing(connection(agent)) as opened:
        assert [ask_over(opened, "/health").status for _ in range(3)] == [200] * 3
        first = opened.sock
        assert ask_over(opened, "/nope").status == 404
        assert opened.sock is first


@pytest.mark.parametrize("target", ["*", "nope", "?a=b"])
def test_a_path_begins_with_a_slash(agent: Node, target: str) -> None:
    with wire(agent) as opened:
        opened.sendall(f"OPTIONS {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        (answer,) = answers(opened, "OPTIONS")
    assert (answer.status, answer.headers["Content-Type"]) == (400, TEXT)
    if target == "*":  # the others are no HTTP at all
        assert answer.text == "Request URL path must start with '/'"
    assert "Traceback" not in agent.log


# Containers


def test_containers_are_chosen_by_the_query(agent: Node) -> None:
    one, _ = agent.launch("one"), agent.launch("two")

    def chosen(query: str) -> list[str]:
        return [each["executor_id"] for each in agent.get(f"/containers?{query}")]

    assert chosen("") == chosen("framework_id=") == chosen("unknown=x") == ["one", "two"]
    assert chosen(f"container_id={one['id']}") == chosen("executor_id=one&framework_id=") == ["one"]
    assert chosen("executor_id=one&framework_id=x") == chosen("framework_id=x") == []


AGENT_MEMBERS = (
    *("version", "git_sha", "git_tag", "build_date", "build_time", "build_user", "start_time", "id", "pid", "hostname"),
    *("capabilities", "resources", "reserved_resources", "unreserved_resources", "reserved_resources_full"),
    *("unreserved_resources_full", "reserved_resources_allocated", "unreserved_resources_allocated"),
    *("resource_providers", "attributes", "flags", "frameworks", "completed_frameworks"),
)
FRAMEWORK_MEMBERS = (
    *("id", "name", "user", "failover_timeout", "checkpoint", "hostname", "role", "executors", "completed_executors"),
)
EXECUTOR_MEMBERS = (
    *("id", "name", "source", "container", "directory", "resources", "role"),
    *("tasks", "queued_tasks", "completed_tasks"),
)
TASK_MEMBERS = (
    *("id", "name", "framework_id", "executor_id", "slave_id", "state", "resources", "role", "statuses"),
)


def test_state_of_the_agent(agent: Node) -> None:
    state = ask(agent, "/slave(1)/state").json
    assert tuple(state) == AGENT_MEMBERS
    assert state["pid"] == f"slave(1)@{HOST_ADDRESS}:5051"
    assert state["attributes"] == {"rack": "abc", "level": 10.0, "keys": "[1000-1500]"}
    numbers = {"disk": 1024.0, "mem": 1024.0, "gpus": 0.0}
    ranges = {"ports": "[31000-32000]", "ephemeral_ports": "[32768-57344]"}
    assert [*state["resources"].items()] == [*numbers.items(), ("cpus", 3.0), *ranges.items()]
    assert state["unreserved_resources"] == {**numbers, "cpus": 2.0, **ranges}
    assert state["reserved_resources"] == {"prod": {"disk": 0.0, "mem": 0.0, "gpus": 0.0, "cpus": 1.0}}
    full = state["unreserved_resources_full"]
    assert full[0] == {"name": "cpus", "type": "SCALAR", "scalar": {"value": 2.0}, "role": "*"}
    ports = {"range": [{"begin": 31000, "end": 32000}]}
    assert full[3] == {"name": "ports", "type": "RANGES", "ranges": ports, "role": "*"}
    assert state["unreserved_resources_allocated"] == {"disk": 0.0, "mem": 0.0, "gpus": 0.0, "cpus": 0.0}
    assert state["flags"] == ask(agent, "/flags").json["flags"]


def test_state_of_containers(agent: Node) -> None:
    web = agent.launch("web", cpus=0.5, mem=64 * MB, ports="31005-31006,31010-31010")
    ended = {}
    for name, command in (("good", "true"), ("bad", "exit 3"), ("killed", "kill -KILL $PPID; sleep 1000")):
        ended[name] = agent.launch(name, "sh", "-c", command)
    agent.kill("killed")
    for name in ended:
        agent.client.wait(name)
    state = ask(agent, "/state").json
    (framework,) = state["frameworks"]
    assert tuple(framework) == FRAMEWORK_MEMBERS
    (executor,) = framework["executors"]
    assert tuple(executor) == EXECUTOR_MEMBERS
    (task,) = executor["tasks"]
    assert tuple(task) == TASK_MEMBERS
    used = {"disk": 0.0, "mem": 64.0, "gpus": 0.0, "cpus": 0.5, "ports": "[31005-31006, 31010-31010]"}
    assert executor["resources"] == task["resources"] == state["unreserved_resources_allocated"] == used
    assert (executor["container"], executor["directory"]) == (web["id"], web["sandbox"])
    assert (task["state"], task["slave_id"], task["executor_id"]) == ("TASK_RUNNING", state["id"], "")
    (status,) = task["statuses"]
    addresses = status["container_status"]["network_infos"][0]["ip_addresses"]
    assert {"protocol": "IPv4", "ip_address": HOST_ADDRESS} in addresses
    # A client joins both endpoints by framework and executor.
    joined = [
        (framework["id"], executor["id"], executor["source"], executor["name"])
        for framework in state["frameworks"]
        for executor in framework["executors"]
    ]
    names = ("framework_id", "executor_id", "source", "executor_name")
    assert joined == [tuple(each[name] for name in names) for each in agent.get("/monitor/statistics")]
    completed = {each["container"]: each for each in framework["completed_executors"]}
    for name, how in (("good", "FINISHED"), ("bad", "FAILED"), ("killed", "KILLED")):
        executor = completed[ended[name]["id"]]
        (task,) = executor["completed_tasks"]
        assert (executor["tasks"], task["state"]) == ([], f"TASK_{how}")
        assert [each["state"] for each in task["statuses"]] == ["TASK_RUNNING", f"TASK_{how}"]


# Metrics


def test_every_metric_of_mesos_and_only_doubles(agent: Node) -> None:
    text = ask(agent, "/metrics/snapshot?timeout=5secs").text
    shown = json.loads(text)
    assert text == json.dumps(shown, sort_keys=True, separators=(",", ":"))
    assert MESOS_METRICS - shown.keys() == set()
    beyond = {name for name in shown.keys() - MESOS_METRICS if not name.startswith("port_mapping/drops/")}
    assert beyond == {"port_mapping/ephemeral_blocks_free", "port_mapping/ephemeral_blocks_total"}
    assert {type(value) for value in shown.values()} == {float}


def test_what_cannot_be_known_in_time_is_left_out(agent: Node) -> None:
    shown = ask(agent, "/metrics/snapshot?timeout=0ns").json
    assert "slave/uptime_secs" in shown
    assert not [name for name in shown if name.startswith("port_mapping/")]


def test_metrics_follow_the_containers(agent: Node) -> None:
    before = metrics(agent)
    assert (before["slave/cpus_total"], before["slave/mem_total"], before["slave/disk_total"]) == (3, 1024, 1024)
    assert before["port_mapping/ephemeral_blocks_total"] == before["port_mapping/ephemeral_blocks_free"] == 24
    assert before["slave/executors_running"] == before["slave/frameworks_active"] == before["slave/cpus_used"] == 0
    container = agent.launch("c", sys.executable, "-c", STUBBORN, WORLD_ADDRESS, cpus=0.75, mem=256 * MB)
    until(lambda: "ready" in Path(container["sandbox"], "stdout").read_text(), "'ready' of the container")
    running = metrics(agent)
    for name in ("slave/executors_running", "slave/tasks_running", "slave/frameworks_active"):
        assert running[name] == 1, name
    assert (running["slave/cpus_used"], running["slave/cpus_percent"]) == (0.75, 0.25)
    assert (running["slave/mem_used"], running["slave/mem_percent"]) == (256, 0.25)
    assert running["port_mapping/ephemeral_blocks_free"] == 23
    assert running["port_mapping/drops/foreign_port"] == before["port_mapping/drops/foreign_port"] + 7
    assert running["slave/uptime_secs"] > before["slave/uptime_secs"]
    agent.client.kill("c", "SIGTERM")
    ending = metrics(agent)
    assert (ending["slave/executors_terminating"], ending["slave/executors_running"]) == (1, 0)
    agent.kill("c")
    after = metrics(agent)
    for name in ("slave/executors_terminated", "slave/tasks_killed"):
        assert after[name] == before[name] + 1, name
    assert after["slave/executors_terminating"] == after["slave/executors_running"] == after["slave/mem_used"] == 0


def test_how_the_machine_is(agent: Node) -> None:
    stats = ask(agent, "/system/stats.json").json
    loads = [f"avg_load_{minutes}min" for minutes in (15, 1, 5)]
    assert [*stats] == [*loads, "cpus_total", "mem_free_bytes", "mem_total_bytes"]
    nproc = int(agent.bed.run(agent.bed.host, "getconf", "_NPROCESSORS_ONLN").stdout)
    assert stats["cpus_total"] == metrics(agent)["system/cpus_total"] == nproc
    words = Path("/proc/meminfo").read_text().split()
    assert stats["mem_total_bytes"] == int(words[words.index("MemTotal:") + 1]) << 10
    assert 0 < stats["mem_free_bytes"] < stats["mem_total_bytes"]


# What it says of itself


def test_flags(agent: Node) -> None:
    flags = ask(agent, "/flags").json["flags"]
    assert flags["resources"] == RESOURCES
    assert (flags["cgroups_enable_cfs"], flags["executor_shutdown_grace_period"]) == ("false", "5secs")
    assert "eth0_name" not in flags, "unset"
    assert all(isinstance(value, str) for value in flags.values())


def test_help(agent: Node) -> None:
    processes = {each["id"]: each["endpoints"] for each in ask(agent, "/help?format=json").json["processes"]}
    assert {"help", "logging", "metrics", "slave(1)", "system", "version"} <= processes.keys()
    everything = ask(agent, "/help").text
    for process, endpoints in processes.items():
        for endpoint in endpoints:
            page = (process, endpoint["name"]) == ("slave(1)", "/")  # which has no second name
            path = "/" if page else f"/{process}{endpoint['name'].rstrip('/')}"
            usage, _, said = endpoint["text"].partition("### TL;DR; ###\n")
            assert usage.endswith(f">        {path}\n\n")
            assert said.strip(), f"{path} has no help"
            assert endpoint["text"] in everything
            if endpoint["name"] != "/":
                assert ask(agent, f"/help{path}?format=json").json == endpoint


def test_more_is_logged_for_a_while_if_the_socket_says_so(agent: Node) -> None:
    toggle = "/logging/toggle?level=1&duration=10mins"
    refused = ask(agent, toggle)
    assert (refused.status, ask(agent, "/logging/toggle").text) == (403, "0\n")
    assert "Unix socket" in refused.text
    ask(agent, "/health/quiet")
    assert over_socket(agent, toggle).text == ""
    assert ask(agent, "/logging/toggle").text == "1\n"
    ask(agent, "/health/loud")
    assert "] HTTP GET for /health/loud from 127.0.0.1\n" in agent.log
    assert "/health/quiet" not in agent.log
    assert over_socket(agent, "/logging/toggle?level=-1&duration=1secs").text == "Invalid level '-1'.\n"
    over_socket(agent, "/logging/toggle?level=2&duration=50ms")
    until(lambda: ask(agent, "/logging/toggle").text == "0\n", "end of the verbosity")


# What it does not do


def test_tcp_only_reads_and_shows_no_sandbox(agent: Node) -> None:
    container = agent.launch("secretive", "sh", "-c", "echo ready confidential; sleep 1000")
    until(lambda: "ready" in Path(container["sandbox"], "stdout").read_text(), "'ready' of the container")
    base = "/portslice/v1/containers"
    for path in (base, f"{base}/secretive", f"{base}/secretive/stdout", f"{base}/{container['id']}/stderr"):
        answer = ask(agent, path)
        assert answer.status == 403
        assert "Unix socket" in answer.text
        assert "confidential" not in answer.text
    assert ask(agent, f"{base}/secretive/kill", "POST").status == 403
    for method in ("POST", "PUT", "DELETE"):
        assert ask(agent, base, method).status in (403, 405)
    for path in ("/monitor/statistics", "/containers", "/flags", "/state"):
        assert "confidential" not in ask(agent, path).text
    assert [each["name"] for each in agent.client.containers() if each["state"] == "running"] == ["secretive"]


def test_nothing_is_launched_below_a_path_of_the_socket(agent: Node) -> None:
    """Longest prefixes are for Mesos' endpoints only."""
    before = len(agent.client.containers())
    assert over_socket(agent, "/portslice/v1/containers/x/y", "POST", '{"command":["true"]}').status == 404
    assert len(agent.client.containers()) == before


def test_the_firewall_closes_an_endpoint_under_all_its_names(bed: Testbed) -> None:
    rules: dict[str, Any] = {"disabled_endpoints": {"paths": ["/slave(1)/state", "/profiler/start"]}}
    with node(bed, f"--firewall_rules={json.dumps(rules)}", "--port=0", "--isolation=posix/cpu") as agent:
        socket_state = over_socket(agent, "/state").json
        port = int(socket_state["pid"].rpartition(":")[2])
        for path in ("/state", "/state.json", "/slave(1)/state", "/slave%281%29/state/x", "/state/"):
            answer = ask(agent, path, port=port)
            assert (answer.status, answer.headers["Content-Type"]) == (403, TEXT)
            assert answer.text == f"Endpoint '{path.replace('%28', '(').replace('%29', ')')}' is disabled"
        assert ask(agent, "/health", port=port).status == 200
        assert "--firewall_rules disables '/profiler/start', which is no endpoint" in agent.log
        shown = metrics_at(agent, port)
        assert not [name for name in shown if name.startswith("port_mapping/")]
        assert {name for name in MESOS_METRICS if not name.startswith("port_mapping/")} == shown.keys()
        agent.stop()
        agent.start()
        assert over_socket(agent, "/state").json["id"] == socket_state["id"], "an agent is who it was"


def test_rules_that_would_not_be_heeded_are_refused_at_start(agent: Node) -> None:
    refused = agent.agent('--firewall_rules={"disabled_endpoints":{"path":["/state"]}}')
    assert (refused.returncode, refused.stderr.splitlines()[-1]) == (
        1,
        "EXIT with status 1: Failed to load the rules of --firewall_rules: expecting "
        '{"disabled_endpoints": {"paths": ["/path", …]}}, and every path to begin with \'/\'',
    )


def metrics_at(agent: Node, port: int) -> dict[str, float]:
    return dict(ask(agent, "/metrics/snapshot", port=port).json)

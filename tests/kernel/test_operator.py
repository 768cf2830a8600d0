"""The operator API: what genuine Mesos 1.11 answered to the same requests, and what its calls do."""

import base64
import json
import os
import signal
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from portslice.containers.container import Request
from portslice.containers.containerizer import Containerizer, Directories
from portslice.demo.node import RESOURCES, Node, node
from portslice.demo.testbed import HOST_ADDRESS, testbed
from tests.kernel.asking import Answer, ask, connection_over_socket, over_socket
from tests.kernel.calling import JSON, about, body, call, call_over_tcp
from tests.kernel.users import as_user
from tests.kernel.waiting import until

pytestmark = pytest.mark.native

NOBODY = 65534
MB = 1 << 20
RECORDIO = "application/recordio"
_ALL = "application/json or application/x-protobuf or application/recordio"
RECORDED = """
    timestamp cpus_user_time_secs cpus_system_time_secs cpus_limit cpus_nr_periods cpus_nr_throttled
    cpus_throttled_time_secs mem_total_bytes mem_limit_bytes mem_file_bytes mem_anon_bytes mem_cache_bytes mem_rss_bytes
    mem_mapped_file_bytes net_rx_packets net_rx_bytes net_tx_packets net_tx_bytes
    """.split()  # noqa: SIM905 - in the order of the recordings
_VALIDATE = "Failed to validate agent::Call: Expecting"


@pytest.fixture(scope="module")
def shared_node() -> Iterator[Node]:
    flags = (
        "--socket_group=nogroup",
        "--attributes=rack:abc;level:10;keys:[1000-1500]",
        "--http_heartbeat_interval=50ms",
        f"--resources=cpus:2;mem:1024;disk:1024;{RESOURCES}",
        "--cgroups_enable_cfs",
    )
    with testbed() as bed, node(bed, *flags) as agent:
        bed.directory.chmod(0o711)  # so that others than root come as far as to the socket
        yield agent
        assert "Traceback" not in agent.log


@pytest.fixture
def agent(shared_node: Node) -> Iterator[Node]:
    """The shared agent, without containers."""
    yield shared_node
    for each in shared_node.client.containers():
        for kind in ("KILL_CONTAINER", "WAIT_CONTAINER", "REMOVE_CONTAINER"):
            call(shared_node, kind, **about(each["id"]))
    assert shared_node.client.containers() == []


def launch(agent: Node, container_id: str, value: str, **more: Any) -> Answer:
    """LAUNCH_CONTAINER of a shell's command."""
    command = {"value": value, **more.pop("command", {})}
    return call(agent, "LAUNCH_CONTAINER", **about(container_id), command=command, **more)


def ranges(*pairs: tuple[int, int]) -> dict[str, Any]:
    listed = [{"begin": begin, "end": end} for begin, end in pairs]
    return {"name": "ports", "type": "RANGES", "ranges": {"range": listed}}


def scalar(name: str, value: float) -> dict[str, Any]:
    return {"name": name, "type": "SCALAR", "scalar": {"value": value}}


def sandbox(agent: Node, container_id: str) -> Path:
    return Path(agent.client.container(container_id)["sandbox"])


def output(agent: Node, container_id: str) -> str:
    """What an ended container wrote."""
    assert call(agent, "WAIT_CONTAINER", **about(container_id)).status == 200
    return sandbox(agent, container_id).joinpath("stdout").read_text()


# The form


@pytest.mark.parametrize(
    ("request_body", "headers", "status", "text"),
    [
        ("{nope", {}, 400, "Failed to parse body into JSON: syntax error at line 1 near: nope"),
        ("", {}, 400, "Failed to parse body into JSON: syntax error at line 1 near: "),
        ("{}", {}, 400, f"{_VALIDATE} 'type' to be present"),
        (body("NO_SUCH_CALL"), {}, 400, f"{_VALIDATE} 'type' to be present"),
        (body("GET_MASTER"), {}, 400, f"{_VALIDATE} 'type' to be present"),
        (body("GET_METRICS"), {}, 400, f"{_VALIDATE} 'get_metrics' to be present"),
        (body("LIST_FILES"), {}, 400, f"{_VALIDATE} 'list_files' to be present"),
        (body("LAUNCH_CONTAINER"), {}, 400, f"{_VALIDATE} 'launch_container' to be present"),
        (body("UNKNOWN"), {}, 501, "501 Not Implemented."),
        ('{"type":"GET_HEALTH","foo":{"a":1}}', {}, 200, '{"type":"GET_HEALTH","get_health":{"healthy":true}}'),
        ('{"type":"GET_HEALTH","get_metrics":null}', {}, 200, '{"type":"GET_HEALTH","get_health":{"healthy":true}}'),
        (body("GET_HEALTH"), {"Content_Type": None}, 400, "Expecting 'Content-Type' to be present"),
        (body("GET_HEALTH"), {"Content_Type": "text/plain"}, 415, f"Expecting 'Content-Type' of {_ALL}"),
        (body("GET_HEALTH"), {"Accept": "text/xml"}, 406, f"Expecting 'Accept' to allow {_ALL}"),
        (
            f"{len(body('GET_HEALTH'))}\n{body('GET_HEALTH')}",
            {"Content_Type": RECORDIO},
            400,
            "Expecting 'Message-Content-Type' to be set for streaming requests",
        ),
        (
            f"{len(body('GET_HEALTH'))}\n{body('GET_HEALTH')}",
            {"Content_Type": RECORDIO, "Message_Content_Type": "application/json"},
            415,
            f"Streaming 'Content-Type' {RECORDIO} is not supported for GET_HEALTH call",
        ),
        (body("GET_HEALTH"), {"Accept": RECORDIO}, 406, "Streaming response is not supported for GET_HEALTH call"),
    ],
)
def test_the_form_is_that_of_the_recordings(
    agent: Node, request_body: str, headers: dict[str, str | None], status: int, text: str
) -> None:
    given: dict[str, Any] = {name: value for name, value in {**JSON, **headers}.items() if value is not None}
    for path in ("/api/v1", "/slave(1)/api/v1", "/api/v1/operator"):
        answer = ask(agent, path, "POST", request_body, **given)
        assert (answer.status, answer.text) == (status, text)
        kind = "application/json" if status == 200 else "text/plain; charset=utf-8"
        assert answer.headers["Content-Type"] == kind


@pytest.mark.parametrize(
    ("request_body", "text"),
    [
        ("[]", "Expecting a JSON object"),
        ('{"type":1}', "Not expecting a JSON number for field 'type'"),
        (body("READ_FILE", path="/a"), "Missing required fields: read_file.offset"),
        (body("READ_FILE", path="/a", offset="0"), "Not expecting a JSON string for field 'read_file.offset'"),
        (body("READ_FILE", path="/a", offset=-1), "The number -1 is out of range for field 'read_file.offset'"),
        (body("READ_FILE", path="/a", offset=True), "Not expecting a JSON boolean for field 'read_file.offset'"),
        (body("WAIT_CONTAINER", container_id={}), "Missing required fields: wait_container.container_id.value"),
        (body("GET_METRICS", timeout="1s"), "Not expecting a JSON string for field 'get_metrics.timeout'"),
        (
            body("LAUNCH_CONTAINER", **about("a"), resources={}),
            "Not expecting a JSON object for field 'launch_container.resources'",
        ),
    ],
)
def test_json_of_another_shape_is_refused(agent: Node, request_body: str, text: str) -> None:
    answer = over_socket(agent, "/api/v1", "POST", request_body, **JSON)
    assert (answer.status, answer.text) == (400, f"Failed to convert JSON into Call protobuf: {text}")


@pytest.mark.parametrize(("text", "kind"), [("[" * 100_000, "text/plain"), ("{}", "text/plain;charset=none")])
def test_a_body_that_nobody_can_read_is_refused_everywhere(agent: Node, text: str, kind: str) -> None:
    own = over_socket(agent, "/portslice/v1/containers", "POST", text, Content_Type=kind)
    api = over_socket(agent, "/api/v1", "POST", text, Content_Type=kind.replace("text/plain", "application/json"))
    assert (own.status, api.status) == (400, 400)
    assert "Failed to parse body into JSON: " in own.text
    assert api.text.startswith("Failed to parse body into JSON: ")


def test_other_methods_and_protobuf_are_refused_in_words(agent: Node) -> None:
    for method in ("GET", "PUT", "DELETE"):
        answer = ask(agent, "/api/v1", method)
        assert (answer.status, answer.headers["Allow"], answer.text) == (
            405,
            "POST",
            f"405 Method Not Allowed. Expecting one of {{ 'POST' }}, but received '{method}'.",
        )
    protobuf = ask(agent, "/api/v1", "POST", b"\x08\x01", Content_Type="application/x-protobuf")
    assert (protobuf.status, "no protobuf" in protobuf.text) == (415, True)
    protobuf = call_over_tcp(agent, "GET_HEALTH", Accept="application/x-protobuf")
    assert (protobuf.status, "no protobuf" in protobuf.text) == (406, True)
    nested = call(agent, "LAUNCH_CONTAINER", container_id={"value": "a", "parent": {"value": "b"}})
    assert (nested.status, "nested containers" in nested.text) == (501, True)


# Reading


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("GET_LOGGING_LEVEL", {"get_logging_level": {"level": 0}}),
        ("GET_OPERATIONS", {"get_operations": {}}),
        ("GET_RESOURCE_PROVIDERS", {"get_resource_providers": {}}),
        ("GET_CONTAINERS", {}),
    ],
)
def test_an_idle_agent_says_what_the_recordings_say(agent: Node, kind: str, answer: dict[str, Any]) -> None:
    found = call_over_tcp(agent, kind)
    assert found.text == json.dumps({"type": kind, **answer}, separators=(",", ":"))


def test_calls_say_what_the_endpoints_say(agent: Node) -> None:
    flags = call_over_tcp(agent, "GET_FLAGS").json["get_flags"]["flags"]
    assert flags == sorted(flags, key=lambda each: str(each["name"]))
    assert {each["name"]: each["value"] for each in flags} == ask(agent, "/flags").json["flags"]

    metrics = call_over_tcp(agent, "GET_METRICS", {"timeout": {"nanoseconds": 10**10}}).json["get_metrics"]["metrics"]
    assert [each["name"] for each in metrics] == list(ask(agent, "/metrics/snapshot").json)
    assert all(isinstance(each["value"], float) for each in metrics)

    version = call_over_tcp(agent, "GET_VERSION").json["get_version"]["version_info"]
    assert list(version)[:4] == ["version", "build_date", "build_time", "build_user"]
    assert version == ask(agent, "/version").json

    info = call_over_tcp(agent, "GET_AGENT").json["get_agent"]["agent_info"]
    state = ask(agent, "/state").json
    assert list(info) == ["hostname", "port", "resources", "attributes", "id"]
    assert (info["hostname"], info["port"], info["id"]) == (state["hostname"], 5051, {"value": state["id"]})
    assert info["resources"][:3] == [scalar("cpus", 2.0), scalar("mem", 1024.0), scalar("disk", 1024.0)]
    assert ranges((31000, 32000)) in info["resources"]
    assert info["attributes"] == [
        {"name": "rack", "type": "TEXT", "text": {"value": "abc"}},
        scalar("level", 10.0),
        {"name": "keys", "type": "RANGES", "ranges": {"range": [{"begin": 1000, "end": 1500}]}},
    ]


def test_a_container_in_the_order_of_the_recordings(agent: Node) -> None:
    agent.launch("task", "sh", "-c", "while :; do sleep 0.1; done", cpus=0.5, mem=64 * MB, egress=10**7)
    (shown,) = call_over_tcp(agent, "GET_CONTAINERS").json["get_containers"]["containers"]
    (same,) = ask(agent, "/containers").json
    assert list(shown) == [
        "framework_id",
        "executor_id",
        "executor_name",
        "container_id",
        "container_status",
        "resource_statistics",
    ]
    assert shown["executor_id"] == {"value": "task"}
    assert shown["executor_name"] == same["executor_name"]
    assert shown["container_id"] == shown["container_status"]["container_id"] == {"value": same["container_id"]}
    assert shown["container_status"] == same["status"]
    statistics = shown["resource_statistics"]
    assert statistics.keys() == same["statistics"].keys()
    assert [name for name in statistics if name in RECORDED] == RECORDED
    assert list(statistics["net_traffic_control_statistics"][0])[:3] == ["id", "backlog", "bytes"]
    assert isinstance(statistics["cpus_throttled_time_secs"], float)


def test_state_has_containers_as_tasks(agent: Node) -> None:
    # A byte of disk is none of Mesos' thousandths of an MB.
    container = agent.launch("task", "sleep", "100", cpus=0.5, mem=64 * MB, disk=1, ports="31005-31006")
    agent.client.wait(agent.launch("done", "false")["id"])
    state = call_over_tcp(agent, "GET_STATE").json["get_state"]
    assert list(state) == ["get_tasks", "get_executors", "get_frameworks"]
    for part, kind in zip(state, ("GET_TASKS", "GET_EXECUTORS", "GET_FRAMEWORKS"), strict=True):
        assert call_over_tcp(agent, kind).json[part] == state[part]
    (task,) = state["get_tasks"]["launched_tasks"]
    assert list(task) == ["name", "task_id", "framework_id", "agent_id", "state", "resources", "statuses"]
    assert (task["name"], task["state"]) == ("task", "TASK_RUNNING")
    allocated = {"allocation_info": {"role": "*"}}
    assert task["resources"] == [
        {**scalar("cpus", 0.5), **allocated},
        {**scalar("mem", 64.0), **allocated},
        {**ranges((31005, 31006)), **allocated},
    ]
    status = task["statuses"][-1]
    assert status["container_status"]["container_id"] == {"value": container["id"]}
    addresses = status["container_status"]["network_infos"][0]["ip_addresses"]
    assert {"protocol": "IPv4", "ip_address": HOST_ADDRESS} in addresses
    assert [each["state"] for each in state["get_tasks"]["completed_tasks"]] == ["TASK_FAILED"]
    (executor,) = state["get_executors"]["executors"]
    assert executor["executor_info"]["executor_id"] == {"value": "task"}


def test_the_logging_level_is_set_for_a_while(agent: Node) -> None:
    def level() -> int:
        return int(call(agent, "GET_LOGGING_LEVEL").json["get_logging_level"]["level"])

    answer = call(agent, "SET_LOGGING_LEVEL", level=2, duration={"nanoseconds": 2 * 10**9})
    assert (answer.status, answer.body, level()) == (200, b"", 2)
    assert "Processing call GET_LOGGING_LEVEL" in agent.log
    until(lambda: level() == 0, "the usual level")
    answer = call(agent, "SET_LOGGING_LEVEL", level=1, duration={"nanoseconds": -1})
    assert (answer.status, level()) == (400, 0)


def test_files(agent: Node) -> None:
    container = agent.launch("writer", "sh", "-c", r"printf 'a\000\377b'; mkdir below")
    agent.client.wait(container["id"])
    listed = call(agent, "LIST_FILES", path=container["sandbox"]).json["list_files"]["file_infos"]
    assert [each["path"].rpartition("/")[2] for each in listed] == ["below", "stderr", "stdout"]
    status = Path(container["sandbox"], "stdout").stat()
    assert listed[2] == {
        "path": f"{container['sandbox']}/stdout",
        "nlink": 1,
        "size": 4,
        "mtime": {"nanoseconds": status.st_mtime_ns},
        "mode": status.st_mode,
        "uid": "root",
        "gid": "root",
    }
    path = f"{container['sandbox']}/stdout"
    pieces = (({"offset": 0}, b"a\0\xffb"), ({"offset": 1, "length": 2}, b"\0\xff"), ({"offset": 2**64 - 1}, b""))
    for query, data in pieces:
        read = call(agent, "READ_FILE", path=path, **query).json["read_file"]
        assert (read["size"], base64.b64decode(read["data"])) == (4, data)
    for kind, argument, status_code, text in (
        ("LIST_FILES", {"path": "/nope"}, 404, ""),
        ("READ_FILE", {"path": "/nope", "offset": 0}, 404, ""),
        ("READ_FILE", {"path": container["sandbox"], "offset": 0}, 400, "Cannot read a directory."),
    ):
        answer = call(agent, kind, **argument)
        assert (answer.status, answer.text) == (status_code, text)


# Standalone containers


def test_the_life_of_a_standalone_container(agent: Node) -> None:
    resources = [scalar("cpus", 0.1), scalar("mem", 32), scalar("disk", 1.5), ranges((31500, 31501), (31510, 31510))]
    command = "echo $PORTS; while ! [ -e go ]; do sleep 0.05; done; exit 3"
    answer = launch(agent, "sa1", command, resources=resources)
    assert (answer.status, answer.body) == (200, b"")
    answer = launch(agent, "sa1", command, resources=resources)
    assert (answer.status, answer.body) == (202, b"")

    shown = agent.client.container("sa1")
    assert (shown["ports"], shown["mem_bytes"], shown["uid"]) == ([[31500, 31501], [31510, 31510]], 32 * MB, 0)
    assert shown["disk_bytes"] == 3 * MB // 2
    assert call(agent, "GET_CONTAINERS").json == {"type": "GET_CONTAINERS"}
    (element,) = call(agent, "GET_CONTAINERS", show_standalone=True).json["get_containers"]["containers"]
    assert list(element) == ["container_id", "container_status", "resource_statistics"]
    assert element["resource_statistics"]["net_ephemeral_ports"]["end"] == shown["ephemeral_ports"][1]
    assert ask(agent, "/monitor/statistics").json == ask(agent, "/containers").json == []
    assert ask(agent, "/state").json["frameworks"] == []
    assert [each["id"] for each in ask(agent, "/overview").json] == ["sa1"], "what is ours shows it"
    assert ask(agent, "/metrics/snapshot").json["slave/cpus_used"] == 0

    answer = call(agent, "REMOVE_CONTAINER", **about("sa1"))
    assert (answer.status, "has not terminated yet" in answer.text) == (400, True)
    place = sandbox(agent, "sa1")
    place.joinpath("go").touch()
    answer = call(agent, "WAIT_CONTAINER", **about("sa1"))
    assert answer.text == '{"type":"WAIT_CONTAINER","wait_container":{"exit_status":768}}'
    assert call(agent, "WAIT_CONTAINER", **about("sa1")).text == answer.text
    assert place.joinpath("stdout").read_text() == "31500,31501,31510\n"
    assert launch(agent, "sa1", command).status == 202, "its id is taken until it is removed"
    answer = call(agent, "KILL_CONTAINER", **about("sa1"))
    assert (answer.status, answer.text) == (404, "Container 'sa1' cannot be found (or is already killed)")

    answer = call(agent, "REMOVE_CONTAINER", **about("sa1"))
    assert (answer.status, answer.body, place.exists()) == (200, b"", False)
    for kind in ("WAIT_CONTAINER", "REMOVE_CONTAINER", "ATTACH_CONTAINER_OUTPUT"):
        answer = call(agent, kind, **about("sa1"))
        assert (answer.status, answer.text) == (404, "Container sa1 cannot be found")
    assert launch(agent, "sa1", "true").status == 200


@pytest.mark.parametrize(("chosen", "number"), [({}, 9), ({"signal": 15}, 15), ({"signal": 10}, 10)])
def test_killed_by_a_signal(agent: Node, chosen: dict[str, int], number: int) -> None:
    launch(agent, "victim", "exec sleep 100")
    assert call(agent, "KILL_CONTAINER", **about("victim"), **chosen).status == 200
    status = call(agent, "WAIT_CONTAINER", **about("victim")).json["wait_container"]["exit_status"]
    assert os.WTERMSIG(status) == signal.Signals(number)
    unknown = call(agent, "KILL_CONTAINER", **about("victim"), signal=0)
    assert (unknown.status, unknown.text) == (400, "There is no signal 0")


def test_it_begins_with_an_empty_sandbox(agent: Node) -> None:
    """Also where one of an earlier boot has left something: its record did not outlive it."""
    left = agent.directory / "work" / "containers" / "reborn"
    left.mkdir(parents=True)
    left.joinpath("stdout").write_text("of an earlier one\n")
    assert launch(agent, "reborn", "ls").status == 200
    assert output(agent, "reborn") == "stderr\nstdout\n"


def test_who_waits_for_what_is_being_launched_waits_for_its_end(agent: Node) -> None:
    launching = Thread(target=launch, args=(agent, "early", "exit 3"))
    launching.start()
    answers = iter(lambda: call(agent, "WAIT_CONTAINER", **about("early")), None)
    first = next(answer for answer in answers if answer is not None and answer.status != 404)
    assert first.json["wait_container"] == {"exit_status": 768}
    launching.join()


def test_a_sandbox_of_any_depth_is_removed(agent: Node) -> None:
    deep = "i=0; while [ $i -lt 1500 ]; do mkdir d; cd -P d; i=$((i+1)); done"
    assert launch(agent, "deep", deep, command={"user": "nobody"}).status == 200
    assert call(agent, "WAIT_CONTAINER", **about("deep")).json["wait_container"]["exit_status"] == 0
    place = sandbox(agent, "deep")
    answer = call(agent, "REMOVE_CONTAINER", **about("deep"))
    assert (answer.status, answer.body) == (200, b"")
    assert list(place.parent.iterdir()) == []


def test_nothing_waits_for_the_removal_of_a_sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directories = Directories(tmp_path / "work", tmp_path / "runtime")
    directories.runtime.mkdir()
    left = directories.work / "containers" / ".removed-by-an-agent-that-was-killed"
    left.mkdir(parents=True)
    containerizer = Containerizer(directories, [])
    containerizer.recover()
    assert not left.exists()
    container = containerizer.launch(Request(command=("true",), uid=0, gid=0, id="a"))
    assert container.supervisor is not None
    assert container.supervisor.wait(60)
    containerizer.reap("a")
    answered = Event()

    def ask_for_all() -> None:
        containerizer.all()
        answered.set()

    def look(aside: Path) -> None:
        assert aside.joinpath("stdout").exists()
        assert not container.sandbox.exists(), "the id is free for another container"
        Thread(target=ask_for_all, daemon=True).start()
        assert answered.wait(30)

    monkeypatch.setattr("portslice.containers.containerizer._delete", look)
    containerizer.remove("a")
    assert answered.is_set()


def test_it_survives_the_agent(agent: Node) -> None:
    launch(agent, "survivor", "while ! [ -e go ]; do sleep 0.05; done; kill -9 $$")
    agent.stop()
    agent.start()
    (element,) = call(agent, "GET_CONTAINERS", show_standalone=True).json["get_containers"]["containers"]
    assert element["container_id"] == {"value": "survivor"}
    assert launch(agent, "survivor", "true").status == 202
    sandbox(agent, "survivor").joinpath("go").touch()
    assert call(agent, "WAIT_CONTAINER", **about("survivor")).json["wait_container"] == {"exit_status": 9}


def test_commands(agent: Node) -> None:
    variables = [{"name": "WHAT", "value": "it's $HOME", "type": "VALUE"}, {"name": "MORE", "value": ""}]
    command = {"environment": {"variables": variables}, "user": "nobody"}
    assert launch(agent, "shell", 'echo "$WHAT" "$MORE" "$(id -un)"', command=command).status == 200
    assert output(agent, "shell") == "it's $HOME  nobody\n"
    exact = {"shell": False, "arguments": ["echo", "$HOME", "a  b"]}
    assert launch(agent, "exact", "/bin/echo", command=exact, container={"type": "MESOS"}).status == 200
    assert output(agent, "exact") == "$HOME a  b\n"
    uris = {"uris": [{"value": "file:///etc/hostname", "output_file": "here", "cache": True, "extract": False}]}
    assert launch(agent, "fetched", "cmp here /etc/hostname && echo same", command=uris).status == 200
    assert output(agent, "fetched") == "same\n"


Records = Generator[dict[str, Any], None, None]
IMPOSSIBLE: list[tuple[dict[str, Any], str]] = [
    ({"container_id": {"value": "a.b"}}, "'ContainerID.value' 'a.b' contains invalid characters"),
    ({"container_id": {"value": "a/b"}}, "'ContainerID.value' 'a/b' contains invalid characters"),
    ({"container_id": {"value": "a b"}}, "'ContainerID.value' 'a b' contains invalid characters"),
    ({"container_id": {"value": "a\nb"}}, "'ContainerID.value' 'a\nb' contains invalid characters"),
    ({"container_id": {"value": ".."}}, "'ContainerID.value' '..' contains invalid characters"),
    ({"container_id": {"value": ""}}, "'ContainerID.value' must not be empty"),
    ({"container_id": {"value": "ä" * 122}}, "must not be longer than 242"),
    ({"container_id": {"value": "running"}, "command": {"value": "true"}}, "'running' is running already"),
    ({"command": {"value": "a\0b"}}, "Failed to launch container: embedded null byte"),
    ({"command": {}}, "'launch_container.command' needs a 'value'"),
    ({"command": {"value": "a", "uris": [{"value": "a"}]}}, "Could not fetch: A relative path was passed"),
    ({"command": {"value": "a", "environment": {"variables": [{"name": "A", "secret": {}}]}}}, "needs a 'value'"),
    ({"command": {"value": "true", "user": "no-such-user"}}, "Failed to get user information for 'no-such-user'"),
    ({"command": {"value": "true", "user": "a\0b"}}, "Failed to get user information for 'a\0b'"),
    ({"container": {"type": "DOCKER"}}, "may say nothing but its type"),
    ({"container": {"type": "MESOS", "volumes": [{}]}}, "may say nothing but its type"),
    ({"resources": [scalar("cpus", -1)]}, "Resource 'cpus:-1' is invalid: Invalid scalar resource: value <= 0"),
    ({"resources": [ranges((5, 4))]}, "Resource 'ports:[5-4]' is invalid: Invalid ranges resource: begin > end"),
    ({"resources": [ranges((31000, 70000))]}, "Range is out of bounds"),
    ({"resources": [scalar("mem", 2**50)]}, "there is no such amount of memory"),
    ({"resources": [scalar("disk", 2**50)]}, "there is no such amount of disk"),
    ({"resources": [{"name": "cpus"}]}, "Resource 'cpus:None' is invalid"),
    ({"resources": [ranges((20000, 20000))]}, "are not managed by the agent"),
    ({"resources": [{**scalar("cpus", 1), "role": "prod"}]}, "'launch_container.resources' must be unreserved"),
    ({"resources": [{**scalar("cpus", 1), "reservations": [{"role": "a"}]}]}, "must be unreserved"),
    ({"resources": [{**scalar("disk", 1), "disk": {"persistence": {"id": "a"}}}]}, "not use persistent volumes"),
    ({"resources": [{**scalar("cpus", 1), "revocable": {}}]}, "must be non-revocable"),
]


def test_launches_that_cannot_be(agent: Node) -> None:
    agent.launch("running")
    for more, text in IMPOSSIBLE:
        answer = call(agent, "LAUNCH_CONTAINER", **{**about("bad"), "command": {"value": "true"}, **more})
        assert (answer.status, text in answer.text) == (400, True), (more, answer)
    assert [each["name"] for each in agent.client.containers()] == ["running"]


def test_ids_that_are_names_of_other_things(agent: Node) -> None:
    """A cgroup's directory, a file of the journal, a mount, a name: an id is all of them."""
    for container_id in ("tasks", "-rf", "agent", "leaf", "ä", "n" * 242):
        status = launch(agent, container_id, "echo $MESOS_CONTAINER_ID").status
        if status == 200:
            assert output(agent, container_id) == f"{container_id}\n"
        else:
            assert (container_id, status) == ("tasks", 400), "v1 has a file of this name"
    refused = agent.cli("run", "--name", "ä", "true", check=False)
    assert "is the id of another container" in refused.stderr
    assert call(agent, "GET_HEALTH").status == 200


def test_members_of_the_group_launch_as_themselves(agent: Node) -> None:
    def as_nobody(container_id: str, user: str | None) -> Answer:
        command = {"command": {"user": user}} if user else {}
        answer: Answer = as_user(NOBODY, NOBODY, lambda: launch(agent, container_id, "id -u", **command))
        return answer

    assert as_nobody("own", None).status == 200
    assert as_nobody("named", "nobody").status == 200
    for user in ("root", "daemon"):
        answer = as_nobody("foreign", user)
        assert (answer.status, answer.text) == (403, "Only root may run a container as another user or group")
    assert output(agent, "own") == output(agent, "named") == f"{NOBODY}\n"


# Output


def records(agent: Node, container_id: str, **headers: str) -> tuple[dict[str, str], Records]:
    """The headers of a stream of output, and its records as they come."""
    opened = connection_over_socket(agent)
    given = {name.replace("_", "-"): value for name, value in {**JSON, **headers}.items()}
    opened.request("POST", "/api/v1", body("ATTACH_CONTAINER_OUTPUT", **about(container_id)), given)
    response = opened.getresponse()

    def each() -> Records:
        with closing(opened), response:
            while length := response.readline():
                yield json.loads(response.read(int(length)))

    return dict(response.getheaders()), each()


def test_output_is_streamed_with_heartbeats_to_the_end(agent: Node) -> None:
    launch(agent, "talker", "echo first; echo oops >&2; while ! [ -e go ]; do sleep 0.05; done; printf last")
    headers, stream = records(agent, "talker", Accept=RECORDIO, Message_Accept="application/json")
    assert (headers["Content-Type"], headers["Message-Content-Type"]) == (RECORDIO, "application/json")
    assert headers["Transfer-Encoding"] == "chunked"
    beat = {"type": "CONTROL", "control": {"type": "HEARTBEAT", "heartbeat": {"interval": {"nanoseconds": 50_000_000}}}}
    seen: dict[str, bytes] = {"STDOUT": b"", "STDERR": b""}
    beats = 0
    for record in stream:
        if record["type"] == "DATA":
            seen[record["data"]["type"]] += base64.b64decode(record["data"]["data"])
        else:
            assert record == beat
            beats += 1
            if beats == 3:
                sandbox(agent, "talker").joinpath("go").touch()
    assert seen == {"STDOUT": b"first\nlast", "STDERR": b"oops\n"}
    assert beats >= 3
    headers, stream = records(agent, "talker", Accept="application/json")
    assert headers["Content-Type"] == "application/json"
    assert sum(record["type"] == "DATA" for record in stream) == 2


def test_who_hangs_up_leaves_nothing_open(agent: Node) -> None:
    assert agent.process is not None
    descriptors = Path(f"/proc/{agent.process.pid}/fd")
    container = agent.launch("talker", "sh", "-c", "while :; do echo again; sleep 0.01; done")
    call(agent, "GET_HEALTH")
    before = len(list(descriptors.iterdir()))
    for _ in range(20):
        _, stream = records(agent, container["id"])
        assert next(stream)["type"] == "DATA"
        stream.close()
    until(lambda: len(list(descriptors.iterdir())) <= before, "as few open files as before")
    assert "Error handling request" not in agent.log


def test_output_of_a_user_namespace_is_its_own(agent: Node) -> None:
    container = agent.launch("apart", "sh", "-c", "echo told; echo kept >file; chmod 600 file", user_namespace=True)
    agent.client.wait(container["id"])
    assert Path(container["sandbox"], "file").stat().st_uid >= 0x70000000
    answer = call(agent, "READ_FILE", path=f"{container['sandbox']}/file", offset=0)
    assert base64.b64decode(answer.json["read_file"]["data"]) == b"kept\n"
    _, stream = records(agent, container["id"])
    assert [base64.b64decode(each["data"]["data"]) for each in stream if each["type"] == "DATA"] == [b"told\n"]

"""Who may do what on the TCP port: nothing but read without credentials, and not what another site's page wants."""

import base64
import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest

from portslice.demo.node import Node, node
from portslice.demo.testbed import testbed
from tests.kernel.asking import Answer, ask, ask_over, connection, over_socket
from tests.kernel.calling import JSON, about, body, call, call_over_tcp
from tests.kernel.waiting import until

pytestmark = pytest.mark.native

ISOLATION = "--isolation=posix/cpu,posix/mem"  # these agents need no data plane
SECRET = "swordfish: über"
OPS: dict[str, Any] = {"Authorization": "Basic " + base64.b64encode(f"ops:{SECRET}".encode()).decode()}
READONLY, READWRITE = (f'Basic realm="mesos-agent-{kind}"' for kind in ("readonly", "readwrite"))
NOBODY = 65534
CALLS: dict[str, dict[str, Any]] = {
    "SET_LOGGING_LEVEL": {"level": 1, "duration": {"nanoseconds": 1}},
    "LAUNCH_CONTAINER": {**about("a"), "command": {"value": "true"}},
    "KILL_CONTAINER": about("a"),
    "REMOVE_CONTAINER": about("a"),
    "LIST_FILES": {"path": "/"},
    "READ_FILE": {"path": "/", "offset": 0},
    "ATTACH_CONTAINER_OUTPUT": about("a"),
}
"""What changes the host or shows a sandbox."""


class Agents(NamedTuple):
    """One without credentials, one with, one that always wants them, and one that is as open as Mesos."""

    closed: Node
    with_credentials: Node
    strict: Node
    open: Node


@pytest.fixture(scope="module")
def agents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agents]:
    file = tmp_path_factory.mktemp("secrets") / "credentials"
    file.write_text(json.dumps({"credentials": [{"principal": "ops", "secret": SECRET}]}))
    file.chmod(0o600)
    credentials = f"--http_credentials=file://{file}"
    with ExitStack() as stack:

        def started(*flags: str) -> Node:
            return stack.enter_context(node(stack.enter_context(testbed()), ISOLATION, *flags))

        agents = Agents(
            closed=started(),
            with_credentials=started(credentials),
            strict=started(credentials, "--authenticate_http_readonly", "--authenticate_http_readwrite"),
            open=started("--open_files"),
        )
        yield agents
        assert not any("Traceback" in agent.log for agent in agents)


def sandbox(agent: Node) -> str:
    """The sandbox of a container that said hello."""
    names = [each["name"] for each in agent.client.containers()]
    container = agent.client.container("greeter") if "greeter" in names else agent.launch("greeter", "echo", "hello")
    until(lambda: Path(container["sandbox"], "stdout").read_text(), "greeting")
    return str(container["sandbox"])


def files(agent: Node) -> list[str]:
    """Every way to see a sandbox with a GET."""
    path = quote(f"{sandbox(agent)}/stdout")
    return [f"/files/browse?path={quote(sandbox(agent))}", f"/files/read?path={path}&offset=0",
            f"/files/download?path={path}", "/files/debug"]  # fmt: skip


def refused(answer: Answer, realm: str) -> bool:
    wanted = (401, realm, b"401 Unauthorized.")
    return (answer.status, answer.headers.get("WWW-Authenticate"), answer.body) == wanted


def test_without_credentials_tcp_shows_no_sandbox_and_says_what_to_do(agents: Agents) -> None:
    for path in files(agents.closed):
        for headers in ({}, OPS):
            answer = ask(agents.closed, path, **headers)
            assert answer.status == 403, path
            for way in ("Unix socket", "--http_credentials", "--open_files"):
                assert way in answer.text


def test_with_credentials_tcp_shows_sandboxes_to_whom_has_them(agents: Agents) -> None:
    agent = agents.with_credentials
    _, read, download, _ = paths = files(agent)
    assert ask(agent, read, **OPS).json == {"data": "hello\n", "offset": 0}
    assert ask(agent, download, **OPS).body == b"hello\n"
    for path in paths:
        assert ask(agent, path, **OPS).status == 200
        assert refused(ask(agent, path), READONLY)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Basic",
        "Basic ====",
        "Bearer " + OPS["Authorization"].partition(" ")[2],
        "Basic " + base64.b64encode(b"ops").decode(),
        "Basic " + base64.b64encode(b"ops:swordfish").decode(),
        "Basic " + base64.b64encode(f"other:{SECRET}".encode()).decode(),
        "Basic " + base64.b64encode(b"ops:\xff\xfe").decode(),
        "Basic " + "A" * 5000,
    ],
)
def test_a_wrong_authorization_is_none(agents: Agents, header: str) -> None:
    assert refused(ask(agents.with_credentials, "/files/debug", Authorization=header), READONLY)


def test_reading_needs_no_credentials_unless_a_flag_says_so(agents: Agents) -> None:
    for path in ("/monitor/statistics", "/slave(1)/monitor/statistics", "/containers", "/flags", "/metrics/snapshot"):
        assert ask(agents.with_credentials, path).status == 200
        assert refused(ask(agents.strict, path), READONLY), path
        assert ask(agents.strict, path, **OPS).status == 200
    for path in ("/health", "/version"):
        assert ask(agents.strict, path).status == 200
    assert refused(ask(agents.strict, "/no/such/path"), READONLY)


def test_open_files_shows_sandboxes_to_all_as_mesos_does(agents: Agents) -> None:
    for path in files(agents.open):
        assert ask(agents.open, path).status == 200
    assert ask(agents.open, f"{files(agents.open)[1]}&jsonp=f").text == 'f({"data":"hello\\n","offset":0})'


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),
        ({"Origin": "http://127.0.0.1:5051"}, True),
        ({"Referer": "http://127.0.0.1:5051/"}, True),
        ({"Sec_Fetch_Site": "same-origin"}, True),
        ({"Sec_Fetch_Site": "none"}, True),
        ({"Origin": "http://evil.example"}, False),
        ({"Origin": "http://127.0.0.1:8080"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "http://["}, False),
        ({"Referer": "http://evil.example/127.0.0.1:5051"}, False),
        ({"Sec_Fetch_Site": "cross-site"}, False),
        ({"Sec_Fetch_Site": "same-site", "Origin": "http://127.0.0.1:5051"}, False),
    ],
)
def test_another_sites_page_cannot_use_a_browsers_credentials(
    agents: Agents, headers: dict[str, Any], allowed: bool
) -> None:
    agent = agents.with_credentials
    assert ask(agent, files(agent)[1], **OPS, **headers).status == (200 if allowed else 403)


def test_no_page_can_include_a_sandbox_as_a_script(agents: Agents) -> None:
    agent = agents.with_credentials
    for path in files(agent):
        answer = ask(agent, f"{path}{'&' if '?' in path else '?'}jsonp=steal", **OPS)
        assert (answer.status, b"hello" in answer.body) == (403, False)


def test_no_page_can_include_what_only_those_with_credentials_may_read(agents: Agents) -> None:
    assert ask(agents.strict, "/state?jsonp=steal", **OPS).status == 403
    assert ask(agents.with_credentials, "/state?jsonp=f", **OPS).text.startswith("f({")


NAMES = (
    *("{}", "/{}", "{}/", "{}//", "{}.json", "{}/x", "{}.json/../x", "{}/./x", "{}/%2e", "{}/%2e%2e/x", "{}%2fx"),
    *("/slave(1){}", "/slave%281%29{}", "//slave(1)/{}", "/%73lave(1){}/x.json", "/slave(1)/slave(1){}"),
    *("/x/..{}", "http://x{}"),
)
"""Ways to name an endpoint; some are none."""


@pytest.mark.parametrize("name", NAMES)
def test_no_other_name_of_an_endpoint_gets_round_who_may_use_it(agents: Agents, name: str) -> None:
    def encoded(path: str) -> str:
        return path[:2] + "".join(f"%{ord(each):02x}" for each in path[2:4]) + path[4:]

    closed, strict, changes = [], [], body("LAUNCH_CONTAINER", **CALLS["LAUNCH_CONTAINER"])
    with closing(connection(agents.closed)) as to_closed, closing(connection(agents.strict)) as to_strict:
        for plain in ("/files/read", "/files/download", "/files/browse", "/files/debug", "/state", "/metrics",
                      "/monitor/statistics", "/overview", "/help", "/system/stats.json"):  # fmt: skip
            for path in (name.format(plain), name.format(encoded(plain))):
                query = f"?path={quote(sandbox(agents.strict))}/stdout&offset=0"
                strict.append((path, ask_over(to_strict, path + query).status, {401, 404, 400}))
                if plain.startswith("/files"):
                    query = f"?path={quote(sandbox(agents.closed))}/stdout&offset=0"
                    closed.append((path, ask_over(to_closed, path + query).status, {403, 404, 400}))
        for plain in ("/api/v1", "/logging/toggle", "/portslice/v1/containers"):
            for path in (name.format(plain), name.format(encoded(plain))):
                asked = f"{path}?level=1&duration=1ms"
                closed.append((path, ask_over(to_closed, asked, "POST", changes, **JSON).status, {403, 404, 400}))
                strict.append((path, ask_over(to_strict, asked, "POST", changes, **JSON).status, {401, 404, 400}))
    for path, status, allowed in closed + strict:
        assert status in allowed, path
    if name in ("{}", "/{}", "{}.json", "{}/x", "{}/./x", "http://x{}"):
        assert {status for _, status, _ in closed[:8]} == {403}, "and these are names of /files/*"


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),
        ({"Host": "agent"}, True),
        ({"Host": "127.0.0.1:8080"}, True),
        ({"Host": "[::1]:8080"}, True),
        ({"Host": "api.portslice.localhost"}, True),
        ({"Sec_Fetch_Site": "none"}, True),
        ({"Origin": "http://evil.example"}, False),
        ({"Origin": "http://localhost"}, False),
        ({"Origin": "null"}, False),
        ({"Referer": "http://evil.example/"}, False),
        ({"Sec_Fetch_Site": "cross-site"}, False),
        ({"Sec_Fetch_Site": "same-origin"}, False),
        ({"Host": "evil.example:8080"}, False),
    ],
)
def test_no_page_uses_a_socket_that_is_forwarded_to_a_browser(
    agents: Agents, headers: dict[str, Any], allowed: bool
) -> None:
    agent = agents.closed
    nothing = '{"command": []}'
    for method, path, text, status in (
        ("POST", "/portslice/v1/containers", nothing, 400),
        ("GET", "/portslice/v1/containers", None, 200),
        ("GET", f"/files/read?path={quote(sandbox(agent))}/stdout&offset=0", None, 200),
        ("GET", "/logging/toggle?level=x&duration=1ms", None, 400),
        ("POST", "/api/v1", body("KILL_CONTAINER", **about("a")), 404),
    ):
        answer = over_socket(agent, path, method, text, **JSON, **headers)
        assert (answer.status, "A page in a browser" in answer.text) == ((status, False) if allowed else (403, True))


@pytest.mark.parametrize("kind", CALLS)
def test_calls_that_change_or_show_need_credentials_over_tcp(agents: Agents, kind: str) -> None:
    answer = call_over_tcp(agents.closed, kind, CALLS[kind], **OPS)
    assert (answer.status, "Unix socket" in answer.text) == (403, True)
    for headers in ({}, {"Authorization": "Basic b3BzOm5v"}):
        assert refused(call_over_tcp(agents.with_credentials, kind, CALLS[kind], **headers), READWRITE)
    answer = call_over_tcp(agents.with_credentials, kind, CALLS[kind], Origin="http://evil.example", **OPS)
    assert (answer.status, "Another site's page" in answer.text) == (403, True)
    assert [each["id"] for each in agents.with_credentials.client.containers() if each["id"] == "a"] == []


def test_the_verbosity_is_toggled_with_credentials(agents: Agents) -> None:
    path = "/logging/toggle?level=1&duration=1ms"
    assert ask(agents.closed, path).status == 403
    assert refused(ask(agents.with_credentials, path), READWRITE)
    assert ask(agents.with_credentials, path, **OPS).status == 200
    assert ask(agents.with_credentials, path, Sec_Fetch_Site="cross-site", **OPS).status == 403
    assert ask(agents.with_credentials, "/logging/toggle").status == 200
    assert refused(ask(agents.strict, "/logging/toggle"), READWRITE)


def test_calls_that_read_need_credentials_where_a_flag_says_so(agents: Agents) -> None:
    for kind in ("GET_HEALTH", "GET_CONTAINERS", "GET_FLAGS", "GET_STATE"):
        assert call_over_tcp(agents.closed, kind).status == 200
        assert refused(call_over_tcp(agents.strict, kind), READWRITE)
        assert call_over_tcp(agents.strict, kind, **OPS).status == 200
    assert refused(ask(agents.strict, "/api/v1", "POST", "{nope"), READWRITE)


def test_open_files_opens_no_call_that_changes(agents: Agents) -> None:
    path = sandbox(agents.open)
    container = agents.open.client.container("greeter")
    assert call_over_tcp(agents.open, "LIST_FILES", {"path": path}).status == 200
    assert call_over_tcp(agents.open, "READ_FILE", {"path": f"{path}/stdout", "offset": 0}).status == 200
    assert b"aGVsbG8K" in call_over_tcp(agents.open, "ATTACH_CONTAINER_OUTPUT", about(container["id"])).body
    for kind in ("SET_LOGGING_LEVEL", "LAUNCH_CONTAINER", "KILL_CONTAINER", "REMOVE_CONTAINER"):
        assert call_over_tcp(agents.open, kind, CALLS[kind]).status == 403


@pytest.mark.parametrize(
    ("user", "status", "text"),
    [
        (None, 200, ""),
        ("nobody", 200, ""),
        ("root", 403, "Over TCP no container is launched as 'root'"),
        ("0", 403, "Over TCP no container is launched as '0'"),
        ("daemon", 403, "--http_users says as whom"),
    ],
)
def test_over_tcp_containers_are_launched_as_who_was_named_alone(
    agents: Agents, user: str | None, status: int, text: str
) -> None:
    agent, name = agents.with_credentials, f"of-{user}"
    command = {"value": "id -u; id -G", **({"user": user} if user else {})}
    answer = call_over_tcp(agent, "LAUNCH_CONTAINER", {**about(name), "command": command}, **OPS)
    assert (answer.status, text in answer.text) == (status, True)
    if status == 200:
        assert call_over_tcp(agent, "WAIT_CONTAINER", about(name)).status == 200
        written = Path(agent.client.container(name)["sandbox"], "stdout").read_text()
        assert written.split() == [str(NOBODY), str(NOBODY)]
        assert "Processing call LAUNCH_CONTAINER of principal 'ops'" in agent.log
        assert call_over_tcp(agent, "REMOVE_CONTAINER", about(name), **OPS).status == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=a"])
def test_no_form_of_another_site_is_a_call(agents: Agents, kind: str) -> None:
    """What a browser posts to us without asking first has one of these types."""
    request = body("LAUNCH_CONTAINER", **CALLS["LAUNCH_CONTAINER"])
    answer = ask(agents.with_credentials, "/api/v1", "POST", request, Content_Type=kind, **OPS)
    assert answer.status == 415
    preflight = ask(agents.with_credentials, "/api/v1", "OPTIONS", Origin="http://evil.example",
                    Access_Control_Request_Method="POST", Access_Control_Request_Headers="content-type")  # fmt: skip
    assert preflight.status == 405
    assert not any(name.startswith("Access-Control") for name in preflight.headers)


def test_a_container_may_do_none_of_this_over_the_socket(agents: Agents) -> None:
    """Known by its PID namespace, whatever way it found to the socket."""
    agent = agents.closed
    curl = ["curl", "-sS", "--unix-socket", str(agent.socket), "-w", " %{http_code}", "-HContent-Type:application/json"]
    requests = [[f"-d{body(kind, **argument)}", "http://localhost/api/v1"] for kind, argument in CALLS.items()]
    requests += [["http://localhost/files/debug"], ["http://localhost/logging/toggle?level=1&duration=1ms"]]
    for request in requests:
        found = subprocess.run(
            ["unshare", "--pid", "--fork", *curl, *request], capture_output=True, text=True, check=True
        ).stdout
        assert "A process inside a container may not use the agent's socket" in found
        assert found.endswith(" 403"), request
    assert over_socket(agent, "/files/debug").status == 200
    assert call(agent, "KILL_CONTAINER", **about("a")).status == 404


def test_no_container_sees_secrets_that_are_kept_in_the_agents_directories(agents: Agents) -> None:
    for directory in (agents.closed.directory / "work", agents.closed.runtime):
        file = directory / "credentials"
        file.write_text("swordfish")
        ended = agents.closed.client.wait(agents.closed.launch("spy", "cat", str(file))["id"])
        assert ended["exit_status"] == 1
        assert "No such file" in Path(ended["sandbox"], "stderr").read_text()


def test_secrets_are_shown_nowhere(agents: Agents) -> None:
    agent = agents.with_credentials
    assert ask(agent, "/flags").json["flags"]["http_credentials"] == "(hidden)"
    shown = [agent.log, ask(agent, "/flags").text]
    assert '--http_credentials="(hidden)"' in agent.log
    for text in shown:
        assert "swordfish" not in text


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--authenticate_http_readonly"], "No credentials provided for the default 'basic' HTTP authenticator"),
        (["--authenticate_http_readwrite"], "for realm 'mesos-agent-readwrite'"),
        (["--http_credentials={}"], "Failed to load flag 'http_credentials'"),
        (["--http_credentials=file:///no/such/file"], "Error reading file '/no/such/file'"),
        (["--http_users=root"], "over --socket only"),
    ],
)
def test_flags_about_access_are_checked_at_the_start(agents: Agents, flags: list[str], message: str) -> None:
    stranger = Node(agents.closed.bed, ISOLATION, "--port=5052", name="stranger")
    result = stranger.agent(*flags)
    assert result.returncode == 1
    assert message in result.stderr
    assert not stranger.directory.exists()


def test_a_file_of_secrets_that_others_can_read_is_warned_of(agents: Agents, tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    file.write_text('{"credentials":[{"principal":"ops","secret":"swordfish"}]}')
    file.chmod(0o644)
    stranger = Node(agents.closed.bed, ISOLATION, name="stranger")
    result = stranger.agent(f"--http_credentials={file}", "--http_users=root")
    assert f"Permissions on credentials file '{file}' are too open" in result.stderr
    assert "swordfish" not in result.stderr

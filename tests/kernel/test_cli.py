"""The commands as a person or a script uses them, against a running agent."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from portslice.cli.main import main
from portslice.demo.node import Node
from tests.kernel.asking import over_socket
from tests.kernel.waiting import until

pytestmark = pytest.mark.native

Command = Callable[..., subprocess.CompletedProcess[str]]

COMMANDS = ("agent", "run", "ps", "update", "stats", "top", "drops", "kill", "doctor", "plan", "demo")


@pytest.fixture
def portslice(agent: Node, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """A `portslice` command in this process, for speed; what the process adds is tested with `running`."""
    monkeypatch.setenv("PORTSLICE_SOCKET", str(agent.socket))

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        capfd.readouterr()
        try:
            status = main(arguments)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        output, errors = capfd.readouterr()
        return subprocess.CompletedProcess(arguments, status, output, errors)

    return call


@contextmanager
def running(node: Node, *arguments: str, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A `portslice` command that goes on."""
    environment = {**os.environ, "PORTSLICE_SOCKET": str(node.socket)}
    defaults: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
    command = [sys.executable, "-m", "portslice", *arguments]
    process = subprocess.Popen(command, env=environment, **(defaults | options))
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def named(node: Node, name: str) -> dict[str, Any] | None:
    """The newest container of this name."""
    return next((each for each in reversed(node.client.containers()) if each["name"] == name), None)


# run


def test_output_and_exit_status(portslice: Command) -> None:
    result = portslice("run", "--", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (result.returncode, result.stdout, result.stderr) == (3, "out\n", "err\n")
    assert portslice("run", "true").returncode == 0  # `--` is needed only where an argument looks like an option
    assert portslice("run", "echo", "-n", "--name", "x").stdout == "--name x"
    assert portslice("run", "--", "echo", "--", "x").stdout == "-- x\n"
    result = portslice("run", "--", "no-such-command")
    assert result.returncode == 127
    assert "no-such-command" in result.stderr
    assert portslice("run", "--", "sh", "-c", "kill -TERM $$").returncode == 143
    assert portslice("run", "--", "sh", "-c", "kill -KILL $$").returncode == 137


def test_ports_environment_and_user(portslice: Command) -> None:
    show = "echo $PORT0 $PORT1 $PORT $PORTS $GREETING; id -u; id -g; pwd; echo $MESOS_SANDBOX"
    lines = portslice("run", "--ports", "2", "-e", "GREETING=a=b c", "--", "sh", "-c", show).stdout.splitlines()
    assert lines[0] == "31000 31001 31000 31000,31001 a=b c"
    assert lines[1:3] == [str(os.geteuid()), str(os.getegid())]
    assert lines[3] == lines[4]
    ranges = portslice("run", "--ports", "31500-31501,31600", "--", "sh", "-c", "echo $PORTS").stdout
    assert ranges == "31500,31501,31600\n"
    user = portslice("run", "--user", "nobody", "--", "id", "-un").stdout
    assert user == "nobody\n"
    assert portslice("run", "--user", "12345", "--", "id", "-u").stdout == "12345\n"
    inside = portslice("run", "--", "cat", "/proc/sys/net/ipv4/ip_local_port_range").stdout.split()
    assert inside == ["32768", "33791"]


def test_large_and_binary_output_is_intact(agent: Node) -> None:
    """10 MB, with all bytes, and not a byte of standard error in between."""
    program = (
        "import sys\nfor i in range(160):\n sys.stdout.buffer.write(bytes(range(256)) * 256)\n"
        " sys.stderr.write(f'{i}\\n')"
    )
    environment = {**os.environ, "PORTSLICE_SOCKET": str(agent.socket)}
    command = [sys.executable, "-m", "portslice", "run", "--", "python3", "-c", program]
    result = subprocess.run(command, env=environment, capture_output=True, timeout=100, check=True)
    assert len(result.stdout) == 160 * 65536
    expected = hashlib.sha256(bytes(range(256)) * 256 * 160).hexdigest()
    assert hashlib.sha256(result.stdout).hexdigest() == expected
    assert result.stderr.decode() == "".join(f"{i}\n" for i in range(160))


def test_output_comes_while_the_command_runs(agent: Node) -> None:
    with running(agent, "run", "--", "sh", "-c", "echo early; sleep 600") as process:
        assert process.stdout
        assert process.stdout.readline() == b"early\n"
        assert process.poll() is None


def test_an_interrupt_ends_the_container(agent: Node) -> None:
    """At whatever moment: one during the launch is kept until there is something to end."""
    with running(agent, "run", "--name", "interrupted", "--", "sleep", "600") as process:
        until(lambda: named(agent, "interrupted"), "launch")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 143
        assert process.stderr
        assert process.stderr.read() == b""
    ended = named(agent, "interrupted")
    assert ended
    assert (ended["state"], ended["exit_status"]) == ("exited", 143)


def test_a_second_interrupt_kills(agent: Node) -> None:
    script = "trap '' TERM; echo ready; while :; do sleep 0.1; done"
    with running(agent, "run", "--", "sh", "-c", script) as process:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)  # else the two signals may be one
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 137


def test_detached(agent: Node, portslice: Command) -> None:
    assert portslice("run", "-d", "--name", "web", "--", "sleep", "600").stdout == "web\n"
    container = json.loads(portslice("run", "-d", "--json", "--", "sleep", "600").stdout)
    assert container["name"] == f"c-{container['id'][:8]}"
    assert {each["name"] for each in agent.client.containers() if each["state"] == "running"} == {
        "web",
        container["name"],
    }
    result = portslice("run", "--name", "web", "--", "true")
    assert (result.returncode, result.stderr) == (1, "portslice: A container with the name 'web' is running already\n")


def test_two_at_once(agent: Node) -> None:
    with (
        running(agent, "run", "--ports", "1", "--", "sh", "-c", "echo $PORT0; sleep 600") as first,
        running(agent, "run", "--ports", "1", "--", "sh", "-c", "echo $PORT0; sleep 600") as second,
    ):
        assert first.stdout
        assert second.stdout
        assert {first.stdout.readline(), second.stdout.readline()} == {b"31000\n", b"31001\n"}


def test_a_caller_who_hangs_up_leaves_a_watched_container(agent: Node) -> None:
    """Killed in the middle of the launch: when the container ends, it is taken apart."""
    with running(agent, "run", "--name", "left", "--", "sleep", "1") as process:
        until(lambda: named(agent, "left"), "launch")
        process.kill()
    until(lambda: (named(agent, "left") or {})["state"] == "exited", "end")


def test_a_reader_that_goes_away_ends_the_container(agent: Node) -> None:
    with running(agent, "run", "--name", "yes", "--", "yes") as process:
        assert process.stdout
        assert process.stdout.readline() == b"y\n"
        process.stdout.close()
        assert process.wait(60) == 141
        assert process.stderr
        assert process.stderr.read() == b""
        process.stdout = None
    ended = named(agent, "yes")
    assert ended
    assert ended["state"] == "exited"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--cpus", "many"], "argument --cpus: 'many' is no number of CPUs: write e.g. 0.5"),
        (["--cpus", "0"], "argument --cpus: '0' is no number of CPUs: write e.g. 0.5"),
        (["--cpus", "nan"], "argument --cpus: 'nan' is no number of CPUs: write e.g. 0.5"),
        (["--mem", "64"], "argument --mem: Invalid bytes '64': write e.g. 64MB"),
        (["--mem", "64XB"], "argument --mem: Unknown bytes unit 'XB': write e.g. 64MB"),
        (["--ports", "31004-31000"], "argument --ports: "),
        (["--ports", "31000-70000"], "argument --ports: "),
        (["--ports", "some"], "argument --ports: "),
        (["--env", "NAME"], "argument -e/--env: 'NAME' is no environment variable: write NAME=VALUE"),
        (["--user", "nobody-at-all"], "argument --user: there is no user 'nobody-at-all'"),
        (["--nmae", "x"], "unknown option '--nmae': did you mean --name?"),
    ],
)
def test_bad_values_of_run(arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["run", *arguments, "--", "true"])
    assert ended.value.code == 2
    assert f"portslice run: error: {text}" in capsys.readouterr().err


def test_what_the_agent_refuses(agent: Node, portslice: Command) -> None:
    def refused(*arguments: str) -> str:
        result = portslice("run", *arguments, "--", "true")
        assert (result.returncode, result.stdout) == (1, "")
        return result.stderr

    assert refused("--ports", "1024-1025") == (
        "portslice: Some non-ephemeral ports specified in [1024-1025] are not managed by the agent\n"
    )
    assert refused("--ports", "2000") == "portslice: Not enough free ports: 2000 asked for, 1001 left\n"
    assert refused("--name", "a/b") == "portslice: The name 'a/b' contains invalid characters\n"
    agent.launch("holder", ports="31000-31000")
    assert "31000" in refused("--ports", "31000-31001")


# ps, stats, kill


def test_ps(agent: Node, portslice: Command) -> None:
    portslice("run", "-d", "--name", "web", "--ports", "31000-31004", "--cpus", "0.5", "--", "sleep", "600")
    portslice("run", "--name", "short", "--", "sh", "-c", "exit 7")
    (row,) = portslice("ps").stdout.splitlines()[1:]
    container = named(agent, "web")
    assert container
    assert row.split()[:6] == [
        "web",
        container["id"][:8],
        str(container["pid"]),
        "31000-31004",
        "32768-33791",
        "running",
    ]
    assert re.search(r"short .* exited \(7\) ", portslice("ps", "--all").stdout)
    (shown,) = json.loads(portslice("ps", "--json").stdout)
    assert shown["name"] == "web"
    assert shown["ports"] == [[31000, 31004]]
    assert shown["ephemeral_ports"] == [32768, 33791]
    assert shown["cpus"] == 0.5
    assert shown["exit_status"] is None
    assert Path(f"/proc/{shown['pid']}").exists()
    assert {"name", "id", "pid", "ports", "ephemeral_ports", "state", "command", "created"} <= set(shown)
    everything = json.loads(portslice("ps", "--all", "--json").stdout)
    assert {"web": "running", "short": "exited"}.items() <= {each["name"]: each["state"] for each in everything}.items()


def test_stats(agent: Node, portslice: Command) -> None:
    agent.launch("web")
    answer = json.loads(portslice("stats", "web", "--json").stdout)
    assert answer["executor_id"] == answer["source"] == "web"
    assert answer["statistics"]["net_rx_packets"] >= 0
    assert "drops" in answer
    text = portslice("stats", "web").stdout
    assert text.splitlines()[0].split() == ["FIELD", "VALUE"]
    assert re.search(r"^net_tx_bytes +\d+$", text, re.MULTILINE)
    agent.kill("web")
    for command in (("stats", "web"), ("kill", "web")):
        result = portslice(*command)
        assert (result.returncode, result.stderr) == (1, "portslice: The container 'web' is not running\n")


def test_kill(agent: Node, portslice: Command) -> None:
    agent.launch("plain")
    assert portslice("kill", "plain").stdout == ""
    ended = named(agent, "plain")
    assert ended
    assert (ended["state"], ended["exit_status"]) == ("exited", 143)
    # A signal alone returns at once; the container decides.
    container = agent.launch("hup", "sh", "-c", "trap 'echo hup' HUP; echo ready; while :; do sleep 0.1; done")
    output = Path(container["sandbox"]) / "stdout"
    until(lambda: "ready" in output.read_text(), "handler")
    for spelling in ("SIGHUP", "hup", "1"):
        portslice("kill", "--signal", spelling, "hup")
        until(lambda: "hup" in output.read_text(), "signal")
        output.write_text("")
    portslice("kill", "-s", "KILL", container["id"])
    assert agent.client.wait("hup")["exit_status"] == 137


def test_kill_goes_on_past_unknown_names(agent: Node, portslice: Command) -> None:
    agent.launch("one")
    result = portslice("kill", "nobody", "one", "--json")
    assert (result.returncode, result.stderr) == (1, "portslice: There is no container 'nobody'\n")
    (killed,) = json.loads(result.stdout)
    assert (killed["name"], killed["state"]) == ("one", "exited")
    result = portslice("stats", "nobody")
    assert (result.returncode, result.stderr) == (1, "portslice: There is no container 'nobody'\n")


# All commands


def cli(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "portslice", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_the_socket_before_and_after_the_command(agent: Node) -> None:
    agent.launch("web")
    elsewhere = {"PORTSLICE_SOCKET": "/nonexistent/agent.sock"}
    assert "web" in cli("--socket", str(agent.socket), "ps", **elsewhere).stdout
    assert "web" in cli("ps", f"--socket={agent.socket}", **elsewhere).stdout
    assert "web" in cli("ps", PORTSLICE_SOCKET=str(agent.socket)).stdout
    assert json.loads(cli("--json", "ps", PORTSLICE_SOCKET=str(agent.socket)).stdout)[0]["name"] == "web"


def test_without_an_agent(tmp_path: Path) -> None:
    for arguments in (["ps"], ["run", "--", "true"], ["stats", "x"], ["kill", "x"]):
        result = cli(*arguments, "--socket", str(tmp_path / "none")) if arguments[0] != "run" else cli(
            "--socket", str(tmp_path / "none"), *arguments
        )
        assert result.returncode == 1
        assert result.stderr == (
            f"portslice: No agent listens on '{tmp_path / 'none'}': start one (portslice agent --help), or name its "
            "socket (--socket)\n"
        )
    result = cli("ps", "--socket", str(tmp_path))
    assert result.returncode == 1
    assert "portslice: " in result.stderr
    assert "Traceback" not in result.stderr


def test_closed_pipes_are_quiet(agent: Node) -> None:
    agent.launch("web")
    for arguments in (["ps"], ["agent", "--help"], ["stats", "web"]):
        read, write = os.pipe()
        os.close(read)
        with running(agent, *arguments, stdout=write) as process:
            os.close(write)
            _, errors = process.communicate(timeout=100)
        assert process.returncode == 141, arguments
        assert b"Traceback" not in errors
        assert b"BrokenPipe" not in errors


def test_a_full_disk_is_an_error(agent: Node) -> None:
    for arguments in (["ps"], ["run", "--", "yes"]):
        with open("/dev/full", "wb") as full, running(agent, *arguments, stdout=full) as process:
            _, errors = process.communicate(timeout=100)
        assert process.returncode == 1
        assert errors == b"portslice: [Errno 28] No space left on device\n"


@pytest.mark.parametrize("command", [c for c in COMMANDS if c != "agent"])
def test_help_has_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: portslice {command}")
    assert "example" in text.lower()
    assert f"portslice {command}" in text.split("example", 1)[-1]


def test_help_names_all_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert all(re.search(rf"^    {command} ", text, re.MULTILINE) for command in COMMANDS)
    assert "examples:" in text


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["stast"], "portslice: error: there is no command 'stast': did you mean stats?"),
        (["qqqqqqqq"], "portslice: error: there is no command 'qqqqqqqq'\n"),
        ([], "portslice: error: the following arguments are required: COMMAND"),
        (["ps", "--al"], "portslice ps: error: unknown option '--al': did you mean --all?"),
        (["ps", "web"], "portslice ps: error: unexpected argument 'web'"),
        (["stats", "web", "--jsno"], "portslice stats: error: unknown option '--jsno': did you mean --json?"),
        (["run"], "portslice run: error: a COMMAND is missing: portslice run [options] -- COMMAND [ARGUMENT ...]"),
        (["run", "--"], "portslice run: error: a COMMAND is missing"),
        (["kill", "-s", "NOPE", "web"], "portslice kill: error: argument -s/--signal: unknown signal 'NOPE'"),
        (["--json", "agent"], "portslice agent: error: what belongs to the agent stands behind the word"),
    ],
)
def test_wrong_command_lines(arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert text in capsys.readouterr().err


def test_requests_of_the_wrong_kind(agent: Node) -> None:
    """Whoever writes to the socket by himself gets an answer, too."""
    for body in (
        '{"command": "true"}',
        '{"command": ["true"], "cpus": "many"}',
        '{"command": ["true"], "mem": -1}',
        '{"command": ["true"], "environment": ["A=1"]}',
        '{"command": ["true"], "ports": -1}',
        '{"command": ["true"], "uid": true}',
        "[]",
        "{",
    ):
        answer = over_socket(agent, "/portslice/v1/containers", "POST", body)
        assert answer.status == 400, (body, answer)
        assert answer.json["error"]
    assert all(each["state"] == "exited" for each in agent.client.containers())

"""The program that runs tasks inside an executor's container, with real processes, and an agent at the other end that
can be told to misbehave (`AgentPeer`). In a container, with the real agent: test_task_groups.py.
"""

import http.server
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import portslice
from portslice.executor import command
from tests.kernel.waiting import until
from tests.mesos.agent_peer import EXECUTOR, FRAMEWORK, AgentPeer

pytestmark = pytest.mark.native

_FOREVER = "exec sleep 1000"


def _task(name: str, value: str | dict[str, Any] = _FOREVER, **more: Any) -> dict[str, Any]:
    info = {"value": value} if isinstance(value, str) else value
    return {"name": name, "task_id": {"value": name}, "agent_id": {"value": "S0"}, "command": info, **more}


class Executor:
    """The program, with an agent of its own."""

    def __init__(self, directory: Path) -> None:
        self.sandbox = directory
        self.agent = AgentPeer("TASK_KILLING_STATE")
        self.agent.start()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, **environment: str) -> AgentPeer:
        variables = {
            "PATH": os.environ["PATH"],
            "MESOS_AGENT_ENDPOINT": f"127.0.0.1:{self.agent.port}",
            "MESOS_FRAMEWORK_ID": FRAMEWORK,
            "MESOS_EXECUTOR_ID": EXECUTOR,
            "MESOS_SANDBOX": str(self.sandbox),
            "MESOS_CHECKPOINT": "1",
            "MESOS_SUBSCRIPTION_BACKOFF_MAX": "100ms",
            **environment,
        }
        with (self.sandbox / "stdout").open("ab") as out, (self.sandbox / "stderr").open("ab") as err:
            self._process = subprocess.Popen(command(), env=variables, cwd=self.sandbox, stdout=out, stderr=err)
        until(lambda: self.agent.subscriptions or not self.running, "subscription")
        return self.agent

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        return (self.sandbox / "stderr").read_text()

    def wait(self) -> int:
        """Its exit status, when it has ended."""
        assert self._process is not None
        return self._process.wait(60)

    def close(self) -> None:
        if self.running:
            assert self._process is not None
            self._process.terminate()
            self._process.wait(60)
        self.agent.stop()


@pytest.fixture
def executor(tmp_path: Path) -> Iterator[Executor]:
    executor = Executor(tmp_path)
    try:
        yield executor
    finally:
        executor.close()
    assert "Traceback" not in executor.log, executor.log


def _running(argument: str) -> list[str]:
    """Processes with this argument."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if argument.encode() in words:
            found.append(str(path))
    return found


def test_a_group(executor: Executor) -> None:
    agent = executor.start()
    ports = {"name": "ports", "type": "RANGES", "ranges": {"range": [{"begin": 31005, "end": 31006}]}}
    variables = {"variables": [{"name": "WHAT", "type": "VALUE", "value": "a b"}]}
    shell = 'echo "$WHAT" $MESOS_TASK_ID $PORT0 $PORTS $MESOS_EXECUTOR_ID; pwd >&2'
    words = {"shell": False, "value": "/bin/cat", "arguments": ["renamed", "/proc/self/cmdline"]}
    agent.launch(
        _task("one", {"value": shell, "environment": variables}, resources=[ports]),
        _task("two", words),
    )
    assert executor.wait() == 0
    for name in ("one", "two"):
        assert agent.states(name) == ["TASK_STARTING", "TASK_RUNNING", "TASK_FINISHED"]
        assert agent.status(name, "TASK_FINISHED")["message"] == "Command exited with status 0"
    directory = executor.sandbox / "tasks" / "one"
    assert (directory / "stdout").read_text() == "a b one 31005 31005,31006 executor\n"
    assert (directory / "stderr").read_text() == f"{directory}\n"
    assert (executor.sandbox / "tasks/two/stdout").read_bytes() == b"renamed\0/proc/self/cmdline\0"


def test_one_that_fails_ends_its_group(executor: Executor) -> None:
    agent = executor.start()
    agent.launch(
        _task("stays", "touch up; exec sleep 1000"),
        _task("fails", "while ! test -e go; do sleep 0.02; done; exit 3"),
    )
    agent.launch(_task("another"))
    agent.status("another", "TASK_RUNNING")
    until((executor.sandbox / "tasks/stays/up").exists, "a task that is up")
    (executor.sandbox / "tasks/fails/go").touch()
    assert agent.status("fails", "TASK_FAILED")["message"] == "Command exited with status 3"
    assert agent.status("stays", "TASK_KILLED")["message"] == "Command terminated with signal Terminated"
    assert agent.states("stays") == ["TASK_STARTING", "TASK_RUNNING", "TASK_KILLING", "TASK_KILLED"]
    assert agent.states("another") == ["TASK_STARTING", "TASK_RUNNING"]
    agent.kill("another")
    assert executor.wait() == 0


def test_what_cannot_be_had_is_said(executor: Executor) -> None:
    agent = executor.start()
    agent.launch(_task("first"), _task("bad", {"value": "true", "user": "nosuchuser"}), _task("last"))
    assert executor.wait() == 0
    assert agent.status("bad", "TASK_FAILED")["message"] == "There is no user 'nosuchuser' on this host"
    assert agent.states("first")[-1] == "TASK_KILLED"
    assert agent.status("last", "TASK_KILLED")["reason"] == "REASON_TASK_KILLED_DURING_LAUNCH"


def test_a_task_that_is_launched_twice_runs_once(executor: Executor) -> None:
    agent = executor.start()
    for _ in range(2):
        agent.launch(_task("t", "echo run >>runs; exec sleep 1000"))
    until(lambda: "there is a task of this id already" in executor.log, "refusal")
    until((executor.sandbox / "tasks/t/runs").exists, "a task that is up")
    agent.kill("t")
    assert executor.wait() == 0
    assert (executor.sandbox / "tasks/t/runs").read_text() == "run\n"
    assert agent.states("t") == ["TASK_STARTING", "TASK_RUNNING", "TASK_KILLING", "TASK_KILLED"]


def test_a_killed_task_leaves_nothing(executor: Executor) -> None:
    """Neither what ignores SIGTERM, nor what has a session of its own, nor a zombie; and the other task goes on."""
    agent = executor.start()
    mark, other = f"1000.{os.getpid()}1", f"1000.{os.getpid()}2"
    agent.launch(
        _task("stubborn", f"trap '' TERM; setsid -f sleep {mark}; (setsid sleep {mark} &); sleep {mark}; sleep {mark}"),
    )
    agent.launch(_task("other", f"setsid -f sleep {other}; exec sleep {other}"))
    until(lambda: len(_running(mark)) == 3 and len(_running(other)) == 2, "tasks that are up")
    agent.kill("stubborn", kill_policy={"grace_period": {"nanoseconds": 100_000_000}})
    assert agent.status("stubborn", "TASK_KILLED")["message"] == "Command terminated with signal Killed"
    assert _running(mark) == []
    assert len(_running(other)) == 2
    agent.kill("other")
    assert agent.status("other", "TASK_KILLED")["message"] == "Command terminated with signal Terminated"
    assert _running(other) == []
    assert executor.wait() == 0


def test_a_command_task(executor: Executor) -> None:
    """It is all that there is: it runs in the sandbox of the executor, with its output."""
    agent = executor.start()
    agent.acknowledges = False
    agent.launch(_task("job", "pwd; cat no-such-file"), alone=True)
    last = agent.status("job", "TASK_FAILED")
    assert last["message"] == "Command exited with status 1"
    assert (executor.sandbox / "stdout").read_text() == f"{executor.sandbox}\n"
    assert "no-such-file" in executor.log
    assert executor.running  # it waits
    for status in agent.updates["job"]:
        agent.acknowledge(status)
    assert executor.wait() == 0


def test_an_agent_that_comes_back(executor: Executor) -> None:
    """The next one learns what is not acknowledged, and what happened meanwhile, in order."""
    agent = executor.start()
    agent.launch(_task("known"))
    agent.status("known", "TASK_RUNNING")
    agent.acknowledges = False
    agent.launch(_task("new", "while ! test -e go; do sleep 0.02; done; exit 7"))
    agent.status("new", "TASK_RUNNING")
    agent.stop()
    (executor.sandbox / "tasks/new/go").touch()
    until(lambda: "completed in state TASK_FAILED" in executor.log, "end of the task")
    agent.start()
    until(lambda: len(agent.subscriptions) == 2, "subscription")
    assert [each["task_id"]["value"] for each in agent.subscriptions[1]["unacknowledged_tasks"]] == ["new"]
    told = [each["status"]["state"] for each in agent.subscriptions[1]["unacknowledged_updates"]]
    assert told == ["TASK_STARTING", "TASK_RUNNING", "TASK_FAILED"]
    for status in agent.updates["new"]:
        agent.acknowledge(status)
    agent.acknowledges = True
    agent.kill("known")
    assert executor.wait() == 0
    assert agent.states("known") == ["TASK_STARTING", "TASK_RUNNING", "TASK_KILLING", "TASK_KILLED"]


@pytest.mark.parametrize("environment", [{"MESOS_CHECKPOINT": "0"}, {"MESOS_RECOVERY_TIMEOUT": "100ms"}], ids=str)
def test_an_agent_that_does_not_come_back(executor: Executor, environment: dict[str, str]) -> None:
    agent = executor.start(**environment)
    mark = f"1000.{os.getpid()}3"
    agent.launch(_task("t", f"setsid -f sleep {mark}; exec sleep {mark}"))
    until(lambda: len(_running(mark)) == 2, "task")
    agent.stop()
    assert executor.wait() == 0
    assert _running(mark) == []


def test_a_shutdown_leaves_no_task(executor: Executor) -> None:
    agent = executor.start(MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD="4secs")
    policy = {"grace_period": {"nanoseconds": 10**12}}
    stubborn = "trap '' TERM; touch up; while :; do sleep 1; done"
    agent.launch(_task("willing"), _task("stubborn", stubborn, kill_policy=policy))
    until((executor.sandbox / "tasks/stubborn/up").exists, "a task that is up")
    agent.send("SHUTDOWN")
    assert executor.wait() == 0
    assert agent.states("willing")[-1] == agent.states("stubborn")[-1] == "TASK_KILLED"


def test_events_that_are_none(executor: Executor) -> None:
    agent = executor.start()
    for record in ("{", "[]", "{}", '"LAUNCH"', '{"type":"NEWS"}', '{"type":7}', '{"type":"KILL","kill":[]}', "\xff"):
        agent.send_raw(record.encode("latin-1"))
    agent.send("LAUNCH_GROUP", launch_group={"task_group": {"tasks": [{"task_id": "t"}]}})
    agent.kill("unknown")
    agent.launch({"task_id": {"value": "shapeless"}, "command": {"value": "true", "environment": {"variables": [1]}}})
    assert agent.status("shapeless", "TASK_FAILED")["message"].startswith("The task is not well formed: ")
    assert executor.wait() == 0
    ignored = [line for line in executor.log.splitlines() if " E Ignoring " in line or " W Ignoring " in line]
    assert len(ignored) == 10
    (executor.sandbox / "stderr").write_text("")  # with the errors' origins, which no other test may have


def test_a_stream_that_is_none(executor: Executor) -> None:
    """It is left for a new one, and nothing is lost."""
    agent = executor.start()
    agent.launch(_task("t"))
    agent.status("t", "TASK_RUNNING")
    agent.garble()
    until(lambda: len(agent.subscriptions) == 2, "subscription")
    agent.kill("t")
    assert executor.wait() == 0
    assert agent.states("t") == ["TASK_STARTING", "TASK_RUNNING", "TASK_KILLING", "TASK_KILLED"]


def test_too_long(executor: Executor) -> None:
    agent = executor.start()
    agent.launch(_task("t", max_completion_time={"nanoseconds": 200_000_000}), alone=True)
    status = agent.status("t", "TASK_FAILED", reason="REASON_MAX_COMPLETION_TIME_REACHED")
    assert status["message"].startswith("Command terminated with signal ")
    assert executor.wait() == 0
    assert agent.states("t") == ["TASK_STARTING", "TASK_RUNNING", "TASK_FAILED"]


# Checks

_SOON = {"delay_seconds": 0, "interval_seconds": 0.05, "grace_period_seconds": 0}


def test_a_health_check_ends_the_task(executor: Executor) -> None:
    agent = executor.start()
    check = {**_SOON, "type": "COMMAND", "command": {"value": "test -e well"}, "consecutive_failures": 2}
    (executor.sandbox / "well").touch()
    agent.launch(_task("t", health_check=check), alone=True)
    agent.status("t", "TASK_RUNNING", reason="REASON_TASK_HEALTH_CHECK_STATUS_UPDATED", healthy=True)
    (executor.sandbox / "well").unlink()
    assert agent.status("t", "TASK_KILLED")["healthy"] is False
    told = [each["healthy"] for each in agent.updates["t"] if "HEALTH_CHECK" in each.get("reason", "")]
    assert told[-3:] == [True, False, False]
    assert agent.states("t")[-2:] == ["TASK_KILLING", "TASK_KILLED"]
    assert executor.wait() == 0


class Service:
    """A web server whose answer can be changed."""

    def __init__(self) -> None:
        service = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if service.silent:
                    service.spoken.wait(60)
                self.send_response(302 if self.path == "/" else service.status)
                self.send_header("Location", "/moved?a=b")
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        self.status = 200
        self.silent = False
        self.spoken = threading.Event()
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = False
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self) -> None:
        self.spoken.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    try:
        yield service
    finally:
        service.close()


def test_checks(executor: Executor, service: Service) -> None:
    """What they see is told when it changes, also that there is no answer; and it ends nothing."""
    agent = executor.start()
    http_check = {"type": "HTTP", "http": {"port": service.port, "path": "/"}, "timeout_seconds": 0.2}
    tcp_check = {"type": "TCP", "tcp": {"port": service.port}}
    command_check = {"type": "COMMAND", "command": {"command": {"value": "exit $(cat answer)"}}}
    agent.launch(
        _task("http", check=_SOON | http_check),
        _task("tcp", check=_SOON | tcp_check, health_check=_SOON | tcp_check),
        _task("command", "echo 3 >answer; exec sleep 1000", check=_SOON | command_check),
    )

    def seen(name: str, **status: Any) -> None:
        agent.status(name, "TASK_RUNNING", reason="REASON_TASK_CHECK_STATUS_UPDATED", check_status=status)

    assert agent.status("http", "TASK_RUNNING")["check_status"] == {"type": "HTTP", "http": {}}
    seen("http", type="HTTP", http={"status_code": 200})
    seen("tcp", type="TCP", tcp={"succeeded": True})
    seen("command", type="COMMAND", command={"exit_code": 3})
    agent.status("tcp", "TASK_RUNNING", reason="REASON_TASK_HEALTH_CHECK_STATUS_UPDATED", healthy=True)
    service.status = 404
    seen("http", type="HTTP", http={"status_code": 404})
    service.silent = True
    until(lambda: agent.updates["http"][-1]["check_status"] == {"type": "HTTP", "http": {}}, "no answer")
    service.close()
    seen("tcp", type="TCP", tcp={"succeeded": False})
    assert agent.status("tcp", "TASK_KILLED")["healthy"] is False
    assert executor.wait() == 0


# Where it is


def _copied(change: Callable[[Path], None]) -> subprocess.CompletedProcess[str]:
    """Ask whether another user can run a copy of the package."""
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        shutil.copytree(Path(portslice.__file__).parent, Path(place, "portslice"))
        change(Path(place))
        program = "import sys; sys.path[:0] = sys.argv[1:]; from portslice import executor as e; e.check_readable(7, 7)"
        words = [sys.executable, "-S", "-c", program, place]
        return subprocess.run(words, capture_output=True, text=True, check=False)


def test_a_program_that_others_cannot_read() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to be somebody else")
    open_to_all = _copied(lambda _: None)
    assert (open_to_all.returncode, open_to_all.stderr) == (0, "")
    closed = _copied(lambda place: place.chmod(0o700))
    assert "The default executor cannot be run by uid 7: " in closed.stderr
    assert "Install portslice and its Python where every user can read them" in closed.stderr


def test_an_environment_that_lacks_something(executor: Executor) -> None:
    executor.start(MESOS_FRAMEWORK_ID="")
    assert executor.wait() == 1
    assert "Expecting 'MESOS_FRAMEWORK_ID' to be set in the environment" in executor.log

"""The default executor in containers, on an agent of a genuine Apache Mesos 1.11.0 master: task groups, and command
tasks that are checked."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from portslice.demo.node import Node
from portslice.demo.testbed import HOST_ADDRESS
from tests.kernel import peer
from tests.kernel.waiting import until
from tests.mesos.cluster import genuine, joined, running
from tests.mesos.framework import Framework, scalar, task
from tests.mesos.master import AnyMaster

pytestmark = [pytest.mark.native, pytest.mark.timeout(600)]  # the first time Mesos is installed

_ECHO = """exec python3 -c '
import os, socket
server = socket.create_server(("", int(os.environ["PORT0"])))
while True:
    client = server.accept()[0]
    client.sendall(os.environ["MESOS_TASK_ID"].encode())
    client.close()
'"""
_ASK = """exec python3 -c '
import os, socket, time
while True:
    try:
        answer = socket.create_connection(("127.0.0.1", {port})).recv(100)
        break
    except ConnectionRefusedError:
        time.sleep(0.05)
server = socket.create_server(("", int(os.environ["PORT0"])))
while True:
    client = server.accept()[0]
    client.sendall(b"heard " + answer)
    client.close()
'"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[AnyMaster, Node]]:
    """A master and an agent of it on one host, which this module's tests share."""
    with joined(genuine()) as both:
        yield both


@pytest.fixture
def agent(cluster: tuple[AnyMaster, Node]) -> Node:
    return cluster[1]


@pytest.fixture
def framework(cluster: tuple[AnyMaster, Node]) -> Iterator[Framework]:
    """A framework; its executors end with it."""
    framework = Framework(cluster[0].bed, cluster[0].address, user="nobody")
    yield framework
    framework.tear_down()
    until(lambda: not running(cluster[1]), "end of its executors")


def _executor(name: str) -> dict[str, Any]:
    """The default executor, as a framework asks for it."""
    resources = [scalar("cpus", 0.1), scalar("mem", 64), scalar("disk", 32)]
    return {"type": "DEFAULT", "executor_id": {"value": name}, "resources": resources}


def _heard(agent: Node, port: int) -> bytes:
    """What is said at a port of the host to the world."""
    with peer.open_socket(agent.bed.world, "tcp", connect=(HOST_ADDRESS, port)) as client:
        return client.recv(100)


def test_a_group_shares_one_network(agent: Node, framework: Framework) -> None:
    """Its tasks talk over 127.0.0.1, their ports are one slice, and the world reaches both; the end of one is the
    other's."""
    server, client = task("server", _ECHO, (31010, 31010)), task("client", _ASK.format(port=31010), (31020, 31020))
    framework.launch_group(_executor("group"), server, client)
    for name in ("server", "client"):
        status = framework.status(name, "TASK_RUNNING")
        assert status["container_status"]["container_id"]["value"] == running(agent)["group"]["id"]
    assert running(agent)["group"]["ports"] == [[31010, 31010], [31020, 31020]]

    def answer() -> bytes | None:
        try:
            return _heard(agent, 31020)
        except ConnectionRefusedError:
            return None

    assert until(answer, "answer of the client") == b"heard server"
    assert _heard(agent, 31010) == b"server"
    (directory,) = Path(running(agent)["group"]["sandbox"]).glob("tasks/server")
    assert directory.owner() == "nobody"
    framework.kill("server")
    for name in ("server", "client"):
        framework.status(name, "TASK_KILLED")
        assert framework.states(name) == ["TASK_STARTING", "TASK_RUNNING", "TASK_KILLING", "TASK_KILLED"]
    until(lambda: "group" not in running(agent), "end of the executor")
    assert agent.client.container("group")["exit_status"] == 0


def test_a_group_survives_the_agent(agent: Node, framework: Framework) -> None:
    """What happens meanwhile is told, once."""
    ends = task("ends", "while ! test -e go; do sleep 0.05; done")
    framework.launch_group(_executor("group"), ends, task("stays", "exec sleep 1000"))
    for name in ("ends", "stays"):
        framework.status(name, "TASK_RUNNING")
    container = running(agent)["group"]
    agent.crash()
    Path(container["sandbox"], "tasks/ends/go").touch()
    agent.start()
    framework.status("ends", "TASK_FINISHED")
    assert framework.states("ends") == ["TASK_STARTING", "TASK_RUNNING", "TASK_FINISHED"]
    assert running(agent)["group"]["pid"] == container["pid"]
    framework.kill("stays")
    framework.status("stays", "TASK_KILLED")
    assert framework.states("stays") == ["TASK_STARTING", "TASK_RUNNING", "TASK_KILLING", "TASK_KILLED"]


def test_a_command_task_with_checks(agent: Node, framework: Framework) -> None:
    """Its executor has the names that Mesos gives to command tasks; its health is told, and is its end."""
    soon = {"delay_seconds": 0, "interval_seconds": 0.1, "grace_period_seconds": 0}
    health = {**soon, "type": "COMMAND", "command": {"value": "test ! -e ill"}, "consecutive_failures": 2}
    check = {**soon, "type": "TCP", "tcp": {"port": 31030}}
    framework.launch(task("job", _ECHO, (31030, 31030)) | {"health_check": health, "check": check})

    def told(**members: Any) -> dict[str, Any]:
        def found() -> dict[str, Any] | None:
            return next((each for each in framework.updates.get("job", []) if members.items() <= each.items()), None)

        return until(found, f"update with {members}")

    told(state="TASK_RUNNING", healthy=True, reason="REASON_TASK_HEALTH_CHECK_STATUS_UPDATED")
    status = told(check_status={"type": "TCP", "tcp": {"succeeded": True}})
    assert (status["reason"], status["executor_id"]) == ("REASON_TASK_CHECK_STATUS_UPDATED", {"value": "job"})
    (element,) = agent.get("/monitor/statistics")
    assert (element["executor_id"], element["source"]) == ("job", "job")
    assert element["executor_name"].startswith("Command Executor (Task: job) (Command: sh -c 'exec python3")
    (shown,) = (each for each in agent.get("/state")["frameworks"] if each["id"] == framework.id)
    (executor,) = shown["executors"]
    (shown,) = executor["tasks"]
    assert (shown["health_check"]["consecutive_failures"], shown["statuses"][-1]["healthy"]) == (2, True)
    Path(running(agent)["job"]["sandbox"], "ill").touch()
    assert framework.status("job", "TASK_KILLED")["healthy"] is False
    until(lambda: "job" not in running(agent), "end of the executor")


def test_a_task_that_takes_too_long(framework: Framework) -> None:
    framework.launch(task("long", "exec sleep 1000") | {"max_completion_time": {"nanoseconds": 300_000_000}})
    assert framework.status("long", "TASK_FAILED")["reason"] == "REASON_MAX_COMPLETION_TIME_REACHED"

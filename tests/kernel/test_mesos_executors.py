"""Executors of a framework's own on an agent of a genuine Apache Mesos 1.11.0 master, or of ours where that is not to be
had: their API, their tasks, their end, and who is taken for one."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from portslice.demo.node import Node
from portslice.demo.testbed import HOST_ADDRESS, testbed
from tests.kernel import peer
from tests.kernel.waiting import until
from tests.mesos import install
from tests.mesos.framework import Connection, Framework, port_ranges, scalar, task
from tests.mesos.master import Master

pytestmark = [pytest.mark.native, pytest.mark.timeout(600)]  # the first time Mesos is installed

ADDRESS = f"{HOST_ADDRESS}:5051"
OWN = [scalar("cpus", 0.1), scalar("mem", 64)]
_PROGRAM = Path(install.__file__).with_name("executor.py")


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[Master, Node]]:
    """A master and an agent of it on one host, which this module's tests share."""
    try:
        install.module(install.install())
    except install.Missing as missing:
        pytest.skip(str(missing))
    with testbed() as bed:
        master = Master(bed, HOST_ADDRESS, allocation_interval="100ms")
        master.start()
        patience = ("--executor_registration_timeout=5secs", "--executor_reregistration_timeout=5secs")
        agent = Node(bed, f"--master={master.address}", "--registration_backoff_factor=10ms", *patience)
        try:
            agent.start()
            until(master.agents, "agent of the master")
            yield master, agent
        finally:
            left = agent.cleanup()
    assert left == []


@pytest.fixture
def agent(cluster: tuple[Master, Node]) -> Node:
    return cluster[1]


@pytest.fixture
def framework(cluster: tuple[Master, Node]) -> Iterator[Framework]:
    """A framework; its executors end with it."""
    framework = Framework(cluster[0].bed, cluster[0].address)
    yield framework
    framework.tear_down()
    until(lambda: not _running(cluster[1]), "end of its executors")


@pytest.fixture(scope="module")
def program(cluster: tuple[Master, Node]) -> str:
    """The command of the tests' executor, where every user finds it."""
    directory = cluster[0].bed.directory
    return f"exec python3 {shutil.copy(_PROGRAM, directory / 'executor.py')}"


def _executor(name: str, command: str, **info: Any) -> dict[str, Any]:
    """An ExecutorInfo."""
    names = {"executor_id": {"value": name}, "name": f"The executor {name}", "source": "tests"}
    return {"type": "CUSTOM", **names, "command": {"value": command}, "resources": OWN, **info}


def _task(name: str, executor: dict[str, Any] | None, *ports: tuple[int, int]) -> dict[str, Any]:
    """A TaskInfo of an executor."""
    info = task(name, "", *ports)
    del info["command"]
    return info if executor is None else {**info, "executor": executor}


def _running(agent: Node) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in agent.client.containers() if each["state"] == "running"}


def _output(agent: Node, name: str) -> str:
    return (Path(agent.client.container(name)["sandbox"]) / "stdout").read_text()


def test_two_tasks_in_one_executor(agent: Node, framework: Framework, program: str) -> None:
    """One after the other, with both ports in the executor's slice while both live."""
    executor = _executor("two", program)
    status = framework.run(_task("first", executor, (31005, 31005)))
    container = _running(agent)["two"]
    assert status["executor_id"] == {"value": "two"}
    assert (status["source"], status["message"]) == ("SOURCE_EXECUTOR", "TASK_RUNNING of the tests")
    assert status["container_status"]["container_id"] == {"value": container["id"]}
    assert status["container_status"]["executor_pid"] == container["pid"]
    framework.run(_task("second", executor, (31007, 31008)))
    assert list(_running(agent)) == ["two"]
    (element,) = agent.get("/monitor/statistics")
    names = ("executor_id", "executor_name", "source")
    assert [element[name] for name in names] == ["two", "The executor two", "tests"]
    assert element["statistics"]["mem_limit_bytes"] == 128 << 20
    assert element["statistics"]["cpus_soft_limit"] == 0.12
    assert _running(agent)["two"]["ports"] == [[31005, 31005], [31007, 31008]]
    for name, port in (("first", 31005), ("second", 31008)):
        with peer.open_socket(agent.bed.world, "tcp", connect=(HOST_ADDRESS, port)) as client:
            assert client.recv(100) == name.encode()
    framework.tell("two", "finish first")
    assert framework.status("first", "TASK_FINISHED")["message"] == "TASK_FINISHED of the tests"
    until(lambda: _running(agent)["two"]["ports"] == [[31007, 31008]], "end of a task's ports")
    framework.kill("second")
    framework.status("second", "TASK_KILLED")
    assert framework.states("second") == ["TASK_RUNNING", "TASK_KILLED"]

"""Executors with processes on an agent of a genuine Apache Mesos 1.11.0 master, or of ours where that is not to be had:
their API, their tasks, their end, and who is taken for one."""

import base64
import http.client
import json
import os
import shutil
import signal
import socket
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from portslice.demo.node import Node
from portslice.demo.testbed import HOST_ADDRESS
from portslice.engines.mesos.executors import MAX_WAITING
from portslice.engines.mesos.schema import messages_pb2
from portslice.engines.mesos.schema.executor_pb2 import Call
from portslice.engines.mesos.schema.mesos_pb2 import TASK_FAILED, TASK_RUNNING, TaskStatus
from portslice.engines.mesos.schema.record_pb2 import TaskRecord
from tests.kernel import peer
from tests.kernel.calling import call_over_tcp
from tests.kernel.waiting import until
from tests.mesos import install
from tests.mesos.cluster import genuine_or_ours, joined, running
from tests.mesos.framework import Connection, Framework, scalar, send, task
from tests.mesos.master import AnyMaster, Master

pytestmark = [pytest.mark.native, pytest.mark.timeout(600)]  # the first time Mesos is installed

ADDRESS = f"{HOST_ADDRESS}:5051"
OWN = [scalar("cpus", 0.1), scalar("mem", 64)]
WITH_DISK = [*OWN, scalar("disk", 32)]  # a task group's has to have some
_GATE = "until test -e go; do sleep 0.05; done; "  # it subscribes when it may
_PROGRAM = Path(install.__file__).with_name("executor.py")


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[AnyMaster, Node]]:
    """A master and an agent of it on one host, which this module's tests share."""
    variables = '--executor_environment_variables={"FROM_THE_AGENT": "2"}'
    patience = ("--executor_registration_timeout=5secs", "--executor_reregistration_timeout=5secs")
    with joined(genuine_or_ours(), variables, *patience) as both:
        yield both


@pytest.fixture
def agent(cluster: tuple[AnyMaster, Node]) -> Node:
    return cluster[1]


@pytest.fixture
def framework(cluster: tuple[AnyMaster, Node]) -> Iterator[Framework]:
    """A framework; its executors end with it."""
    framework = Framework(cluster[0].bed, cluster[0].address)
    yield framework
    framework.tear_down()
    until(lambda: not running(cluster[1]), "end of its executors")


@pytest.fixture(scope="module")
def program(cluster: tuple[AnyMaster, Node]) -> str:
    """The command of the tests' executor, where every user finds it."""
    directory = cluster[0].bed.directory
    return f"exec python3 {shutil.copy(_PROGRAM, directory / 'executor.py')}"


def _executor(name: str, command: str | dict[str, Any], **info: Any) -> dict[str, Any]:
    """An ExecutorInfo."""
    names = {"executor_id": {"value": name}, "name": f"The executor {name}", "source": "tests"}
    words = {"value": command} if isinstance(command, str) else command
    return {"type": "CUSTOM", **names, "command": words, "resources": OWN, **info}


def _status(task_id: str, state: str) -> dict[str, Any]:
    """A TaskStatus as an executor sends it."""
    number = base64.b64encode(uuid.uuid4().bytes).decode()
    return {"task_id": {"value": task_id}, "state": state, "source": "SOURCE_EXECUTOR", "uuid": number}


def _task(name: str, executor: dict[str, Any] | None, *ports: tuple[int, int]) -> dict[str, Any]:
    """A TaskInfo of an executor."""
    info = task(name, "", *ports)
    del info["command"]
    return info if executor is None else {**info, "executor": executor}


def _open(agent: Node, *names: str) -> None:
    for name in names:
        (Path(running(agent)[name]["sandbox"]) / "go").touch()


def _output(agent: Node, name: str) -> str:
    return (Path(agent.client.container(name)["sandbox"]) / "stdout").read_text()


def _call(where: Path, call: dict[str, Any] | str, path: str = "/api/v1/executor", **headers: str) -> tuple[int, str]:
    """A call from a network namespace; status and text of the answer."""
    sent = {"Content-Type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    with closing(Connection(where, ADDRESS)) as connection:
        body = call.encode("latin1") if isinstance(call, str) else json.dumps(call).encode()
        connection.request("POST", path, body, sent)
        response = connection.getresponse()
        return response.status, response.read().decode()


def _operator(agent: Node, kind: str) -> dict[str, Any]:
    return dict(call_over_tcp(agent, kind).json[kind.lower()])


def _shown(agent: Node, framework: Framework) -> dict[str, Any]:
    """What /state says of the framework."""
    return next(each for each in agent.get("/state")["frameworks"] if each["id"] == framework.id)


# Tasks


def test_two_tasks_in_one_executor(agent: Node, framework: Framework, program: str) -> None:
    """One after the other, with both ports in the executor's slice while both live."""
    executor = _executor("two", program)
    status = framework.run(_task("first", executor, (31005, 31005)))
    container = running(agent)["two"]
    assert status["executor_id"] == {"value": "two"}
    assert (status["source"], status["message"]) == ("SOURCE_EXECUTOR", "TASK_RUNNING of the tests")
    assert status["container_status"]["container_id"] == {"value": container["id"]}
    assert status["container_status"]["executor_pid"] == container["pid"]
    framework.run(_task("second", executor, (31007, 31008)))
    assert list(running(agent)) == ["two"]
    (element,) = agent.get("/monitor/statistics")
    names = ("executor_id", "executor_name", "source")
    assert [element[name] for name in names] == ["two", "The executor two", "tests"]
    assert element["statistics"]["mem_limit_bytes"] == 128 << 20
    assert element["statistics"]["cpus_soft_limit"] == 0.12
    assert running(agent)["two"]["ports"] == [[31005, 31005], [31007, 31008]]
    for name, port in (("first", 31005), ("second", 31008)):
        with peer.open_socket(agent.bed.world, "tcp", connect=(HOST_ADDRESS, port)) as client:
            assert client.recv(100) == name.encode()
    (shown,) = _shown(agent, framework)["executors"]
    assert [shown[name] for name in ("id", "name", "source")] == ["two", "The executor two", "tests"]
    tasks = {each["id"]: each for each in shown["tasks"]}
    assert {name: each["executor_id"] for name, each in tasks.items()} == {"first": "two", "second": "two"}
    assert (shown["resources"]["mem"], tasks["first"]["resources"]["ports"]) == (128, "[31005-31005]")
    (info,) = (each["executor_info"] for each in _operator(agent, "GET_EXECUTORS")["executors"])
    assert info["resources"] == [{**each, "allocation_info": {"role": "*"}} for each in OWN]
    assert (info["executor_id"], info["name"]) == ({"value": "two"}, "The executor two")
    assert agent.get("/metrics/snapshot")["slave/tasks_running"] == 2
    framework.tell("two", "finish first")
    assert framework.status("first", "TASK_FINISHED")["message"] == "TASK_FINISHED of the tests"
    until(lambda: running(agent)["two"]["ports"] == [[31007, 31008]], "end of a task's ports")
    assert agent.statistics("two")["cpus_soft_limit"] == 0.11
    (shown,) = _shown(agent, framework)["executors"]
    assert [[each["id"] for each in shown[kind]] for kind in ("tasks", "completed_tasks")] == [["second"], ["first"]]
    framework.kill("second")
    framework.status("second", "TASK_KILLED")
    assert framework.states("second") == ["TASK_RUNNING", "TASK_KILLED"]


def test_a_task_group_is_delivered_as_one(agent: Node, framework: Framework, program: str) -> None:
    executor = _executor("group", program, resources=WITH_DISK)
    framework.launch_group(executor, _task("a", None, (31001, 31001)), _task("b", None))
    for name in ("a", "b"):
        assert framework.status(name, "TASK_RUNNING")["executor_id"] == {"value": "group"}
    assert _output(agent, "group").splitlines()[:2] == ["SUBSCRIBED", "LAUNCH_GROUP"]
    assert running(agent)["group"]["ports"] == [[31001, 31001]]
    for name in ("a", "b"):
        framework.kill(name)
        framework.status(name, "TASK_KILLED")


def test_messages_go_both_ways(framework: Framework, program: str) -> None:
    framework.run(_task("t", _executor("talker", program)))
    framework.tell("talker", "say h\u00e9")
    until(lambda: framework.messages == [("talker", "h\u00e9")], "message")


def test_the_environment(agent: Node, framework: Framework, program: str) -> None:
    """What Mesos gives an executor, with what its own command says."""
    command = {"value": f"env > env; {program}", "environment": {"variables": [{"name": "OWN", "value": "1"}]}}
    info = _executor("env", command, shutdown_grace_period={"nanoseconds": 1_500_000_000})
    framework.run(_task("t", info, (31003, 31003)))
    sandbox = running(agent)["env"]["sandbox"]
    environment = dict(line.split("=", 1) for line in (Path(sandbox) / "env").read_text().splitlines())
    wanted = {
        "LIBPROCESS_IP": HOST_ADDRESS,
        "LIBPROCESS_PORT": "0",
        "MESOS_AGENT_ENDPOINT": ADDRESS,
        "MESOS_ALLOCATION_ROLE": "*",
        "MESOS_CHECKPOINT": "1",
        "MESOS_DIRECTORY": sandbox,
        "MESOS_EXECUTOR_ID": "env",
        "MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD": "1500ms",
        "MESOS_FRAMEWORK_ID": framework.id,
        "MESOS_RECOVERY_TIMEOUT": "15mins",
        "MESOS_SANDBOX": sandbox,
        "MESOS_SLAVE_PID": f"slave(1)@{ADDRESS}",
        "MESOS_SUBSCRIPTION_BACKOFF_MAX": "5secs",
        "FROM_THE_AGENT": "2",
        "OWN": "1",
        "PORT0": "31003",
    }
    assert {name: environment.get(name) for name in wanted} == wanted


def test_what_is_not_delivered_is_killed_at_once(agent: Node, framework: Framework, program: str) -> None:
    """Of a task group all; and an executor that was never told of a task ends."""
    slow = _executor("slow", f"{_GATE}{program}", resources=WITH_DISK)
    framework.launch_group(slow, _task("a", None), _task("b", None))
    until(lambda: "slow" in running(agent), "executor")
    framework.kill("a")
    killed = framework.status("a", "TASK_KILLED")
    assert (killed["message"], killed["source"]) == ("Killed before delivery to the executor", "SOURCE_AGENT")
    text = "A task within the task group was killed before delivery to the executor"
    assert framework.status("b", "TASK_KILLED")["message"] == text
    _open(agent, "slow")
    until(lambda: framework.failures, "executor's end")
    assert _output(agent, "slow") == "SUBSCRIBED\nSHUTDOWN\n"


# The end


def test_tasks_end_with_their_executor(agent: Node, framework: Framework, program: str) -> None:
    executor = _executor("ends", program)
    for name in ("first", "second"):
        framework.run(_task(name, executor))
    framework.kill("first")
    framework.status("first", "TASK_KILLED")
    framework.tell("ends", "exit 3")
    failed = framework.status("second", "TASK_FAILED")
    wanted = ("SOURCE_AGENT", "REASON_EXECUTOR_TERMINATED", "Executor terminated")
    assert tuple(failed[name] for name in ("source", "reason", "message")) == wanted
    (failure,) = until(lambda: framework.failures, "word of the executor's end")
    assert (failure["executor_id"], failure["status"]) == ({"value": "ends"}, 3 << 8)
    assert framework.states("first") == ["TASK_RUNNING", "TASK_KILLED"]
    framework.run(_task("third", executor))  # by another one of the same id
    shown = _shown(agent, framework)
    tasks = {
        each["id"]: (each["executor_id"], kind)
        for kind in ("executors", "completed_executors")
        for one in shown[kind]
        for each in (*one["tasks"], *one["completed_tasks"])
    }
    where = {"first": "completed_executors", "second": "completed_executors", "third": "executors"}
    assert tasks == {name: ("ends", kind) for name, kind in where.items()}


def test_an_executor_is_shut_down(framework: Framework, program: str) -> None:
    """One goes when it is told to, another one after its grace period."""
    patience = {"shutdown_grace_period": {"nanoseconds": 100_000_000}}
    framework.run(_task("gentle", _executor("gentle", program)))
    framework.run(_task("stubborn", _executor("stubborn", f"export STUBBORN=1; {program}", **patience)))
    for name in ("gentle", "stubborn"):
        framework.shut_down(name)
        assert framework.status(name, "TASK_FAILED")["reason"] == "REASON_EXECUTOR_TERMINATED"
    until(lambda: len(framework.failures) == 2, "word of the executors' end")
    statuses = {each["executor_id"]["value"]: each["status"] for each in framework.failures}
    assert statuses == {"gentle": 0, "stubborn": 9}


def test_an_executor_that_does_not_subscribe(agent: Node, framework: Framework) -> None:
    framework.launch(_task("waits", _executor("mute", "exec sleep 1000")))
    failed = framework.status("waits", "TASK_FAILED")
    assert failed["reason"] == "REASON_EXECUTOR_REGISTRATION_TIMEOUT"
    assert failed["message"] == "Executor did not register within 5secs"
    assert running(agent) == {}


def test_what_cannot_be_launched(framework: Framework) -> None:
    framework.launch(_task("user", _executor("user", {"value": "true", "user": "nobody-else"})))
    assert "no user 'nobody-else'" in framework.status("user", "TASK_FAILED")["message"]
    framework.launch(_task("image", _executor("image", "true", container={"type": "MESOS"})))
    failed = framework.status("image", "TASK_FAILED")
    assert failed["reason"] == "REASON_CONTAINER_LAUNCH_FAILED"
    assert failed["message"].startswith("Failed to launch container: container images and volumes (ContainerInfo)")


def _run(
    master: AnyMaster,
    framework: Framework,
    port: int,
    executor: dict[str, Any],
    *,
    launch: bool,
    name: bytes = b"late",
) -> None:
    """Send an agent the master's message that runs the task `late`, of this name."""
    (slave,) = (each["id"] for each in master.agents() if each["port"] == port)
    stand_in = b"x" * len(name)  # not every name could be set
    ids = {"task_id": {"value": "late"}, "slave_id": {"value": slave}}
    run = messages_pb2.RunTaskMessage(
        framework={"user": "root", "name": "tests", "id": {"value": framework.id}, "checkpoint": True},
        task={"name": stand_in.decode(), **ids, "executor": executor},
        launch_executor=launch,
    ).SerializeToString()
    where = Connection(master.bed.host, f"{HOST_ADDRESS}:{port}")
    assert send(where, f"master@{master.address}", "RunTaskMessage", run.replace(stand_in, name))[0] == 202


def test_what_is_no_text(cluster: tuple[AnyMaster, Node], framework: Framework) -> None:
    """protobuf and Mesos' master let it through, ours does not; JSON could not tell it."""
    master, agent = cluster
    if isinstance(master, Master):
        spoilt = _task("late", _executor("e", "true")) | {"name": "no \udcff text"}
        framework.launch(spoilt)
    else:
        executor = {"executor_id": {"value": "e"}, "command": {"value": "true"}}
        _run(master, framework, 5051, executor, launch=True, name=b"no \xff text")
    assert framework.status("late", "TASK_ERROR")["message"] == "Task is invalid: not text, or not a number"
    agent.get("/state")
    assert running(agent) == {}


def test_a_port_that_a_later_task_cannot_have(agent: Node, framework: Framework, program: str) -> None:
    """Its executor and other tasks are none the worse for it."""
    executor = _executor("lives", program)
    framework.run(_task("first", executor))
    with peer.listen(agent.bed.host, "tcp", ("", 31040)):
        framework.launch(_task("bad", executor, (31040, 31040)), _task("good", executor, (31041, 31041)))
        failed = framework.status("bad", "TASK_FAILED")
        framework.status("good", "TASK_RUNNING")
    assert failed["reason"] == "REASON_CONTAINER_UPDATE_FAILED"
    assert failed["message"].startswith("Failed to update resources for container: ")
    assert running(agent)["lives"]["ports"] == [[31041, 31041]]
    framework.run(_task("better", executor, (31040, 31040)))


def test_without_port_mapping_there_are_no_executors(cluster: tuple[AnyMaster, Node], framework: Framework) -> None:
    """Nobody could tell who is one."""
    master, _ = cluster
    flags = (f"--master={master.address}", "--registration_backoff_factor=10ms", "--port=5052")
    isolation = ("--isolation=cgroups/cpu", "--resources=cpus:0.001;mem:1;disk:1")  # too little for an offer
    plain = Node(master.bed, *flags, *isolation, name="plain")
    plain.start()
    try:
        until(lambda: len(master.agents()) == 2, "second agent of the master")
        executor = {"executor_id": {"value": "e"}, "command": {"value": "sleep 1000"}}
        _run(master, framework, 5052, executor, launch=True)
        failed = framework.status("late", "TASK_FAILED")
        assert failed["message"].endswith("it needs --isolation=network/port_mapping")
        with closing(Connection(master.bed.host, f"{HOST_ADDRESS}:5052")) as connection:
            connection.request("POST", "/api/v1/executor", "{}", {"Content-Type": "application/json"})
            assert connection.getresponse().status == 403
    finally:
        assert plain.process is not None
        plain.process.send_signal(signal.SIGUSR1)  # so that the master knows one agent again
        assert plain.process.wait(60) == 0
        assert plain.agent("--recover=cleanup").returncode == 0


def test_a_task_for_an_executor_that_is_gone(
    cluster: tuple[AnyMaster, Node], framework: Framework, program: str
) -> None:
    """The master wants it to be run by the one that it knows."""
    framework.run(_task("t", _executor("other", program)))
    _run(cluster[0], framework, 5051, {"executor_id": {"value": "gone"}}, launch=False)
    lost = framework.status("late", "TASK_LOST")
    assert lost["reason"] == "REASON_EXECUTOR_TERMINATED"
    assert lost["message"] == "No executor is expected to launch and there is none running"


# Restarts


def test_executors_survive_agent_and_master(
    cluster: tuple[AnyMaster, Node], framework: Framework, program: str
) -> None:
    """And what they say meanwhile is not lost, nor heard twice."""
    master, agent = cluster
    executor = _executor("stays", program)
    framework.run(_task("done", executor))
    framework.kill("done")
    framework.status("done", "TASK_KILLED")
    for name in ("stays", "ends"):
        framework.run(_task(name, executor, (31010 + len(name), 31010 + len(name))))
    pid = running(agent)["stays"]["pid"]
    agent.crash()
    os.kill(pid, signal.SIGUSR1)  # to the executor: its task `ends` is over
    agent.start()
    framework.status("ends", "TASK_FINISHED")
    assert framework.states("ends") == ["TASK_RUNNING", "TASK_FINISHED"]
    assert framework.reconcile("stays") == "TASK_RUNNING"
    assert running(agent)["stays"]["pid"] == pid
    until(lambda: running(agent)["stays"]["ports"] == [[31015, 31015]], "end of a task's ports")
    (shown,) = _shown(agent, framework)["executors"]
    assert {each["id"] for each in shown["completed_tasks"]} == {"done", "ends"}
    master.stop()
    master.start()
    until(master.agents, "agent of the master")
    framework.launch(_task("later", executor), _task("done", executor))  # the master knows the executor from its agent
    for name, states in {"later": ["TASK_RUNNING"], "done": ["TASK_RUNNING", "TASK_KILLED", "TASK_RUNNING"]}.items():
        until(lambda name=name, states=states: framework.states(name) == states, "task")  # type: ignore[misc]
    assert running(agent).keys() == {"stays"}
    framework.kill("stays")
    framework.status("stays", "TASK_KILLED")
    assert framework.states("stays") == ["TASK_RUNNING", "TASK_KILLED"]


def test_what_is_queued_survives_the_agent(agent: Node, framework: Framework, program: str) -> None:
    """A task group as a whole or not at all, where the agent ended while it wrote down that one was delivered, or had
    come."""
    for name, members in {"slow": ("a", "b"), "torn": ("c", "d")}.items():
        executor = _executor(name, f"{_GATE}{program}", resources=WITH_DISK)
        framework.launch_group(executor, *(_task(each, None) for each in members))
    until(lambda: running(agent).keys() == {"slow", "torn"}, "executors")
    agent.crash()
    paths = {path.name: path for path in agent.directory.glob("work/meta/slaves/latest/tasks/*/*")}
    record = TaskRecord.FromString(paths["a"].read_bytes())
    record.delivered = True
    paths["a"].write_bytes(record.SerializeToString())
    paths["d"].unlink()
    agent.start()
    _open(agent, "slow", "torn")
    for name in ("a", "b"):
        framework.status(name, "TASK_RUNNING")
    assert _output(agent, "slow").splitlines()[:2] == ["SUBSCRIBED", "LAUNCH_GROUP"]
    dropped = framework.status("c", "TASK_DROPPED")
    assert dropped["message"] == "The agent restarted before the task was launched"
    assert framework.status("d", "TASK_DROPPED")["message"] == "Reconciliation: task unknown to the agent"
    until(lambda: running(agent).keys() == {"slow"}, "end of the executor that has no tasks")


def test_executors_that_do_not_come_back(agent: Node, framework: Framework, program: str) -> None:
    """One does not subscribe again, another one ends while there is no agent."""
    framework.run(_task("silent", _executor("silent", program)))
    framework.run(_task("dead", _executor("dead", program)))
    framework.tell("silent", "leave")
    until(lambda: "MESSAGE" in _output(agent, "silent"), "message")
    pid = running(agent)["dead"]["pid"]
    agent.crash()
    os.kill(pid, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{pid}").exists(), "end of an executor")
    agent.start()
    dead = framework.status("dead", "TASK_FAILED")
    assert (dead["message"], dead["reason"]) == ("Executor terminated", "REASON_EXECUTOR_TERMINATED")
    silent = framework.status("silent", "TASK_FAILED")
    assert silent["message"] == "Executor did not reregister within 5secs"
    assert silent["reason"] == "REASON_EXECUTOR_REREGISTRATION_TIMEOUT"


def test_executors_without_checkpoint_end_with_the_agent(cluster: tuple[AnyMaster, Node], program: str) -> None:
    master, agent = cluster
    forgetful = Framework(master.bed, master.address, checkpoint=False)
    forgetful.run(_task("gone", _executor("forgotten", program)))
    agent.crash()
    forgetful.status("gone", "TASK_LOST")
    agent.start()
    until(master.agents, "agent of the master")
    until(lambda: not running(agent), "end of the executor")
    forgetful.tear_down()


# Who is taken for an executor


def test_only_its_container_is_an_executor(agent: Node, framework: Framework, program: str) -> None:
    """Not the host, not the world, not another container, whatever port it takes."""
    framework.run(_task("victim", _executor("victim", program)))
    framework.run(_task("other", _executor("other", program)))
    agent.launch("own", ports="31020-31020")
    containers = running(agent)
    inside = {name: agent.namespace(each) for name, each in containers.items()}
    who = {"framework_id": {"value": framework.id}, "executor_id": {"value": "victim"}}
    update = {"type": "UPDATE", **who, "update": {"status": _status("victim", "TASK_FAILED")}}
    subscribe = {"type": "SUBSCRIBE", **who, "subscribe": {}}
    outside = "Executors call from inside their containers, and "
    stranger = "Only the container of executor 'victim' may call in its name, and this is "
    for forged in (update, subscribe, {"type": "MESSAGE", **who, "message": {"data": "aGk="}}):
        for where, text in (
            (agent.bed.host, outside),
            (agent.bed.world, outside),
            (inside["other"], stranger + "'other'"),
            (inside["own"], stranger + "'own'"),
        ):
            code, answer = _call(where, forged)
            assert (code, answer.startswith(text)) == (403, True), answer
    # From an assigned port, too, and over the loopback.
    for port, target in ((31020, HOST_ADDRESS), (0, "127.0.0.1")):
        with peer.open_socket(inside["own"], "tcp", bind=("", port), connect=(target, 5051)) as client:
            assert _answer(client, update).startswith(b"HTTP/1.1 403 ")
    with peer.open_socket(agent.bed.host, "tcp", connect=("127.0.0.1", 5051)) as client:
        assert _answer(client, update).startswith(b"HTTP/1.1 403 ")
    assert framework.states("victim") == ["TASK_RUNNING"]
    assert framework.messages == []
    agent.kill("own")
    with peer.open_socket(inside["victim"], "tcp", connect=("127.0.0.1", 5051)) as client:
        assert _answer(client, update).startswith(b"HTTP/1.1 202 ")
    assert framework.status("victim", "TASK_FAILED")["source"] == "SOURCE_EXECUTOR"


def test_a_port_that_changes_hands_takes_no_connection_with_it(
    agent: Node, framework: Framework, program: str
) -> None:
    """What was sent before and is read afterwards is not of the port's new owner."""
    giver = _executor("giver", "exec sleep 1000", shutdown_grace_period={"nanoseconds": 1_000_000})
    framework.launch(_task("gives", giver, (31030, 31030)))
    until(lambda: "giver" in running(agent), "executor")
    inside = agent.namespace(running(agent)["giver"])

    def call(name: str, kind: str, **body: Any) -> bytes:
        ids = {"framework_id": {"value": framework.id}, "executor_id": {"value": name}}
        return _request({"type": kind, **ids, **body})

    def update(state: str) -> bytes:
        return call("giver", "UPDATE", update={"status": _status("gives", state)})

    with (
        peer.open_socket(inside, "tcp", connect=(HOST_ADDRESS, 5051)) as first,
        peer.open_socket(inside, "tcp", bind=("", 31030), connect=(HOST_ADDRESS, 5051)) as giving,
        peer.open_socket(inside, "tcp", connect=(HOST_ADDRESS, 5051)) as last,
        peer.open_socket(inside, "tcp", connect=(HOST_ADDRESS, 5051)) as updates,
    ):
        first.sendall(call("giver", "SUBSCRIBE", subscribe={}))
        _until_heard(first, b"LAUNCH")
        updates.sendall(update("TASK_RUNNING"))
        framework.status("gives", "TASK_RUNNING")
        forged = call("taker", "MESSAGE", message={"data": "aGk="})
        giving.sendall(call("giver", "SUBSCRIBE", subscribe={}) + forged)
        _until_heard(giving, b"SUBSCRIBED")
        updates.sendall(update("TASK_FINISHED"))
        framework.status("gives", "TASK_FINISHED")
        until(lambda: not running(agent)["giver"]["ports"], "end of the port")
        framework.run(_task("takes", _executor("taker", program), (31030, 31030)))
        # The other subscription ends then, and what was sent behind it is read.
        last.sendall(call("giver", "SUBSCRIBE", subscribe={}))
        _until_heard(last, b"SUBSCRIBED")
    framework.tell("taker", "say after all")
    until(lambda: framework.messages, "message")
    assert framework.messages == [("taker", "after all")]


def _request(call: dict[str, Any]) -> bytes:
    """A call as it is sent."""
    body = json.dumps(call).encode()
    head = "POST /api/v1/executor HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def _answer(client: socket.socket, call: dict[str, Any]) -> bytes:
    client.sendall(_request(call))
    return client.recv(1 << 16)


def _until_heard(client: socket.socket, word: bytes) -> None:
    heard = b""
    while word not in heard:
        heard += client.recv(1 << 16)


def test_bad_calls_have_mesos_answers(agent: Node, framework: Framework, program: str) -> None:
    framework.run(_task("t", _executor("asks", program)))
    inside = agent.namespace(running(agent)["asks"])
    who = {"framework_id": {"value": framework.id}, "executor_id": {"value": "asks"}}
    long = "x" * (64 << 10)
    status = _status("t", "TASK_RUNNING")
    invalid = "Failed to validate Executor::Call: "
    mine = f"executor asks of framework {framework.id}"

    def update(**changes: Any) -> dict[str, Any]:
        said = {name: value for name, value in {**status, **changes}.items() if value is not None}
        return {"type": "UPDATE", **who, "update": {"status": said}}

    nobody = "Failed to convert JSON into Call protobuf: Missing required fields: executor_id, framework_id"
    bad: tuple[tuple[dict[str, Any] | str, str], ...] = (
        ("nope", "Failed to parse body into JSON: syntax error at line 1 near: nope"),
        ({"type": "SUBSCRIBE"}, nobody),
        (who, f"{invalid}Expecting 'type' to be present"),
        ({**who, "type": "NONSENSE"}, f"{invalid}Expecting 'type' to be present"),
        ({**who, "type": "SUBSCRIBE"}, f"{invalid}Expecting 'subscribe' to be present"),
        ({**who, "type": "UPDATE"}, f"{invalid}Expecting 'update' to be present"),
        ({**who, "type": "MESSAGE"}, f"{invalid}Expecting 'message' to be present"),
        (update(uuid=None), f"{invalid}Expecting 'uuid' to be present"),
        (update(uuid=base64.b64encode(bytes(16)).decode()), f"{invalid}Not a valid UUID"),
        (update(message=long), f"{invalid}A TaskStatus of 65567 bytes is longer than the 65536 that are taken"),
        (update(source=None), f"{invalid}Received Call from {mine} with invalid source, expecting 'SOURCE_EXECUTOR'"),
        (update(state="TASK_STAGING"), f"{invalid}Received TASK_STAGING from {mine} which is not allowed"),
        (
            update(executor_id={"value": "x"}),
            f"{invalid}ExecutorID in Call: asks does not match ExecutorID in TaskStatus: x",
        ),
        ({**who, "type": "HEARTBEAT", "executor_id": {"value": "x"}}, "Executor cannot be found"),
        ({**who, "type": "HEARTBEAT", "framework_id": {"value": "x"}}, "Framework cannot be found"),
    )
    for call, answer in bad:
        assert _call(inside, call) == (400, answer)
    kinds = "application/json or application/x-protobuf"
    assert _call(inside, who, Content_Type="text/plain") == (415, f"Expecting 'Content-Type' of {kinds}")
    subscribe = {**who, "type": "SUBSCRIBE", "subscribe": {}}
    assert _call(inside, subscribe, Accept="text/html") == (406, f"Expecting 'Accept' to allow {kinds}")
    for path in ("/api/v1/executor", "/slave(1)/api/v1/executor"):
        assert _call(inside, {**who, "type": "HEARTBEAT", "unknown": None}, path) == (202, "")
    packed = Call(framework_id=who["framework_id"], executor_id=who["executor_id"], type=Call.HEARTBEAT)
    packed.type, packed.update.status.uuid = Call.UPDATE, uuid.uuid4().bytes
    packed.update.status.task_id.value, packed.update.status.source = "t", TaskStatus.SOURCE_EXECUTOR
    packed.update.status.state, packed.update.status.message = TASK_RUNNING, "no text"
    spoilt = packed.SerializeToString().replace(b"no text", b"\xff\xfe text")
    for call, headers in (
        (update(timestamp=float("inf")), {}),
        (spoilt.decode("latin1"), {"Content_Type": "application/x-protobuf"}),
    ):
        assert _call(inside, call, **headers)[0] == 400
    packed.ClearField("update")
    packed.type = Call.HEARTBEAT
    assert _call(inside, packed.SerializeToString().decode(), Content_Type="application/x-protobuf") == (202, "")
    assert framework.states("t") == ["TASK_RUNNING"]


def test_no_executor_takes_the_agent_from_its_master(
    cluster: tuple[AnyMaster, Node], framework: Framework, program: str
) -> None:
    """By messages that the master does not take."""
    master, agent = cluster
    framework.run(_task("t", _executor("floods", program)))
    inside = agent.namespace(running(agent)["floods"])
    who = {"framework_id": {"value": framework.id}, "executor_id": {"value": "floods"}}
    master.pause()
    for _ in range(48):
        assert _call(inside, {"type": "MESSAGE", **who, "message": {"data": "A" * (1 << 20)}}) == (202, "")
    master.resume()
    assert "Dropping a message of the executor 'floods'" in agent.log
    assert "takes no messages" not in agent.log
    framework.kill("t")
    framework.status("t", "TASK_KILLED")


def test_an_executor_fetches_and_is_limited(agent: Node, framework: Framework, program: str) -> None:
    """What its command names is there before it starts; and its tasks fail for what it takes too much of."""
    command = {"value": "exec python3 executor.py", "uris": [{"value": program.removeprefix("exec python3 ")}]}
    framework.run(_task("t", _executor("fetches", command)))
    assert (Path(running(agent)["fetches"]["sandbox"]) / "executor.py").exists()
    framework.tell("fetches", "eat")
    failed = framework.status("t", "TASK_FAILED")
    assert (failed["reason"], failed["source"]) == ("REASON_CONTAINER_LIMITATION_MEMORY", "SOURCE_AGENT")
    assert failed["message"].startswith("Memory limit exceeded: Requested: 96MB ")
    assert failed["limitation"]["resources"][0]["name"] == "mem"


def test_no_executor_keeps_the_agent_to_itself(cluster: tuple[AnyMaster, Node], framework: Framework) -> None:
    """By a call that tells of more than anybody hears of."""
    master, agent = cluster
    framework.launch(_task("t", _executor("tells", "exec sleep 1000")))
    until(lambda: "tells" in running(agent), "executor")
    inside = agent.namespace(running(agent)["tells"])
    call = Call(type=Call.SUBSCRIBE, framework_id={"value": framework.id}, executor_id={"value": "tells"})
    headers = {"Content-Type": "application/x-protobuf", "Accept": "application/json"}

    def subscribe(connection: Connection) -> http.client.HTTPResponse:
        connection.request("POST", "/api/v1/executor", call.SerializeToString(), headers)
        return connection.getresponse()

    with closing(Connection(inside, ADDRESS)) as connection:
        call.subscribe.SetInParent()
        _read_until(subscribe(connection), b"LAUNCH")
        for state in (*[TASK_RUNNING] * 10 * MAX_WAITING, TASK_FAILED):
            said = TaskStatus(task_id={"value": "t"}, state=state, source=TaskStatus.SOURCE_EXECUTOR)
            said.uuid = uuid.uuid4().bytes
            call.subscribe.unacknowledged_updates.add(status=said)
        master.pause()  # nobody acknowledges
        try:
            with closing(Connection(inside, ADDRESS)) as again:
                response = subscribe(again)
                while "Not taking an update of the task 't'" not in agent.log:
                    agent.get("/version")
                heard = _read_until(response, base64.b64encode(said.uuid))
        finally:
            master.resume()
    assert heard.count(b'"ACKNOWLEDGED"') == MAX_WAITING + 1
    assert agent.log.count("Not taking an update of the task 't'") < 100


def _read_until(response: http.client.HTTPResponse, word: bytes) -> bytes:
    heard = b""
    while word not in heard:
        heard += (more := response.read1())
        assert more, "the stream has ended"
    return heard

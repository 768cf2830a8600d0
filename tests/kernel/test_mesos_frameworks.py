"""Real frameworks, unchanged, run a task in its slice on a genuine Apache Mesos 1.11.0 master and on one of ours:
mesoshttp and pymesos of PyPI, and mesos-go of Debian. And executors on their libraries."""

import shlex
from collections.abc import Iterator
from typing import Any

import pytest

from portslice.demo.node import Node
from portslice.demo.testbed import HOST_ADDRESS
from tests.kernel.waiting import until
from tests.mesos.cluster import genuine, joined
from tests.mesos.framework import Framework, scalar, task
from tests.mesos.master import AnyMaster, Master
from tests.mesos.own import OwnMaster
from tests.mesos.program import command, started

pytestmark = [pytest.mark.native, pytest.mark.timeout(600)]  # the first time they are installed

PORT = 31003
SERVER = "echo {} > page; exec python3 -m http.server $PORT0"


@pytest.fixture(scope="module", params=(Master, OwnMaster), ids=("genuine", "own"))
def cluster(request: pytest.FixtureRequest) -> Iterator[tuple[AnyMaster, Node]]:
    """A master, and an agent of it."""
    kind = genuine() if request.param is Master else OwnMaster
    with joined(kind, "--executor_reregistration_timeout=15secs") as both:
        yield both


def _page(agent: Node) -> str:
    """What the world reads from the task's port."""
    curl = ("curl", "-sS", "--retry", "20", "--retry-connrefused", "--retry-delay", "1")
    return agent.bed.run(agent.bed.world, *curl, f"http://{HOST_ADDRESS}:{PORT}/page").stdout


@pytest.mark.parametrize(
    ("library", "name", "words"),
    [
        ("mesoshttp", "mesoshttp", ()),
        ("pymesos", "pymesos", ()),
        ("mesos_go", "mesos_go_json", ("application/json",)),
        ("mesos_go", "mesos_go_protobuf", ("application/x-protobuf",)),
    ],
    ids=("mesoshttp", "pymesos", "mesos_go-json", "mesos_go-protobuf"),
)
def test_a_task_of_a_real_framework(
    cluster: tuple[AnyMaster, Node], library: str, name: str, words: tuple[str, ...]
) -> None:
    """It serves the world from its slice, is measured, survives the agent where the framework asks for that (mesoshttp
    never does), and is killed."""
    master, agent = cluster
    bed = master.bed

    def acknowledged() -> float:
        return float(master.get("/../metrics/snapshot")["master/valid_status_update_acknowledgements"])

    def packets() -> dict[str, Any]:
        return {key: value for key, value in agent.statistics(name).items() if key.endswith("x_packets")}

    so_far = acknowledged()
    arguments = (master.address, name, str(PORT), SERVER.format(name), *words)
    with started(bed, bed.host, library, *arguments) as framework:
        assert [framework.state(), framework.state()] == ["TASK_STARTING", "TASK_RUNNING"]
        container = agent.client.container(name)
        assert container["ports"] == [[PORT, PORT]]
        assert _page(agent) == f"{name}\n"
        before = packets()
        assert _page(agent) == f"{name}\n"
        assert all(packets()[key] > before[key] > 0 for key in ("net_rx_packets", "net_tx_packets"))
        if library != "mesoshttp":
            agent.crash()
            agent.start()
            until(lambda: agent.get("/metrics/snapshot")["slave/registered"] == 1, "registration")
            assert agent.client.container(name)["pid"] == container["pid"]
            assert _page(agent) == f"{name}\n"
        framework.kill()  # it has no TASK_KILLING_STATE
        assert framework.state() == "TASK_KILLED"
    until(lambda: acknowledged() >= so_far + 3, "acknowledgements")  # more, where an update has come twice

    def completed() -> bool:
        return name in {each["name"] for each in master.get("/state")["completed_frameworks"]}

    until(completed, "end of the framework")


@pytest.mark.parametrize("library", ["pymesos", "mesos_go"])
def test_a_real_executor(cluster: tuple[AnyMaster, Node], library: str) -> None:
    """It runs a task, talks with its framework, survives the agent, and ends."""
    master, agent = cluster
    framework = Framework(master.bed, master.address)
    info = {
        "type": "CUSTOM",
        "executor_id": {"value": library},
        "command": {"value": "exec " + shlex.join(command(library, "executor"))},
        "resources": [scalar("cpus", 0.1), scalar("mem", 64)],
    }
    ports = task("waits", "", (PORT, PORT))
    del ports["command"]
    status = framework.run(ports | {"executor": info})
    assert (status["source"], status["executor_id"]) == ("SOURCE_EXECUTOR", {"value": library})
    container = agent.client.container(library)
    assert container["ports"] == [[PORT, PORT]]
    framework.tell(library, "hello")
    until(lambda: framework.messages == [(library, "hello")], "answer")
    agent.crash()
    agent.start()

    def answered() -> bool:
        framework.tell(library, "again")  # which one that is not subscribed again does not hear
        return (library, "again") in framework.messages

    until(answered, "answer")
    assert agent.client.container(library)["pid"] == container["pid"]
    assert agent.statistics(library)["net_tx_packets"] > 0
    framework.kill("waits")
    framework.status("waits", "TASK_KILLED")
    assert framework.states("waits") == ["TASK_RUNNING", "TASK_KILLED"]
    framework.shut_down(library)
    until(lambda: agent.client.container(library)["state"] == "exited", "end of the executor")
    (failure,) = until(lambda: framework.failures, "word of the executor's end")
    assert failure["executor_id"] == {"value": library}
    framework.tear_down()

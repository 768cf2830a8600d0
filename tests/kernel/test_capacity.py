"""Many containers at once on one host, each with a block of 32 ports: every one is reached, has a slot of its own, and
takes nothing from the others when it ends.

All are launched by an agent, with all that a container has. One takes a tenth of a second to come and go, and a second
on the emulated machine, so there are fewer here than fit; `script/bench capacity` does it with 1,000. What they leave
behind is looked for when the module's agent is cleaned up after (portslice.demo.node).
"""

import os
import resource
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from portslice.demo.node import Node, node
from portslice.demo.testbed import HOST_ADDRESS, WORLD_ADDRESS, Testbed, testbed
from portslice.network.dataplane import SLOTS, DataPlane, Slot
from portslice.ports import PortRange, PortSet
from tests.kernel import peer
from tests.kernel.conftest import HAS_FQ_CODEL

pytestmark = pytest.mark.alone

# script/vm says where this is. More than an agent keeps on record of those that have ended, where there is time for it.
CONTAINERS = 12 if os.environ.get("container") == "portslice-vm" else 160  # noqa: SIM112
FLAGS = (
    "--resources=ephemeral_ports:[6144-38911];ports:[38912-40959]",
    "--ephemeral_ports_per_container=32",
    *(["--egress_unique_flow_per_container"] if HAS_FQ_CODEL else []),
)
_PRIORITY = 1  # of filters, of which the tests attach none

Containers = list[dict[str, Any]]


@pytest.fixture(scope="module")
def agent() -> Iterator[Node]:
    with testbed() as bed, node(bed, *FLAGS) as started:
        yield started


@pytest.fixture(scope="module")
def containers(agent: Node) -> Containers:
    """All of them; each has an assigned port, too."""
    return [agent.launch(f"c{number}", ports=1) for number in range(CONTAINERS)]


@pytest.fixture(scope="module")
def plane(agent: Node) -> Iterator[DataPlane]:
    """The agent's maps."""
    with closing(DataPlane(agent.runtime / "bpf", _PRIORITY)) as opened:
        yield opened


def _open_slots(plane: DataPlane) -> dict[int, Slot]:
    return {number: slot for number in range(1, SLOTS) if (slot := plane.slot(number)) is not None}


def _port(container: Mapping[str, Any]) -> int:
    return int(container["ports"][0][0])


def _slice(container: Mapping[str, Any]) -> PortSet:
    return PortSet((PortRange(*container["ephemeral_ports"]), PortRange(*container["ports"][0])))


def test_each_has_a_slot_and_ports_of_its_own(containers: Containers, plane: DataPlane) -> None:
    slots = _open_slots(plane)
    assert len(slots) == CONTAINERS
    assert len({slot.ifindex for slot in slots.values()}) == CONTAINERS
    owned = sorted((plane.ports(number) for number in slots), key=lambda ports: ports.ranges)
    assert owned == sorted(map(_slice, containers), key=lambda ports: ports.ranges)
    assert sum(map(len, owned)) == 33 * CONTAINERS


@pytest.mark.usefixtures("fq_codel")
def test_each_has_a_flow_of_its_own(containers: Containers, plane: DataPlane) -> None:
    flows = {slot.priority for slot in _open_slots(plane).values()}
    assert len(flows) == CONTAINERS
    assert 0 not in flows


def test_each_is_reached_from_everywhere(agent: Node, containers: Containers) -> None:
    """By UDP from the world, from the host and from another container, whose chosen port is of its own block."""
    bed = agent.bed
    with peer.open_socket(bed.world, "udp") as world, peer.open_socket(bed.host, "udp") as host:
        for number, container in enumerate(containers):
            target = (HOST_ADDRESS, _port(container))
            neighbour = containers[number - 1]
            with (
                peer.listen(agent.namespace(container), "udp", ("", _port(container))) as server,
                peer.open_socket(agent.namespace(neighbour), "udp") as other,
            ):
                assert peer.talk_udp(server, world, target, 1000)[0] == WORLD_ADDRESS
                assert peer.talk_udp(server, host, target, 1000)[0] == HOST_ADDRESS
                address, port = peer.talk_udp(server, other, target, 1000)
                assert address == HOST_ADDRESS
                assert port in PortRange(*neighbour["ephemeral_ports"])


def test_each_answers_connections_and_makes_them(agent: Node, containers: Containers) -> None:
    """By TCP from the world, and to the world from a port of the container's block."""
    with peer.listen(agent.bed.world, "tcp", ("", 80)) as world:
        for container in containers:
            inside = agent.namespace(container)
            with (
                peer.listen(inside, "tcp", ("", _port(container))) as server,
                peer.open_socket(agent.bed.world, "tcp") as client,
                peer.open_socket(inside, "tcp") as own_client,
            ):
                peer.talk_tcp(server, client, (HOST_ADDRESS, _port(container)), 0)
                address, port = peer.talk_tcp(world, own_client, (WORLD_ADDRESS, 80), 0)
                assert address == HOST_ADDRESS
                assert port in PortRange(*container["ephemeral_ports"])


def test_each_is_in_the_statistics(agent: Node, containers: Containers) -> None:
    elements = {each["executor_id"]: each["statistics"] for each in agent.get("/monitor/statistics")}
    for container in containers:
        begin, end = container["ephemeral_ports"]
        assert elements[container["name"]]["net_ephemeral_ports"] == {"begin": begin, "end": end}


def test_none_keeps_the_others_namespaces(agent: Node, containers: Containers) -> None:
    """A mount namespace begins with copies of the host's mounts: of N containers' namespaces, N times."""
    kept = str(agent.runtime / "netns")
    for container in containers:
        assert kept not in Path(f"/proc/{container['pid']}/mountinfo").read_text()


def test_what_ends_gives_back_its_own_alone(agent: Node, containers: Containers, plane: DataPlane) -> None:
    """Some of them end: their ports are the host's, the others keep theirs; the next ones get what was given back."""
    ending, staying = containers[::20], [each for at, each in enumerate(containers) if at % 20]
    agent.kill(*(each["id"] for each in ending))
    slots = _open_slots(plane)
    assert len(slots) == len(staying)
    owned = PortSet(ports for number in slots for ports in plane.ports(number).ranges)
    assert owned == PortSet(ports for each in staying for ports in _slice(each).ranges)
    again = [agent.launch(f"again-{each['name']}", ports=1) for each in ending]
    assert [_slice(each) for each in again] == [_slice(each) for each in ending]
    _reach(agent, again[-1])
    _reach(agent, staying[-1])


def test_a_new_agent_finds_them_all(agent: Node, plane: DataPlane) -> None:
    """And repairs nothing, because nothing is wrong."""
    running = [(each["id"], each["ports"], each["ephemeral_ports"]) for each in agent.client.containers()]
    slots = _open_slots(plane)
    assert agent.stop() == 0
    agent.start()
    assert [(each["id"], each["ports"], each["ephemeral_ports"]) for each in agent.client.containers()] == running
    assert _open_slots(plane) == slots
    assert "Repaired" not in agent.log


@pytest.mark.native
def test_the_agent_opens_more_files_than_its_containers_may(bed: Testbed, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the hard limit for itself, and passes on the limits that it was started with."""
    limited = Node(bed)
    monkeypatch.setattr(Node, "command", ["prlimit", "--nofile=700:1200", *limited.command])
    with node(bed) as agent:
        assert agent.process is not None
        assert resource.prlimit(agent.process.pid, resource.RLIMIT_NOFILE) == (1200, 1200)
        container = agent.launch("limited")
        assert resource.prlimit(container["pid"], resource.RLIMIT_NOFILE) == (700, 1200)


def _reach(agent: Node, container: Mapping[str, Any]) -> None:
    inside: Path = agent.runtime / "netns" / str(container["id"])
    with (
        peer.listen(inside, "udp", ("", _port(container))) as server,
        peer.open_socket(agent.bed.world, "udp") as client,
    ):
        peer.talk_udp(server, client, (HOST_ADDRESS, _port(container)), 10)

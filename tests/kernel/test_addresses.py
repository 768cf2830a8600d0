"""Addresses that must not be believed: frames made by hand, from the wire and from inside a container.

Each refused frame is followed by a good one on the same way: when that has arrived, the refused one would have, too.
"""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from portslice.demo.node import Node
from portslice.demo.testbed import HOST_ADDRESS, NIC, WORLD_ADDRESS, Testbed
from tests.kernel import peer
from tests.kernel.frames import (
    BROADCAST,
    ETH_P_ARP,
    ETH_P_EXPERIMENTAL,
    ETH_P_IPV6,
    GRE,
    MORE_FRAGMENTS,
    RECORD_ROUTE,
    TCP,
    Frame,
    tagged,
)
from tests.kernel.waiting import until

WORLD_LINK = "world"
PORT, PORT_OF_TWO, UNOWNED = 31001, 31011, 7000
SUBNET_BROADCAST, LIMITED_BROADCAST, MULTICAST = "10.77.0.255", "255.255.255.255", "224.0.0.251"
MULTICAST_MAC = bytes.fromhex("01005e0000fb")
LATER_FRAGMENT = 185  # in units of 8 bytes: where a datagram goes on at an MTU of 1500


class Ground(NamedTuple):
    """One container, and raw access to both sides of its host."""

    node: Node
    container: Path
    wire: socket.socket
    """On the world's end of the wire."""
    inside: socket.socket
    """On the container's NIC."""
    mac: bytes
    """The host's, and so the container's."""

    def refused(self, reason: str) -> int:
        """Refused packets of all: containers and host."""
        return int(self.node.get("/metrics/snapshot")[f"port_mapping/drops/{reason}"])


def _mac(bed: Testbed, namespace: Path, interface: str) -> bytes:
    (link,) = json.loads(bed.run(namespace, "ip", "-json", "link", "show", interface).stdout)
    return bytes.fromhex(link["address"].replace(":", ""))


@pytest.fixture(scope="module")
def ground(shared_node: Node) -> Iterator[Ground]:
    """The container "one"; "two" is there to be mistaken for it."""
    bed = shared_node.bed
    container = shared_node.namespace(shared_node.launch("one", ports="31000-31009"))
    shared_node.launch("two", ports="31010-31019")
    with (
        peer.open_link(bed.world, WORLD_LINK) as wire,
        peer.open_link(container, NIC) as inside,
        # Whoever sends by hand has asked for no address: here the neighbours are made acquainted.
        peer.listen(bed.world, "udp", ("", UNOWNED)) as server,
        peer.open_socket(container, "udp") as client,
    ):
        peer.talk_udp(server, client, (WORLD_ADDRESS, UNOWNED), 10)
        yield Ground(shared_node, container, wire, inside, _mac(bed, bed.host, NIC))


# From the wire

GOOD_IN = Frame(WORLD_ADDRESS, HOST_ADDRESS, UNOWNED, PORT)

REFUSED_IN = {
    "loopback source": ("martian_source", replace(GOOD_IN, source="127.0.0.1")),
    "other loopback source": ("martian_source", replace(GOOD_IN, source="127.3.2.1")),
    "the host's own address as source": ("martian_source", replace(GOOD_IN, source=HOST_ADDRESS)),
    "own source, as if from a container": (
        "martian_source",
        replace(GOOD_IN, source=HOST_ADDRESS, source_port=PORT_OF_TWO),
    ),
    "multicast source": ("martian_source", replace(GOOD_IN, source=MULTICAST)),
    "limited broadcast source": ("martian_source", replace(GOOD_IN, source=LIMITED_BROADCAST)),
    "subnet broadcast source": ("martian_source", replace(GOOD_IN, source=SUBNET_BROADCAST)),
    "loopback source by TCP": ("martian_source", replace(GOOD_IN, source="127.0.0.1", protocol=TCP)),
    "loopback source in a later fragment": (
        "martian_source",
        replace(GOOD_IN, source="127.0.0.1", fragment=LATER_FRAGMENT),
    ),
    "loopback destination": ("martian_destination", replace(GOOD_IN, destination="127.0.0.1")),
    "loopback destination, nobody's port": (
        "martian_destination",
        replace(GOOD_IN, destination="127.0.0.1", destination_port=UNOWNED),
    ),
    "broadcast frame to the host's address": ("not_unicast", replace(GOOD_IN, mac=BROADCAST)),
    "multicast frame to the host's address": ("not_unicast", replace(GOOD_IN, mac=MULTICAST_MAC)),
    "limited broadcast": ("not_unicast", replace(GOOD_IN, destination=LIMITED_BROADCAST, mac=BROADCAST)),
    "subnet broadcast": ("not_unicast", replace(GOOD_IN, destination=SUBNET_BROADCAST, mac=BROADCAST)),
    "multicast": ("not_unicast", replace(GOOD_IN, destination=MULTICAST, mac=MULTICAST_MAC)),
    "multicast in a frame to the host": ("not_unicast", replace(GOOD_IN, destination=MULTICAST)),
    "subnet broadcast in a frame to the host": ("not_unicast", replace(GOOD_IN, destination=SUBNET_BROADCAST)),
}


def _to(ground: Ground, frame: Frame) -> Frame:
    """Filled in: the host's MAC address, unless the frame has another, and something to know it by."""
    return replace(frame, mac=ground.mac if frame.mac == bytes(6) else frame.mac, payload=os.urandom(32))


@pytest.fixture
def listeners(ground: Ground) -> Iterator[list[socket.socket]]:
    """Everybody who might get what is addressed to the container's port or to nobody's; the container first."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(peer.listen(place, "udp", ("", port)))
            for place, port in (
                (ground.container, PORT),
                (ground.node.bed.host, PORT),
                (ground.node.bed.host, UNOWNED),
            )
        ]


@pytest.mark.parametrize("case", REFUSED_IN)
def test_refused_from_the_wire(ground: Ground, listeners: list[socket.socket], case: str) -> None:
    reason, frame = REFUSED_IN[case]
    before = ground.refused(reason)
    ground.wire.send(bytes(_to(ground, frame)))
    until(lambda: ground.refused(reason) == before + 1, f"one {reason}")
    _assert_good_arrives(ground, listeners)


IGNORED_IN = {
    "to another host": replace(GOOD_IN, destination="10.77.0.3"),
    "frame to another host": replace(GOOD_IN, mac=bytes.fromhex("0200000000fd")),
    "later fragment of an unknown datagram": replace(GOOD_IN, fragment=LATER_FRAGMENT),
    "shorter than its ports": replace(GOOD_IN, cut=32 + 6),
    "shorter than its header": replace(GOOD_IN, cut=32 + 8 + 6),
    "header length below five": replace(GOOD_IN, header_words=4),
}


@pytest.mark.parametrize("case", IGNORED_IN)
def test_not_the_containers_from_the_wire(ground: Ground, listeners: list[socket.socket], case: str) -> None:
    """The host's own stack sees to it."""
    ground.wire.send(bytes(_to(ground, IGNORED_IN[case])))
    _assert_good_arrives(ground, listeners)


def test_options_move_the_ports(ground: Ground, listeners: list[socket.socket]) -> None:
    _assert_good_arrives(ground, listeners, replace(GOOD_IN, options=RECORD_ROUTE))


def _assert_good_arrives(ground: Ground, listeners: list[socket.socket], frame: Frame = GOOD_IN) -> None:
    good = _to(ground, frame)
    ground.wire.send(bytes(good))
    container, *others = listeners
    assert container.recv(2048) == good.payload
    for other in others:
        assert peer.is_silent(other)


# From inside

GOOD_OUT = Frame(HOST_ADDRESS, WORLD_ADDRESS, PORT, UNOWNED)

REFUSED_OUT = {
    "foreign source": ("foreign_source", replace(GOOD_OUT, source="8.8.8.8")),
    "the receiver's own address as source": ("foreign_source", replace(GOOD_OUT, source=WORLD_ADDRESS)),
    "no source": ("foreign_source", replace(GOOD_OUT, source="0.0.0.0")),
    "loopback source to the world": ("foreign_source", replace(GOOD_OUT, source="127.0.0.1")),
    "broadcast source": ("foreign_source", replace(GOOD_OUT, source=SUBNET_BROADCAST)),
    "foreign source to the host": ("foreign_source", replace(GOOD_OUT, source="8.8.8.8", destination=HOST_ADDRESS)),
    "foreign source in a later fragment": (
        "foreign_source",
        replace(GOOD_OUT, source="8.8.8.8", fragment=LATER_FRAGMENT),
    ),
    "multicast": ("not_unicast", replace(GOOD_OUT, destination=MULTICAST, mac=MULTICAST_MAC)),
    "limited broadcast": ("not_unicast", replace(GOOD_OUT, destination=LIMITED_BROADCAST, mac=BROADCAST)),
    "subnet broadcast": ("not_unicast", replace(GOOD_OUT, destination=SUBNET_BROADCAST, mac=BROADCAST)),
    "broadcast frame to the world's address": ("not_unicast", replace(GOOD_OUT, mac=BROADCAST)),
    "multicast frame to another container": (
        "not_unicast",
        replace(GOOD_OUT, destination=HOST_ADDRESS, destination_port=PORT_OF_TWO, mac=MULTICAST_MAC),
    ),
    "another container's port": ("foreign_port", replace(GOOD_OUT, source_port=PORT_OF_TWO)),
    "nobody's port by TCP": ("foreign_port", replace(GOOD_OUT, source_port=UNOWNED, protocol=TCP)),
    "nobody's port behind options": ("foreign_port", replace(GOOD_OUT, source_port=UNOWNED, options=RECORD_ROUTE)),
    "nobody's port in a first fragment": (
        "foreign_port",
        replace(GOOD_OUT, source_port=UNOWNED, fragment=MORE_FRAGMENTS),
    ),
    "later fragment of an unknown datagram": (
        "unknown_fragment",
        replace(GOOD_OUT, fragment=LATER_FRAGMENT, identification=4711),
    ),
    "a protocol without ports": ("protocol", replace(GOOD_OUT, protocol=GRE)),
    "shorter than its ports": ("malformed", replace(GOOD_OUT, cut=32 + 6)),
    "shorter than its header": ("malformed", replace(GOOD_OUT, cut=32 + 8 + 6)),
    "header length below five": ("malformed", replace(GOOD_OUT, header_words=4)),
    "header length beyond the packet": ("malformed", replace(GOOD_OUT, header_words=15, cut=32)),
    "ARP": ("neighbour", replace(GOOD_OUT, ethertype=ETH_P_ARP, mac=BROADCAST)),
    "IPv4 in a frame for IPv6": ("malformed", replace(GOOD_OUT, ethertype=ETH_P_IPV6)),
    "an ethertype of nobody's": ("not_ip", replace(GOOD_OUT, ethertype=ETH_P_EXPERIMENTAL)),
}


@pytest.mark.parametrize("case", [*REFUSED_OUT, "VLAN tag"])
def test_refused_from_inside(ground: Ground, case: str) -> None:
    reason, frame = REFUSED_OUT.get(case, ("not_ip", GOOD_OUT))
    bad = _to(ground, frame)
    before = ground.node.drops("one").get(reason, 0)
    ground.inside.send(tagged(bytes(bad)) if case == "VLAN tag" else bytes(bad))
    until(lambda: ground.node.drops("one").get(reason, 0) == before + 1, f"one {reason}")
    assert not any(bad.payload[:8] in frame for frame in _frames_until_good(ground))


def test_options_move_the_ports_on_the_way_out_too(ground: Ground) -> None:
    _frames_until_good(ground, replace(GOOD_OUT, options=RECORD_ROUTE))


def test_frames_leave_with_the_hosts_mac_address(ground: Ground) -> None:
    """Whatever the container writes there: the host's neighbours are asked again."""
    *_, last = _frames_until_good(ground, replace(GOOD_OUT, mac=bytes.fromhex("0200000000fd")))
    world = _mac(ground.node.bed, ground.node.bed.world, WORLD_LINK)
    assert last[:12] == world + ground.mac


def _frames_until_good(ground: Ground, frame: Frame = GOOD_OUT) -> list[bytes]:
    good = _to(ground, frame)
    ground.inside.send(bytes(good))
    return peer.sniff_until(ground.wire, good.payload)

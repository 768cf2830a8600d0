"""ICMP of both families with real stacks at all ends: errors find who sent what they are about, echoes who asked.

A router stands between the host and a far network here, with a smaller MTU behind it:

    far fd78::2, 10.78.0.2 ── (MTU 1300) ── world ── host

The far side is a namespace of its own; the world forwards.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from portslice.demo.node import Node
from portslice.demo.testbed import HOST_ADDRESS, HOST_ADDRESS_6, WORLD_ADDRESS, WORLD_ADDRESS_6, Testbed
from portslice.network import namespaces
from tests.kernel import peer
from tests.kernel.frames import Frame, checksum
from tests.kernel.waiting import until

PORT, PORT_OF_TWO, UNOWNED = 31001, 31011, 7000
FAR_MTU = 1300
IP_MTU, IPV6_MTU = 14, 24  # linux/in.h, linux/in6.h
IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, PMTUDISC_DO = 10, 23, 2
IP_RECVERR, IPV6_RECVERR = 11, 25
RARE = 0xBEEF  # an identifier that the kernel has not come to when it gives them out from 1 on
NO_ROUTE = os.strerror(errno.EHOSTUNREACH)


@dataclass(frozen=True)
class Ground:
    """All parties. `world` and `far` are addresses of the family under test."""

    node: Node
    one: Path
    two: Path
    six: bool

    @property
    def bed(self) -> Testbed:
        return self.node.bed

    @property
    def world(self) -> str:
        return WORLD_ADDRESS_6 if self.six else WORLD_ADDRESS

    @property
    def host(self) -> str:
        return HOST_ADDRESS_6 if self.six else HOST_ADDRESS

    @property
    def loopback(self) -> str:
        return "::1" if self.six else "127.0.0.1"

    @property
    def far(self) -> str:
        return "fd78::2" if self.six else "10.78.0.2"

    def refused(self, name: str, reason: str) -> int:
        return self.node.drops(name).get(reason, 0)


@pytest.fixture(scope="module")
def far(shared_node: Node) -> Iterator[Path]:
    """A namespace behind the world, with routes there and back."""
    bed = shared_node.bed
    namespace = bed.directory / "far"
    namespaces.create(namespace)
    try:
        bed.run(bed.world, *f"ip link add far mtu {FAR_MTU} type veth peer name near netns".split(), str(namespace))
        bed.run(namespace, "ip", "link", "set", "near", "mtu", str(FAR_MTU), "up")
        bed.run(bed.world, "ip", "link", "set", "far", "up")
        for network, length in (("10.78.0.", 24), ("fd78::", 64)):
            bed.run(bed.world, *f"ip address add {network}1/{length} dev far nodad".split())
            bed.run(namespace, *f"ip address add {network}2/{length} dev near nodad".split())
            # It asks for longer segments than fit its link, so that the router has something to complain about.
            bed.run(namespace, *f"ip route add default via {network}1 advmss 1440".split())
        bed.run(bed.world, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        yield namespace
    finally:
        bed.run(bed.world, "ip", "link", "del", "far", check=False)
        namespaces.remove(namespace)


@pytest.fixture(scope="module")
def containers(shared_node: Node, far: Path) -> tuple[Path, Path]:
    """The namespaces of "one" and "two"."""
    one = shared_node.namespace(shared_node.launch("one", ports="31000-31009"))
    return one, shared_node.namespace(shared_node.launch("two", ports="31010-31019"))


@pytest.fixture(params=["IPv4", "IPv6"])
def ground(shared_node: Node, containers: tuple[Path, Path], request: pytest.FixtureRequest) -> Ground:
    return Ground(shared_node, *containers, request.param == "IPv6")


# Refused ports: the error comes at once

REFUSED = (
    ("one", "world", "world", UNOWNED),
    ("one", "host", "host", UNOWNED),
    ("one", "host", "loopback", UNOWNED),
    ("one", "two", "host", PORT_OF_TWO),
    ("one", "two", "loopback", PORT_OF_TWO),
    ("one", "one", "host", PORT),
    ("one", "one", "loopback", PORT),
    ("host", "one", "host", PORT),
    ("host", "one", "loopback", PORT),
    ("world", "one", "host", PORT),
    ("world", "host", "host", UNOWNED),
)


@pytest.mark.parametrize(("client", "server", "address", "port"), REFUSED)
def test_a_refused_datagram_is_reported_to_its_sender(
    ground: Ground, client: str, server: str, address: str, port: int
) -> None:
    """Port unreachable, to a connected UDP socket; nobody else's socket hears of it."""
    places = {"one": ground.one, "two": ground.two, "host": ground.bed.host, "world": ground.bed.world}
    target = getattr(ground, address), port
    with peer.open_socket(places[client], "udp", connect=target) as asking:
        asking.send(b"anybody?")
        with pytest.raises(ConnectionRefusedError):
            asking.recv(1)


def test_path_mtu_is_discovered_by_who_sent(ground: Ground, far: Path) -> None:
    """A hop with a smaller MTU tells the container, and neither the other one nor the host learns it."""
    with (
        peer.listen(far, "tcp", ("::" if ground.six else "", UNOWNED)) as server,
        peer.open_socket(ground.one, "tcp", bind=("::" if ground.six else "", 0)) as client,
    ):
        peer.talk_tcp(server, client, (ground.far, UNOWNED), 1 << 20)
        assert _path_mtu(client, ground.six) == FAR_MTU
    for ignorant in (ground.two, ground.bed.host):
        with peer.open_socket(ignorant, "udp", connect=(ground.far, UNOWNED)) as client:
            assert _path_mtu(client, ground.six) == 1500


def test_path_mtu_of_datagrams(ground: Ground, far: Path) -> None:
    """Told to two, which did not know so far."""
    with (
        peer.listen(far, "udp", ("::" if ground.six else "", UNOWNED)) as server,
        peer.open_socket(ground.two, "udp", connect=(ground.far, UNOWNED)) as client,
    ):
        level, option = _discover(ground.six)
        client.setsockopt(level, option, PMTUDISC_DO)
        client.send(bytes(1400))  # lost, but reported
        until(lambda: _path_mtu(client, ground.six) == FAR_MTU, f"path MTU of {FAR_MTU}")
        _clear_error(client)
        with pytest.raises(OSError, match="Message too long"):
            client.send(bytes(1400))
        client.send(bytes(1000))
        assert len(server.recv(2000)) == 1000


def _want_all_errors(opened: socket.socket, six: bool) -> None:
    """Those too that UDP keeps to itself otherwise, since they may pass (icmp_err_convert)."""
    if six:
        opened.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
    else:
        opened.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)


def _discover(six: bool) -> tuple[int, int]:
    return (socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER) if six else (socket.IPPROTO_IP, IP_MTU_DISCOVER)


def _path_mtu(connected: socket.socket, six: bool) -> int:
    if six:
        return int(connected.getsockopt(socket.IPPROTO_IPV6, IPV6_MTU))
    return int(connected.getsockopt(socket.IPPROTO_IP, IP_MTU))


def _clear_error(connected: socket.socket) -> None:
    connected.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def test_time_exceeded_reaches_the_sender(ground: Ground) -> None:
    """What traceroute sees: a TTL of 1 ends at the world."""
    with peer.open_socket(ground.one, "udp", connect=(ground.far, UNOWNED)) as client:
        _want_all_errors(client, ground.six)
        if ground.six:
            client.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 1)
        else:
            client.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)
        client.send(b"how far?")
        with pytest.raises(OSError, match=NO_ROUTE):
            client.recv(1)


# Echo


@pytest.mark.parametrize("size", [56, 3000])
def test_ping_by_both_kinds_of_sockets(ground: Ground, size: int) -> None:
    """Mesos' ContainerICMPExternal. ping takes the unprivileged kind of socket; the raw kind is done by hand below."""
    targets = (ground.world, ground.far) if size == 56 else (ground.world,)
    for target in targets:
        result = ground.bed.run(ground.one, "ping", "-c2", "-i0.2", "-W20", f"-s{size}", target)
        assert "2 received" in result.stdout
        assert "DUP" not in result.stdout


def _echo_socket(namespace: Path, six: bool, kind: socket.SocketKind) -> socket.socket:
    with namespaces.entered(namespace):
        opened = (
            socket.socket(socket.AF_INET6, kind, socket.IPPROTO_ICMPV6)
            if six
            else socket.socket(socket.AF_INET, kind, socket.IPPROTO_ICMP)
        )
    opened.settimeout(peer.TIMEOUT_SECS)
    return opened


def _request(six: bool, identifier: int, sequence: int, data: bytes) -> bytes:
    message = struct.pack("!BBHHH", 128 if six else 8, 0, 0, identifier, sequence) + data
    return message[:2] + struct.pack("!H", 0 if six else checksum(message)) + message[4:]


def _payload(opened: socket.socket, six: bool, kind: socket.SocketKind) -> bytes:
    """The data of the next echo reply; a raw IPv4 socket sees the IP header, and raw ones all kinds of messages."""
    while True:
        message = opened.recv(4096)
        if kind == socket.SOCK_RAW and not six:
            message = message[20:]
        if message[0] == (129 if six else 0):
            return message[8:]


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_RAW], ids=["ping", "raw"])
def test_an_echo_reply_comes_back_only_to_who_asked(ground: Ground, kind: socket.SocketKind) -> None:
    """Raw sockets see every reply in their namespace: two's and the host's see none of one's."""
    with (
        _echo_socket(ground.one, ground.six, kind) as asking,
        _echo_socket(ground.two, ground.six, socket.SOCK_RAW) as other,
        _echo_socket(ground.bed.host, ground.six, socket.SOCK_RAW) as host,
    ):
        for sequence in range(5):
            data = f"request {sequence} of one".encode()
            asking.sendto(_request(ground.six, 4242, sequence, data), (ground.world, 0))
            assert _payload(asking, ground.six, kind) == data
        # A marker each, so that silence is not mistaken for slowness.
        for opened, sequence in ((other, 77), (host, 78)):
            opened.sendto(_request(ground.six, 4242, sequence, b"marker"), (ground.world, 0))
            assert _payload(opened, ground.six, socket.SOCK_RAW) == b"marker"


def test_equal_requests_are_not_confused(ground: Ground) -> None:
    """Same peer, identifier and sequence number: the second is refused and counted while the first may be answered."""
    with (
        _echo_socket(ground.one, ground.six, socket.SOCK_RAW) as one,
        _echo_socket(ground.two, ground.six, socket.SOCK_RAW) as two,
    ):
        before = ground.refused("two", "echo_clash")
        one.sendto(_request(ground.six, RARE, 1, b"one's"), (ground.world, 0))
        two.sendto(_request(ground.six, RARE, 1, b"two's"), (ground.world, 0))
        assert _payload(one, ground.six, socket.SOCK_RAW) == b"one's"
        until(lambda: ground.refused("two", "echo_clash") == before + 1, "one echo_clash")
        two.sendto(_request(ground.six, RARE, 2, b"another"), (ground.world, 0))
        assert _payload(two, ground.six, socket.SOCK_RAW) == b"another"


def test_the_host_answers_the_world_once(ground: Ground) -> None:
    result = ground.bed.run(ground.bed.world, "ping", "-c3", "-i0.2", "-W20", ground.host)
    assert "3 received" in result.stdout
    assert "DUP" not in result.stdout
    assert "duplicates" not in result.stdout


@pytest.mark.parametrize("address", ["loopback", "host"])
def test_a_container_answers_itself(ground: Ground, address: str) -> None:
    """Mesos' ContainerICMPInternal."""
    result = ground.bed.run(ground.one, "ping", "-c1", "-W20", getattr(ground, address))
    assert "1 received" in result.stdout


# Forgeries


def test_a_forged_error_does_not_leave(ground: Ground) -> None:
    """About a packet to another's port: the world's connection to two does not hear of it."""
    kind = 1 if ground.six else 3
    with (
        _echo_socket(ground.one, ground.six, socket.SOCK_RAW) as forger,
        peer.listen(ground.two, "udp", ("::" if ground.six else "", PORT_OF_TWO)) as server,
        peer.open_socket(ground.bed.world, "udp", connect=(ground.host, PORT_OF_TWO)) as client,
    ):
        quoted = _quoted(ground, client.getsockname()[1], PORT_OF_TWO)
        message = struct.pack("!BBHI", kind, 4 if ground.six else 3, 0, 0) + quoted
        if not ground.six:
            message = message[:2] + struct.pack("!H", checksum(message)) + message[4:]
        before = ground.refused("one", "foreign_icmp")
        forger.sendto(message, (ground.world, 0))
        until(lambda: ground.refused("one", "foreign_icmp") == before + 1, "one foreign_icmp")
        client.send(b"still there?")
        assert server.recv(100) == b"still there?"


def _quoted(ground: Ground, source_port: int, port: int) -> bytes:
    return Frame(ground.world, ground.host, source_port, port, bytes(8)).packet


def test_a_dead_neighbour_is_reported(ground: Ground) -> None:
    """The host finds out that nobody has the address, and says so."""
    absent = "fd77::99" if ground.six else "10.77.0.99"
    for family in ("ipv4", "ipv6"):
        ground.bed.run(ground.bed.host, "sysctl", "-qw", f"net.{family}.neigh.eth0.retrans_time_ms=50")
    with peer.open_socket(ground.one, "udp", connect=(absent, UNOWNED)) as client:
        _want_all_errors(client, ground.six)
        client.send(b"hello?")
        with pytest.raises(OSError, match=NO_ROUTE):
            client.recv(1)

"""The host's own network as the containers see it: several NICs, addresses that come and go, routes that lead nowhere,
and what `--no-ipv6` and `--no-host_loopback` close.

    world 10.77.0.1 ── eth0 host eth1 10.79.0.2, fd79::2 ── (MTU 1400) ── second 10.79.0.1, fd79::1
"""

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from portslice.demo.node import Node, node
from portslice.demo.testbed import HOST_ADDRESS, HOST_ADDRESS_6, WORLD_ADDRESS, WORLD_ADDRESS_6, Testbed, testbed
from portslice.network import namespaces
from tests.kernel import peer
from tests.kernel.waiting import until

ONE, TWO, UNOWNED = 31001, 31011, 7000
SECOND_MTU = 1400
SECOND = {4: ("10.79.0.1", "10.79.0.2", 24), 6: ("fd79::1", "fd79::2", 64)}
IP_MTU, IPV6_MTU, IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, PMTUDISC_DO = 14, 24, 10, 23, 2
IP_RECVERR, IPV6_RECVERR = 11, 25

Places = dict[str, Path]


@pytest.fixture(scope="module")
def second_nic() -> Iterator[tuple[Testbed, Path]]:
    """A host with a second NIC, and what is behind it."""
    with testbed() as bed:
        namespace = bed.directory / "second"
        namespaces.create(namespace)
        try:
            link = f"ip link add eth1 mtu {SECOND_MTU} type veth peer name second netns {namespace}"
            bed.run(bed.host, *link.split())
            bed.run(namespace, "ip", "link", "set", "lo", "up")
            bed.run(bed.host, "ip", "link", "set", "eth1", "up")
            bed.run(namespace, *f"ip link set second mtu {SECOND_MTU} up".split())
            for there, here, length in SECOND.values():
                bed.run(bed.host, *f"ip address add {here}/{length} dev eth1 nodad".split())
                bed.run(namespace, *f"ip address add {there}/{length} dev second nodad".split())
                bed.run(namespace, *f"ip route add default via {here}".split())
            yield bed, namespace
        finally:
            namespaces.remove(namespace)


@pytest.fixture(scope="module")
def multihomed(second_nic: tuple[Testbed, Path]) -> Iterator[tuple[Node, Places]]:
    bed, second = second_nic
    with node(bed, "--eth0_name=eth0,eth1") as agent:
        one = agent.namespace(agent.launch("one", ports="31000-31009"))
        yield agent, {"world": bed.world, "second": second, "host": bed.host, "one": one}


def _converse(server_place: Path, client_place: Path, address: str, port: int) -> None:
    everywhere = "::" if ":" in address else ""
    with (
        peer.listen(server_place, "tcp", (everywhere, port)) as tcp_server,
        peer.listen(server_place, "udp", (address if server_place != client_place else everywhere, port)) as udp_server,
        peer.open_socket(client_place, "tcp", bind=(everywhere, 0)) as tcp_client,
        peer.open_socket(client_place, "udp", bind=(everywhere, 0)) as udp_client,
    ):
        peer.talk_tcp(tcp_server, tcp_client, (address, port), 100_000)
        peer.talk_udp(udp_server, udp_client, (address, port), 1000)


@pytest.mark.parametrize("version", [4, 6])
def test_every_nic_and_address_leads_to_the_container(multihomed: tuple[Node, Places], version: int) -> None:
    _, places = multihomed
    _, here, _ = SECOND[version]
    for client in ("second", "host"):
        _converse(places["one"], places[client], here, ONE)
    _converse(places["one"], places["world"], HOST_ADDRESS if version == 4 else HOST_ADDRESS_6, ONE)


@pytest.mark.parametrize("version", [4, 6])
def test_the_hosts_routes_decide_the_way_out(multihomed: tuple[Node, Places], version: int) -> None:
    """By interface, and past it by a rule of the host's (ip-rule(8))."""
    agent, places = multihomed
    there, _, _ = SECOND[version]
    _converse(places["second"], places["one"], there, UNOWNED)
    behind = "10.80.0.1" if version == 4 else "fd80::1"
    length = 32 if version == 4 else 128
    agent.bed.run(places["second"], *f"ip address add {behind}/{length} dev lo".split())
    agent.bed.run(places["host"], *f"ip -{version} route add {behind}/{length} via {there} table 100".split())
    agent.bed.run(places["host"], *f"ip -{version} rule add to {behind}/{length} table 100".split())
    _converse(places["second"], places["one"], behind, UNOWNED)


@pytest.mark.parametrize("version", [4, 6])
def test_a_nic_with_a_smaller_mtu_is_told_to_the_sender(multihomed: tuple[Node, Places], version: int) -> None:
    agent, places = multihomed
    there, _, _ = SECOND[version]
    level = socket.IPPROTO_IP if version == 4 else socket.IPPROTO_IPV6
    name = f"new-{version}"  # one that has not been told yet
    with (
        peer.listen(places["second"], "udp", ("" if version == 4 else "::", UNOWNED)) as server,
        peer.open_socket(agent.namespace(agent.launch(name)), "udp", connect=(there, UNOWNED)) as client,
    ):
        client.setsockopt(level, IP_MTU_DISCOVER if version == 4 else IPV6_MTU_DISCOVER, PMTUDISC_DO)
        client.send(bytes(1450 - 48))
        mtu = IP_MTU if version == 4 else IPV6_MTU
        until(lambda: client.getsockopt(level, mtu) == SECOND_MTU, f"path MTU {SECOND_MTU}")
        assert agent.drops(name)["too_big"] == 1
        client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        client.setsockopt(level, IP_MTU_DISCOVER if version == 4 else IPV6_MTU_DISCOVER, 1)  # fragment
        client.send(bytes(1450 - 48))
        assert len(server.recv(2000)) == 1450 - 48


ROUTES = {"unreachable": errno.EHOSTUNREACH, "prohibit": errno.EACCES, "blackhole": None}


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("kind", ROUTES)
def test_what_cannot_be_routed_is_an_error(multihomed: tuple[Node, Places], version: int, kind: str) -> None:
    agent, places = multihomed
    index = list(ROUTES).index(kind)
    target = f"10.99.{index}.1" if version == 4 else f"fd99:{index}::1"
    agent.bed.run(places["host"], *f"ip -{version} route add {kind} {target}".split())
    before = agent.drops("one").get("unroutable", 0)
    with peer.open_socket(places["one"], "udp", connect=(target, UNOWNED)) as client:
        if version == 4:
            client.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        else:
            client.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
        client.send(b"anybody?")
        until(lambda: agent.drops("one").get("unroutable", 0) == before + 1, "one unroutable")
        if kind == "blackhole":
            assert peer.is_silent(client)
        else:
            # ICMPv4's "filtered" is EHOSTUNREACH (icmp_err_convert), ICMPv6's "prohibited" EACCES.
            with pytest.raises(OSError, match=f"{os.strerror(errno.EHOSTUNREACH)}|{os.strerror(errno.EACCES)}"):
                client.recv(1)


@pytest.mark.parametrize("version", [4, 6])
def test_addresses_come_and_go_while_containers_run(multihomed: tuple[Node, Places], version: int) -> None:
    agent, places = multihomed
    address, length = ("10.77.0.50", 24) if version == 4 else ("fd77::50", 64)

    def inside() -> bool:
        return address in agent.bed.run(places["one"], "ip", "-o", "address", "show").stdout

    change = f"dev eth0 {'nodad' if version == 6 else ''}".split()
    agent.bed.run(places["host"], "ip", "address", "add", f"{address}/{length}", *change)
    until(inside, f"{address} inside")
    for client in ("world", "host"):
        _converse(places["one"], places[client], address, ONE)
    agent.bed.run(places["host"], *f"ip address del {address}/{length} dev eth0".split())
    until(lambda: not inside(), f"no {address} inside")
    _converse(places["one"], places["world"], HOST_ADDRESS if version == 4 else HOST_ADDRESS_6, ONE)


def test_no_discovery_leaks(multihomed: tuple[Node, Places]) -> None:
    """A container asks for no routers and no neighbours, and its kernel reports no multicast groups."""
    agent, places = multihomed
    quiet = agent.namespace(agent.launch("quiet", ports="31020-31029"))
    with peer.open_socket(quiet, "udp", bind=("::", 0)) as speaker:
        speaker.sendto(b"to a neighbour that is not there", ("fd77::98", UNOWNED))
    _converse(places["world"], quiet, WORLD_ADDRESS_6, UNOWNED)

    def sent(kind: str) -> int:
        counters = agent.bed.run(quiet, "cat", "/proc/thread-self/net/snmp6").stdout.split()
        return int(counters[counters.index(f"Icmp6Out{kind}") + 1])

    assert [sent(kind) for kind in ("RouterSolicits", "NeighborSolicits", "MLDv2Reports")] == [0, 0, 0]
    assert agent.drops("quiet") == {}


def test_arping_is_answered(multihomed: tuple[Node, Places]) -> None:
    """Mesos' ContainerARPExternal: the host answers for the world."""
    agent, places = multihomed
    result = agent.bed.run(places["one"], *f"arping -f -w 20 -I eth0 {WORLD_ADDRESS}".split())
    assert "Received 1 response" in result.stdout


# What is closed


@pytest.fixture(scope="module")
def closed() -> Iterator[tuple[Node, Places]]:
    with testbed() as bed, node(bed, "--no-ipv6", "--no-host_loopback") as agent:
        one = agent.namespace(agent.launch("one", ports="31000-31009"))
        two = agent.namespace(agent.launch("two", ports="31010-31019"))
        yield agent, {"world": bed.world, "host": bed.host, "one": one, "two": two}


def test_without_ipv6_there_is_ipv4_only(closed: tuple[Node, Places]) -> None:
    agent, places = closed
    assert "inet6" not in agent.bed.run(places["one"], "ip", "address").stdout
    with (
        peer.listen(places["host"], "tcp", ("::", ONE)) as host,
        peer.open_socket(places["world"], "tcp", bind=("::", 0)) as client,
    ):
        peer.talk_tcp(host, client, (HOST_ADDRESS_6, ONE), 1000)  # IPv6 is the host's, all of it
    _converse(places["one"], places["world"], HOST_ADDRESS, ONE)


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_closed_loopback_hides_the_hosts_services(closed: tuple[Node, Places], protocol: str) -> None:
    agent, places = closed
    before = agent.drops("one").get("host_loopback", 0)
    with (
        peer.listen(places["host"], protocol, ("127.0.0.1", UNOWNED)) as service,
        peer.open_socket(places["one"], protocol) as client,
    ):
        client.setblocking(False)
        client.connect_ex(("127.0.0.1", UNOWNED))
        if protocol == "udp":
            client.send(b"let me in")
        until(lambda: agent.drops("one").get("host_loopback", 0) > before, "refusal")
        assert peer.is_silent(service)


def test_a_closed_loopback_is_open_for_what_the_host_begins(closed: tuple[Node, Places]) -> None:
    _, places = closed
    with (
        peer.listen(places["one"], "tcp", ("", ONE)) as server,
        peer.open_socket(places["host"], "tcp") as client,
    ):
        peer.talk_tcp(server, client, ("127.0.0.1", ONE), 100_000)
    with (
        peer.listen(places["one"], "udp", ("", ONE)) as server,
        peer.open_socket(places["host"], "udp", connect=("127.0.0.1", ONE)) as client,
    ):
        client.send(b"question")
        data, asker = server.recvfrom(100)
        server.sendto(data, asker)
        assert client.recv(100) == b"question"


def test_a_closed_loopback_leaves_containers_and_addresses(closed: tuple[Node, Places]) -> None:
    _, places = closed
    _converse(places["two"], places["one"], "127.0.0.1", TWO)
    _converse(places["host"], places["one"], HOST_ADDRESS, UNOWNED)

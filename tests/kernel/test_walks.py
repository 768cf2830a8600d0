"""Every way a packet may go between the world, the host and two containers, and those that it may not."""

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from portslice.demo.node import Node
from portslice.demo.testbed import HOST_ADDRESS, HOST_ADDRESS_6, WORLD_ADDRESS, WORLD_ADDRESS_6
from tests.kernel import peer
from tests.kernel.waiting import until

BULK = 4 << 20
DATAGRAMS = (1, 1000, 60_000)
LOOPBACK, LOOPBACK_6, RESOLVER = "127.0.0.1", "::1", "127.0.0.53"
ONE, TWO = 31001, 31011  # ports of the containers "one" and "two"
UNOWNED, PRIVATE = 7000, 9000

Places = dict[str, Path]


@pytest.fixture(scope="module")
def places(shared_node: Node) -> Places:
    """The namespaces of all parties, by name."""
    containers = {
        "one": shared_node.launch("one", ports="31000-31009"),
        "two": shared_node.launch("two", ports="31010-31019"),
    }
    inside = {name: shared_node.namespace(container) for name, container in containers.items()}
    return {"world": shared_node.bed.world, "host": shared_node.bed.host, **inside}


class Walk(NamedTuple):
    """A client, a server, and the address by which the one reaches the other."""

    client: str
    server: str
    address: str
    port: int
    seen: str
    """The client's address as the server sees it."""
    listens: str = ""
    """Where the server listens: everywhere, unless the answer would have another address."""

    def __str__(self) -> str:
        return f"{self.client}-{self.server}-{self.address}-{self.port}"


WALKS_4 = (
    Walk("world", "one", HOST_ADDRESS, ONE, seen=WORLD_ADDRESS),
    Walk("world", "host", HOST_ADDRESS, UNOWNED, seen=WORLD_ADDRESS),
    Walk("one", "world", WORLD_ADDRESS, UNOWNED, seen=HOST_ADDRESS),
    Walk("one", "world", WORLD_ADDRESS, TWO, seen=HOST_ADDRESS),  # a port of two's here, of nobody's there
    Walk("one", "two", HOST_ADDRESS, TWO, seen=HOST_ADDRESS),
    Walk("one", "two", LOOPBACK, TWO, seen=LOOPBACK),
    Walk("two", "one", HOST_ADDRESS, ONE, seen=HOST_ADDRESS),
    Walk("two", "one", LOOPBACK, ONE, seen=LOOPBACK),
    Walk("host", "one", HOST_ADDRESS, ONE, seen=HOST_ADDRESS),
    Walk("host", "one", LOOPBACK, ONE, seen=LOOPBACK),
    Walk("host", "one", "127.0.0.5", ONE, seen=LOOPBACK, listens="127.0.0.5"),
    Walk("one", "host", HOST_ADDRESS, UNOWNED, seen=HOST_ADDRESS),
    Walk("one", "host", LOOPBACK, UNOWNED, seen=LOOPBACK),
    Walk("one", "host", RESOLVER, 53, seen=LOOPBACK, listens=RESOLVER),
    Walk("one", "one", HOST_ADDRESS, ONE, seen=HOST_ADDRESS),
    Walk("one", "one", LOOPBACK, ONE, seen=LOOPBACK),
    Walk("one", "one", HOST_ADDRESS, PRIVATE, seen=HOST_ADDRESS),
    Walk("one", "one", LOOPBACK, PRIVATE, seen=LOOPBACK),
    Walk("host", "host", HOST_ADDRESS, UNOWNED, seen=HOST_ADDRESS),
    Walk("host", "host", LOOPBACK, UNOWNED, seen=LOOPBACK),
    Walk("host", "world", WORLD_ADDRESS, ONE, seen=HOST_ADDRESS),
)

SIXTH = {HOST_ADDRESS: HOST_ADDRESS_6, WORLD_ADDRESS: WORLD_ADDRESS_6, LOOPBACK: LOOPBACK_6}
"""An address of each kind for IPv6, which has one loopback address only."""


def _sixth(walk: Walk) -> Walk:
    return walk._replace(address=SIXTH[walk.address], seen=SIXTH[walk.seen], listens="::")


WALKS = (*WALKS_4, *(_sixth(walk) for walk in WALKS_4 if walk.address in SIXTH))


def _any(walk: Walk) -> tuple[str, int]:
    """Any address of the walk's family, and a port of the kernel's choice."""
    return ("::" if ":" in walk.address else "", 0)


def _has_sctp() -> bool:
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not _has_sctp(), reason="this kernel has no SCTP")
@pytest.mark.parametrize("walk", [walk for walk in WALKS if walk.port != PRIVATE], ids=str)
def test_sctp(places: Places, walk: Walk) -> None:
    """But for private ports: the programs cannot look up SCTP's sockets, so these are the host's from inside, too."""
    with (
        peer.listen(places[walk.server], "sctp", (walk.listens or walk.address, walk.port)) as server,
        peer.open_socket(places[walk.client], "sctp", bind=(walk.seen, 0)) as client,
    ):
        seen = peer.talk_tcp(server, client, (walk.address, walk.port), 1000)
        assert seen[1] == client.getsockname()[1]


@pytest.mark.parametrize("walk", WALKS, ids=str)
def test_tcp(places: Places, walk: Walk) -> None:
    with (
        peer.listen(places[walk.server], "tcp", (walk.listens, walk.port)) as server,
        peer.open_socket(places[walk.client], "tcp", bind=_any(walk)) as client,
    ):
        seen = peer.talk_tcp(server, client, (walk.address, walk.port), BULK)
        assert seen == (walk.seen, client.getsockname()[1])


@pytest.mark.parametrize("walk", WALKS, ids=str)
def test_udp(places: Places, walk: Walk) -> None:
    with (
        peer.listen(places[walk.server], "udp", (walk.listens, walk.port)) as server,
        peer.open_socket(places[walk.client], "udp", bind=_any(walk)) as client,
    ):
        for size in DATAGRAMS:
            seen = peer.talk_udp(server, client, (walk.address, walk.port), size)
            assert seen == (walk.seen, client.getsockname()[1])


OTHERS = (
    ("world", HOST_ADDRESS),
    ("host", HOST_ADDRESS),
    ("host", LOOPBACK),
    ("two", HOST_ADDRESS),
    ("two", LOOPBACK),
)


@pytest.mark.parametrize(("client", "address"), OTHERS)
def test_a_port_of_nobody_is_the_hosts(places: Places, client: str, address: str) -> None:
    """A container may listen where it likes; others reach it only in its slice."""
    target = address, PRIVATE
    with (
        peer.listen(places["one"], "tcp", ("", PRIVATE)) as private_tcp,
        peer.listen(places["one"], "udp", ("", PRIVATE)) as private_udp,
    ):
        with peer.open_socket(places[client], "tcp") as tcp:
            assert tcp.connect_ex(target) == errno.ECONNREFUSED
        with (
            peer.listen(places["host"], "tcp", ("", PRIVATE)) as host_tcp,
            peer.listen(places["host"], "udp", ("", PRIVATE)) as host_udp,
            peer.open_socket(places[client], "tcp") as tcp,
            peer.open_socket(places[client], "udp") as udp,
        ):
            peer.talk_tcp(host_tcp, tcp, target, 1)
            peer.talk_udp(host_udp, udp, target, 1)
        assert peer.is_silent(private_tcp)
        assert peer.is_silent(private_udp)


@pytest.mark.parametrize(
    ("client", "address", "port"),
    [
        ("world", HOST_ADDRESS, ONE),
        ("host", HOST_ADDRESS, ONE),
        ("host", LOOPBACK, ONE),
        ("two", HOST_ADDRESS, ONE),
        ("two", LOOPBACK, ONE),
        ("one", HOST_ADDRESS, ONE),
        ("one", LOOPBACK, ONE),
        ("one", HOST_ADDRESS, UNOWNED),
        ("one", LOOPBACK, UNOWNED),
    ],
)
def test_where_nobody_listens_the_owner_refuses(places: Places, client: str, address: str, port: int) -> None:
    with peer.open_socket(places[client], "tcp") as tcp:
        assert tcp.connect_ex((address, port)) == errno.ECONNREFUSED


def test_a_host_service_cannot_take_a_containers_port(places: Places) -> None:
    with (
        peer.listen(places["host"], "udp", ("", ONE)) as thief,
        peer.listen(places["one"], "udp", ("", ONE)) as owner,
        peer.open_socket(places["world"], "udp") as client,
    ):
        peer.talk_udp(owner, client, (HOST_ADDRESS, ONE), 100)
        assert peer.is_silent(thief)


# Ports that the kernel chooses


def _block(node: Node, name: str) -> range:
    begin, end = node.client.container(name)["ephemeral_ports"]
    return range(begin, end + 1)


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_chosen_ports_lie_in_the_block(shared_node: Node, places: Places, protocol: str) -> None:
    """By bind(0) and by connect, to anywhere."""
    with ExitStack() as stack:
        stack.enter_context(peer.listen(places["world"], protocol, ("", UNOWNED)))
        stack.enter_context(peer.listen(places["two"], protocol, ("", TWO)))
        for name in ("one", "two"):
            opened = [
                stack.enter_context(peer.open_socket(places[name], protocol, bind=bind, connect=connect))
                for bind, connect in (
                    (("", 0), None),
                    ((LOOPBACK, 0), None),
                    (None, (WORLD_ADDRESS, UNOWNED)),
                    (None, (LOOPBACK, TWO)),
                )
                for _ in range(100)
            ]
            chosen = [each.getsockname()[1] for each in opened]
            assert set(chosen) <= set(_block(shared_node, name))
            assert len(set(chosen)) >= 100


# Ports that are not the container's


class Theft(NamedTuple):
    """What a container may bind to, but not send from."""

    source: str
    port: int
    destination: str
    destination_port: int


THEFTS = (
    Theft(HOST_ADDRESS, 40000, WORLD_ADDRESS, UNOWNED),
    Theft(HOST_ADDRESS, TWO, WORLD_ADDRESS, UNOWNED),
    Theft(HOST_ADDRESS, UNOWNED, WORLD_ADDRESS, UNOWNED),
    Theft(HOST_ADDRESS, 65535, WORLD_ADDRESS, UNOWNED),
    Theft(HOST_ADDRESS, 40000, HOST_ADDRESS, TWO),
    Theft(LOOPBACK, 40000, LOOPBACK, TWO),
    Theft(HOST_ADDRESS, TWO, HOST_ADDRESS, UNOWNED),
    Theft(LOOPBACK, 53, LOOPBACK, UNOWNED),
)


@pytest.fixture
def targets(places: Places) -> Iterator[dict[tuple[str, int], socket.socket]]:
    """Who would get the stolen packets."""
    listeners = {
        (WORLD_ADDRESS, UNOWNED): "world",
        (HOST_ADDRESS, TWO): "two",
        (LOOPBACK, TWO): "two",
        (HOST_ADDRESS, UNOWNED): "host",
        (LOOPBACK, UNOWNED): "host",
    }
    with ExitStack() as stack:
        yield {
            address: stack.enter_context(peer.listen(places[place], "udp", address))
            for address, place in listeners.items()
        }


@pytest.mark.parametrize("theft", THEFTS)
def test_a_foreign_port_is_refused_and_counted(
    shared_node: Node, places: Places, targets: dict[tuple[str, int], socket.socket], theft: Theft
) -> None:
    target = theft.destination, theft.destination_port
    before = shared_node.drops("one").get("foreign_port", 0)
    with peer.open_socket(places["one"], "udp", bind=(theft.source, theft.port)) as thief:
        for _ in range(3):
            thief.sendto(b"stolen", target)
    with peer.open_socket(places["one"], "tcp", bind=(theft.source, theft.port)) as thief:
        thief.setblocking(False)
        assert thief.connect_ex(target) == errno.EINPROGRESS
        until(lambda: shared_node.drops("one").get("foreign_port", 0) >= before + 4, "four refusals")
    drops = shared_node.client.statistics("one")["drops"]
    (sample,) = (each for each in drops["samples"] if each["reason"] == "foreign_port")
    assert (sample["source"], sample["source_port"]) == (theft.source, theft.port)
    assert (sample["destination"], sample["destination_port"]) == target
    assert sample["protocol"] == socket.IPPROTO_TCP
    assert 0 <= sample["age_secs"] < 60
    assert shared_node.drops("two").get("foreign_port", 0) == 0
    with peer.open_socket(places["one"], "udp") as honest:
        peer.talk_udp(targets[target], honest, target, 10)  # the first that arrives is the honest one

"""net_ephemeral_ports_in_use, against ss(8) and sockets that are known."""

import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from portslice.demo.node import Node, node
from portslice.demo.testbed import WORLD_ADDRESS, WORLD_ADDRESS_6, testbed
from portslice.network import namespaces, port_use, sockdiag
from portslice.network.sockdiag import SockDiag
from portslice.ports import PortRange
from tests.kernel import peer
from tests.kernel.waiting import until

FIELD = "net_ephemeral_ports_in_use"
RESOURCES = "--resources=ephemeral_ports:[30001-30999];ports:[31000-32000]"
BLOCK = 16


@pytest.fixture(scope="module")
def shared_node() -> Iterator[Node]:
    """An agent with small blocks that counts often."""
    flags = (f"--ephemeral_ports_per_container={BLOCK}", "--network_port_statistics_interval=200ms")
    with testbed() as bed, node(bed, RESOURCES, *flags) as agent:
        yield agent


def shown(agent: Node, container: dict[str, Any]) -> set[int]:
    """The local ports of the block as ss shows them."""
    begin, end = container["ephemeral_ports"]
    lines = agent.bed.run(agent.namespace(container), "ss", "-Htuan").stdout.splitlines()
    ports = {int(re.sub(r".*:", "", line.split()[4])) for line in lines}
    return {port for port in ports if begin <= port <= end}


def test_ports_in_use_are_those_of_ss(agent: Node) -> None:
    container, other = agent.launch("c", ports="31000-31000"), agent.launch("other")
    namespace, (begin, end) = agent.namespace(container), container["ephemeral_ports"]

    def counted() -> int:
        """The figure, once it is that of ss."""
        until(lambda: agent.statistics("c").get(FIELD) == len(shown(agent, container)), "ss's figure")
        return len(shown(agent, container))

    assert counted() == 0
    with ExitStack() as stack:
        for address in (WORLD_ADDRESS, WORLD_ADDRESS_6):
            stack.enter_context(peer.listen(agent.bed.world, "tcp", (address, 7000)))
            for _ in range(2):
                stack.enter_context(peer.open_socket(namespace, "tcp", connect=(address, 7000)))
            stack.enter_context(peer.open_socket(namespace, "udp", connect=(address, 7000)))
        before = counted()
        assert 2 <= before <= 6, "a port may serve several protocols and families"
        # One port, whatever it is used for; and one of no concern, since it is not of the block.
        free = next(port for port in range(begin, end + 1) if port not in shown(agent, container))
        stack.enter_context(peer.listen(namespace, "tcp", ("127.0.0.1", free)))
        stack.enter_context(peer.listen(namespace, "tcp", ("127.0.0.2", free)))
        stack.enter_context(peer.listen(namespace, "udp", ("::1", free)))
        stack.enter_context(peer.listen(namespace, "tcp", ("127.0.0.1", 31000)))
        until(lambda: agent.statistics("c")[FIELD] == before + 1, "one more")
        assert type(agent.statistics("c")[FIELD]) is int
        with suppress(OSError):  # when no port is left
            for _ in range(BLOCK):
                stack.enter_context(peer.open_socket(namespace, "udp", connect=(WORLD_ADDRESS, 7001)))
        until(lambda: agent.statistics("c")[FIELD] == BLOCK, "a block that is used up")
        assert agent.statistics("other")[FIELD] == len(shown(agent, other)) == 0
        glance = {each["name"]: each for each in agent.get("/overview")}
        assert glance["c"]["ephemeral_ports_in_use"] == BLOCK
    until(lambda: agent.statistics("c")[FIELD] == 0, "free ports")
    # Who hangs up first keeps the port for a while.
    with peer.listen(agent.bed.world, "tcp", (WORLD_ADDRESS, 7002)) as listener:
        client = peer.open_socket(namespace, "tcp", connect=(WORLD_ADDRESS, 7002))
        server, _ = listener.accept()
        client.close()
        server.close()
    until(lambda: "TIME-WAIT" in agent.bed.run(namespace, "ss", "-Htan").stdout, "TIME_WAIT")
    assert counted() == 1


@pytest.mark.native
def test_nothing_is_said_of_who_ends_meanwhile(agent: Node) -> None:
    for _ in range(3):
        agent.launch("short")
        until(lambda: FIELD in agent.statistics("short"), "a count")
        agent.kill("short")
    assert "cannot be counted" not in agent.log
    assert "Failed to sample" not in agent.log


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Path]:
    """A network namespace without a socket."""
    path = tmp_path / "empty"
    namespaces.create(path)
    yield path
    namespaces.remove(path)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize(("protocol", "kind"), [("tcp", socket.SOCK_STREAM), ("udp", socket.SOCK_DGRAM)])
def test_both_ends_of_the_range_belong_to_it(empty: Path, family: int, protocol: str, kind: int) -> None:
    """What the kernel's filter takes, in one namespace and no other."""
    with ExitStack() as stack:
        for port in (1, 39_999, 40_000, 40_007, 40_015, 40_016, 65_535):
            with namespaces.entered(empty):
                opened = stack.enter_context(socket.socket(family, kind))
            opened.bind(("", port))
            if protocol == "tcp":
                opened.listen()

        def found(begin: int, end: int) -> list[int]:
            with SockDiag(empty) as diag:
                return sorted(diag.ports(protocol, PortRange(begin, end)))

        assert found(40_000, 40_015) == [40_000, 40_007, 40_015]
        assert found(0, 65_535) == [1, 39_999, 40_000, 40_007, 40_015, 40_016, 65_535]
        assert found(40_001, 40_006) == []
        assert found(65_535, 65_535) == [65_535]
        assert port_use.in_use(empty, PortRange(40_000, 40_015)) == 3


def test_sctp_counts_where_there_is_any(empty: Path) -> None:
    try:
        with namespaces.entered(empty):
            opened = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP)
    except OSError:
        pytest.skip("this kernel has no SCTP")
    with opened:
        opened.bind(("", 40_000))
        opened.listen()
        with namespaces.entered(empty):
            assert sockdiag.SCTP in sockdiag.protocols()
        assert port_use.in_use(empty, PortRange(40_000, 40_015)) == 1


@pytest.mark.native
def test_not_at_all_if_not_wanted(agent: Node) -> None:
    agent.launch("c")
    until(lambda: FIELD in agent.statistics("c"), "a count")
    agent.stop()
    flags = agent.flags
    try:
        agent.flags = [re.sub("(port_statistics_interval)=.*", r"\1=0ns", flag) for flag in flags]
        agent.start()
        assert FIELD not in agent.statistics("c")
        agent.stop()
    finally:
        agent.flags = flags
        agent.start()

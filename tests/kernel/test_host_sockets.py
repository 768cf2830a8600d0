"""The host's own sockets on the containers' ports: all are found, and none gets a container's port into trouble."""

import os
import platform
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from portslice.demo.node import Node, node
from portslice.demo.testbed import Testbed, testbed
from portslice.errors import PortsliceError
from portslice.network import namespaces, sockets
from portslice.network.sockets import HostSocket
from portslice.ports import PortRange, PortSet
from tests.kernel.peer import listen, open_socket
from tests.kernel.waiting import until

EVERY_PORT = PortSet((PortRange(0, 65535),))
ME = rf"[^,]+, pid {os.getpid()}"

TCP, UDP, UDPLITE = (
    (socket.SOCK_STREAM, 0),
    (socket.SOCK_DGRAM, 0),
    (socket.SOCK_DGRAM, socket.IPPROTO_UDPLITE),
)


@pytest.fixture(scope="module")
def ground() -> Iterator[Testbed]:
    """A host without an agent, whose sockets are a test's alone."""
    with testbed() as built:
        yield built


@pytest.fixture
def opened(ground: Testbed) -> Iterator[Callable[..., socket.socket]]:
    """Opens a socket on the host, until the test's end."""
    with ExitStack() as stack:

        def open_one(kind: tuple[int, int], family: int, port: int, *, waits: bool = True) -> socket.socket:
            with namespaces.entered(ground.host):
                made = stack.enter_context(socket.socket(family, *kind))
            if family == socket.AF_INET6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.bind(("", port))
            if waits and kind is TCP:
                made.listen()
            return made

        yield open_one


def held(bed: Testbed) -> list[tuple[str, int, bool]]:
    """(protocol, port, whether it waits) of the host's sockets."""
    with namespaces.entered(bed.host):
        return [(each.protocol, each.port, each.waits) for each in sockets.held(EVERY_PORT)]


def shown_by_ss(bed: Testbed) -> list[tuple[str, int]]:
    """The same by iproute2, which does not know UDP-Lite."""
    lines = bed.run(bed.host, "ss", "-Htuan").stdout.splitlines()
    rows = [line.split() for line in lines if "TIME-WAIT" not in line]
    return sorted((row[0], int(row[4].rpartition(":")[2])) for row in rows)


def test_every_kind_is_found(ground: Testbed, opened: Callable[..., socket.socket]) -> None:
    assert held(ground) == []
    for number, family in enumerate((socket.AF_INET, socket.AF_INET6)):
        opened(TCP, family, 1 + number)
        opened(UDP, family, 1 + number)
        opened(UDPLITE, family, 1 + number)
    opened(UDP, socket.AF_INET, 65535).connect(("10.77.0.1", 9))
    server = opened(TCP, socket.AF_INET, 31000)
    client = opened(TCP, socket.AF_INET, 31001, waits=False)
    client.connect(("127.0.0.1", 31000))
    accepted = server.accept()[0]
    expected = [
        *((protocol, port, True) for port in (1, 2) for protocol in ("tcp", "udp", "udplite")),
        ("tcp", 31000, False),
        ("tcp", 31000, True),
        ("tcp", 31001, False),
        ("udp", 65535, False),
    ]
    found = held(ground)
    assert sorted(found) == sorted(expected)
    assert sorted((protocol, port) for protocol, port, _ in found if protocol != "udplite") == shown_by_ss(ground)
    with namespaces.entered(ground.host):
        assert [each.port for each in sockets.held(PortSet.parse("2,31001-65534"))] == [2, 2, 2, 31001]
    with namespaces.entered(ground.world):
        assert sockets.held(EVERY_PORT) == []
    accepted.close()


def test_what_only_lingers_holds_nothing(ground: Testbed, opened: Callable[..., socket.socket]) -> None:
    """A closed connection is in FIN_WAIT2 as long as its peer is open, then in TIME_WAIT, without any process."""
    server = opened(TCP, socket.AF_INET, 30000)
    client = opened(TCP, socket.AF_INET, 30001, waits=False)
    client.connect(("127.0.0.1", 30000))
    with server.accept()[0] as connection:
        client.close()
        until(lambda: "FIN-WAIT-2" in ground.run(ground.host, "ss", "-Htan", "sport = 30001").stdout, "FIN_WAIT2")
        assert ("tcp", 30001, False) not in held(ground)
        assert ("tcp", 30000, False) in held(ground)
        connection.recv(1)
    until(lambda: "TIME-WAIT" in ground.run(ground.host, "ss", "-Htan", "sport = 30001").stdout, "TIME_WAIT")
    assert held(ground) == [("tcp", 30000, True)]


def test_bound_sockets_that_do_not_listen_yet(ground: Testbed, opened: Callable[..., socket.socket]) -> None:
    if tuple(map(int, re.findall(r"\d+", platform.release())[:2])) < (6, 8):
        pytest.skip("this kernel does not list them (before 6.8)")
    opened(TCP, socket.AF_INET, 29000, waits=False)
    assert held(ground) == [("tcp", 29000, False)]


def test_more_than_fits_into_one_message(ground: Testbed) -> None:
    """Of another process, which is named."""
    program = (
        "import socket, sys\n"
        "made = [socket.create_server(('', port)) for port in range(20000, 20000 + int(sys.argv[1]))]\n"
        "print('ready', flush=True)\nsys.stdin.read()\n"
    )
    count = 1000
    command = ground.command(ground.host, ["python3", "-c", program, str(count)])
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        with namespaces.entered(ground.host):
            found = sockets.held(EVERY_PORT)
        assert sockets.ports_of(found) == PortSet.parse(f"20000-{20000 + count - 1}")
        text = sockets.describe(found)
        assert text.startswith(f"tcp 20000 (python3, pid {process.pid}), tcp 20001 (python3, pid {process.pid}), ")
        assert text.endswith(f"(python3, pid {process.pid}), and {count - 8} more")
        process.communicate()


def test_holders_are_named_once(ground: Testbed, opened: Callable[..., socket.socket]) -> None:
    opened(TCP, socket.AF_INET, 28000)
    opened(TCP, socket.AF_INET6, 28000)
    opened(UDP, socket.AF_INET, 40000)
    with namespaces.entered(ground.host):
        found = sockets.held(EVERY_PORT)
    assert re.fullmatch(rf"tcp 28000 \({ME}\), udp 40000 \({ME}\)", sockets.describe(found))
    orphan = HostSocket(5, "tcp", waits=False, inode=0)
    assert sockets.describe([orphan]) == "tcp 5"
    assert sockets.describe([]) == ""


# Ports are given out


@pytest.fixture(scope="module")
def shared_node() -> Iterator[Node]:
    """An agent with three blocks: 32768-40959, 40960-49151, 49152-57343."""
    with testbed() as bed, node(bed, "--ephemeral_ports_per_container=8192") as agent:
        yield agent


def warnings(agent: Node, text: str) -> list[str]:
    """Lines of the agent's log that contain a text."""
    return [line for line in agent.log.splitlines() if text in line]


def test_a_block_is_skipped_while_the_host_has_a_socket_there(agent: Node) -> None:
    host = agent.bed.host
    with ExitStack() as stack:
        stack.enter_context(listen(host, "udp", ("127.0.0.1", 40959)))  # its last port
        assert agent.launch("second")["ephemeral_ports"] == [40960, 49151]
        (line,) = warnings(agent, "Skipped the ephemeral ports")
        assert re.search(rf"\[32768-40959\]: sockets of the host hold some: udp 40959 \({ME}\)$", line)
        with namespaces.entered(host):
            stack.enter_context(socket.create_server(("::", 49152), family=socket.AF_INET6))
        with pytest.raises(PortsliceError) as refused:
            agent.launch("none")
        assert re.fullmatch(
            r"Failed to allocate ephemeral ports: Failed to allocate ephemeral ports: sockets of the host hold ports "
            rf"of every free block: udp 40959 \({ME}\), tcp 49152 \({ME}\)",
            str(refused.value),
        )
        assert [each["name"] for each in agent.client.containers() if each["state"] != "exited"] == ["second"]
    assert agent.launch("first")["ephemeral_ports"] == [32768, 40959]
    assert agent.launch("third")["ephemeral_ports"] == [49152, 57343]
    with pytest.raises(PortsliceError, match=r"^(Failed to allocate ephemeral ports(: |$)){2}"):
        agent.launch("fourth")


def test_chosen_ports_are_free_on_the_host(agent: Node) -> None:
    host = agent.bed.host
    with ExitStack() as stack:
        for protocol, port in (("udp", 31000), ("tcp", 31003)):
            stack.enter_context(listen(host, protocol, ("", port)))
        assert agent.launch("one", ports=2)["ports"] == [[31001, 31002]]
        with pytest.raises(PortsliceError, match=r"^Not enough free ports: 998 asked for, 997 left$"):
            agent.launch("many", ports=998)


def test_ports_asked_for_that_the_host_holds(agent: Node) -> None:
    """A connection of the host counts as well; nothing is promised, and when it has gone the ports can be had."""
    host = agent.bed.host
    with (
        listen(host, "tcp", ("127.0.0.1", 5000)),
        open_socket(host, "tcp", bind=("127.0.0.1", 31005), connect=("127.0.0.1", 5000)),
    ):
        with pytest.raises(PortsliceError) as refused:
            agent.launch("web", ports="31004-31006")
        text = rf"The ports \[31005-31005\] are held by sockets of the host: tcp 31005 \({ME}\)"
        assert re.fullmatch(text, str(refused.value))
        assert agent.launch("web", ports="31004,31006")["ports"] == [[31004, 31004], [31006, 31006]]
    # Closed by the client first, its end is in TIME_WAIT, which is no obstacle.
    assert agent.launch("late", ports="31005")["ports"] == [[31005, 31005]]


def test_a_containers_sockets_are_not_the_hosts(agent: Node) -> None:
    container = agent.launch("web", "python3", "-m", "http.server", "31000", ports="31000")
    inside = agent.namespace(container)
    until(lambda: "31000" in agent.bed.run(inside, "ss", "-Hltn").stdout, "listener")
    assert agent.launch("other", ports="31001")["ephemeral_ports"] == [40960, 49151]
    agent.kill("web")
    assert agent.launch("next", ports="31000")["ports"] == [[31000, 31000]]


@pytest.mark.native
def test_a_clash_with_a_running_container_is_said_at_the_next_start(agent: Node) -> None:
    """And what listens inside the agent's ports is named, also if no container has them."""
    container = agent.launch("web", ports="31000")
    host = agent.bed.host
    with listen(host, "tcp", ("", 31000)), listen(host, "udp", ("", 31777)), listen(host, "udp", ("", 5000)):
        assert agent.stop() == 0
        agent.start()
    (clash,) = warnings(agent, f"Sockets of the host hold ports of container {container['id']}")
    assert re.search(rf": tcp 31000 \({ME}\)$", clash)
    (listeners,) = warnings(agent, "The host listens on ports of the containers")
    assert re.search(rf": tcp 31000 \({ME}\), udp 31777 \({ME}\)$", listeners)
    assert agent.client.container("web")["state"] == "running"
    assert Path(f"/proc/{container['pid']}").exists()

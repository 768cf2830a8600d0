"""Mesos' own acceptance scenarios (src/tests/containerizer/port_mapping_tests.cpp) by name, for TCP and UDP, and two
agents on one host. The containers' commands are real ones, netcat above all, as in Mesos."""

import errno
import json
import os
import shlex
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from portslice.demo.node import Node, node
from portslice.demo.testbed import HOST_ADDRESS, WORLD_ADDRESS, Testbed, testbed
from portslice.errors import PortsliceError
from tests.kernel import cgroup_tree, peer
from tests.kernel.waiting import until

pytestmark = pytest.mark.alone

LOOPBACK, EVERYWHERE = "127.0.0.1", "0.0.0.0"
# PortMappingIsolatorTest's set-up
RESOURCES = "--resources=cpus:2;mem:1024;disk:1024;ephemeral_ports:[30001-30999];ports:[31000-32000]"
BLOCK = 16
CONTAINER1_PORTS, CONTAINER2_PORTS = "31000-31499", "31500-32000"
VALID_PORT, INVALID_PORT = 31001, 32502
RATE, SIZE = 2000, 20480


@pytest.fixture(scope="module")
def mesos() -> Iterator[Node]:
    """An agent as Mesos' tests set it up."""
    with testbed() as bed, node(bed, RESOURCES, f"--ephemeral_ports_per_container={BLOCK}") as agent:
        yield agent


# NC_*: who listens where, and who gets what

LISTENERS = {
    "trafficViaLoopback": (LOOPBACK, VALID_PORT),
    "trafficViaPublic": (HOST_ADDRESS, VALID_PORT),
    "invalidPort": (EVERYWHERE, INVALID_PORT),
}
MESSAGES = {
    "hello1": (LOOPBACK, VALID_PORT),
    "hello2": (LOOPBACK, INVALID_PORT),
    "hello3": (HOST_ADDRESS, VALID_PORT),
    "hello4": (HOST_ADDRESS, INVALID_PORT),
}
NETCAT = {"tcp": ("nc -N", "nc -l"), "udp": ("nc -u -w1", "nc -u -l")}


def _listening_container(agent: Node, protocol: str) -> dict[str, Any]:
    """container1, when its three listeners are there."""
    _, listen = NETCAT[protocol]
    lines = [f"{listen} {address} {port} >{file} &" for file, (address, port) in LISTENERS.items()]
    script = "\n".join([*lines, "exec sleep infinity"])
    container = agent.launch("container1", "sh", "-c", script, ports=CONTAINER1_PORTS)
    show = ["ss", "--numeric", "--no-header", "--listening", f"--{protocol}"]
    namespace = agent.namespace(container)
    until(lambda: len(agent.bed.run(namespace, *show).stdout.splitlines()) == len(LISTENERS), "listeners")
    return container


def _sending_script(protocol: str) -> str:
    """Send every message; the exit statuses follow on standard output."""
    send, _ = NETCAT[protocol]
    lines = [
        f"printf {message} | {send} {address} {port}; echo {message} $?"
        for message, (address, port) in MESSAGES.items()
    ]
    return "\n".join(lines)


def _assert_delivered(agent: Node, container: dict[str, Any], protocol: str) -> None:
    """Exactly the messages to valid ports, at the listener for their address."""
    sandbox = Path(container["sandbox"])
    until(lambda: (sandbox / "trafficViaLoopback").read_text() == "hello1", "hello1")
    until(lambda: (sandbox / "trafficViaPublic").read_text() == "hello3", "hello3")
    # The listener at the invalid port takes its first peer only: if that is us, nobody was before.
    with peer.open_socket(agent.namespace(container), protocol, connect=(LOOPBACK, INVALID_PORT)) as inside:
        inside.sendall(b"control")
    until(lambda: (sandbox / "invalidPort").read_text() == "control", "nothing but the control message")


def _statuses(output: str) -> dict[str, int]:
    return {message: int(status) for message, status in map(str.split, output.splitlines())}


@pytest.mark.parametrize("protocol", ["tcp", pytest.param("udp", marks=pytest.mark.native)])
def test_nc_container_to_container(mesos: Node, protocol: str) -> None:
    """NC_ContainerToContainerTCP, NC_ContainerToContainerUDP."""
    container1 = _listening_container(mesos, protocol)
    container2 = mesos.launch("container2", "sh", "-c", _sending_script(protocol), ports=CONTAINER2_PORTS)
    mesos.client.wait("container2")
    statuses = _statuses((Path(container2["sandbox"]) / "stdout").read_text())
    if protocol == "tcp":
        assert statuses == {"hello1": 0, "hello2": 1, "hello3": 0, "hello4": 1}
    _assert_delivered(mesos, container1, protocol)
    mesos.kill("container1")


@pytest.mark.parametrize("protocol", ["tcp", pytest.param("udp", marks=pytest.mark.native)])
def test_nc_host_to_container(mesos: Node, protocol: str) -> None:
    """NC_HostToContainerTCP, NC_HostToContainerUDP."""
    container1 = _listening_container(mesos, protocol)
    statuses = _statuses(mesos.bed.run(mesos.bed.host, "sh", "-c", _sending_script(protocol)).stdout)
    if protocol == "tcp":
        assert statuses == {"hello1": 0, "hello2": 1, "hello3": 0, "hello4": 1}
    _assert_delivered(mesos, container1, protocol)
    mesos.kill("container1")


# DNS

NAME, ADDRESS, SERVER = "service.test", "192.0.2.7", "127.0.0.53"


def test_dns(mesos: Node) -> None:
    """DNS: a resolver on the host's loopback answers a container, by UDP, by TCP and through the C library."""
    dnsmasq = "dnsmasq --keep-in-foreground --conf-file=/dev/null --no-resolv --no-hosts --pid-file= --user=root"
    options = f"--bind-interfaces --listen-address={SERVER} --address=/{NAME}/{ADDRESS}"
    server = mesos.bed.start(mesos.bed.host, *dnsmasq.split(), *options.split())
    query = f"host -t A {NAME} {SERVER}"
    until(lambda: mesos.bed.run(mesos.bed.host, *query.split(), check=False).returncode == 0, "resolver")
    container = mesos.launch("client", "sh", "-c", f"{query} && {query} -T")
    assert mesos.client.wait("client")["exit_status"] == 0
    answer = f"{NAME} has address {ADDRESS}"
    assert (Path(container["sandbox"]) / "stdout").read_text().count(answer) == 2

    waiting = mesos.launch("libc")
    configuration = mesos.bed.directory / "resolv.conf"
    configuration.write_text(f"nameserver {SERVER}\n")
    script = f"mount --bind {shlex.quote(str(configuration))} /etc/resolv.conf && getent ahostsv4 {NAME}"
    lookup = mesos.bed.run(mesos.namespace(waiting), "unshare", "--mount", "sh", "-c", script)
    assert lookup.stdout.split()[0] == ADDRESS
    mesos.kill("libc")
    server.terminate()
    server.wait(60)


# Blocks

# EADDRINUSE of bind, EADDRNOTAVAIL of connect by TCP, EAGAIN of connect by UDP
NO_PORT = "|".join(os.strerror(code) for code in (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EAGAIN))


def test_an_exhausted_block_yields_no_foreign_port(mesos: Node) -> None:
    """The smallest block, 16 ports: the kernel has no seventeenth."""
    container = mesos.launch("small")
    namespace = mesos.namespace(container)
    begin, end = container["ephemeral_ports"]
    block = set(range(begin, end + 1))
    assert len(block) == BLOCK
    for protocol in ("tcp", "udp"):
        with ExitStack() as stack:
            opened = [
                stack.enter_context(peer.open_socket(namespace, protocol, bind=("", 0))) for _ in range(BLOCK)
            ]
            assert {each.getsockname()[1] for each in opened} == block
            with pytest.raises(OSError, match=NO_PORT):
                peer.open_socket(namespace, protocol, bind=("", 0))
            with pytest.raises(OSError, match=NO_PORT):
                peer.open_socket(namespace, protocol, connect=(WORLD_ADDRESS, 7000))
    mesos.kill("small")


def _objects(agent: Node) -> dict[str, set[str]]:
    """What a container is made of, as far as it is on the host."""
    links = json.loads(agent.bed.run(agent.bed.host, "ip", "-json", "link", "show").stdout)
    groups = [path for path in cgroup_tree.find(f"{agent.cgroups_root}/**") if path.is_dir()]
    return {
        "links": {link["ifname"] for link in links},
        "cgroups": set(map(str, groups)),
        "files": {str(path) for path in agent.directory.rglob("*")},
        "containers": {each["id"] for each in agent.client.containers()},
    }


@pytest.fixture(scope="module")
def one_block() -> Iterator[Node]:
    """An agent with room for one container: a block is more than half of the pool."""
    with testbed() as bed, node(bed, RESOURCES, "--ephemeral_ports_per_container=512") as agent:
        yield agent


@pytest.mark.native
def test_too_many_containers(one_block: Node) -> None:
    """TooManyContainers: the second is refused, leaves nothing behind, and the first goes on."""
    namespace = one_block.namespace(one_block.launch("first", ports=CONTAINER1_PORTS))
    before = _objects(one_block)
    with pytest.raises(PortsliceError, match="Failed to allocate ephemeral ports"):
        one_block.launch("second", ports=CONTAINER2_PORTS)
    assert _objects(one_block) == before
    with (
        peer.listen(namespace, "tcp", ("", VALID_PORT)) as server,
        peer.open_socket(one_block.bed.world, "tcp") as client,
    ):
        peer.talk_tcp(server, client, (HOST_ADDRESS, VALID_PORT), 1000)
    one_block.kill("first")
    one_block.launch("third", ports=CONTAINER2_PORTS)  # neither the block nor the ports are lost
    one_block.kill("third")


@pytest.mark.native
def test_cleanup_not_isolated(one_block: Node) -> None:
    """CleanupNotIsolated: a container that was prepared and never started gives its ports back."""
    one_block.launch("before", "true")
    one_block.client.wait("before")
    sandboxes = one_block.directory / "work" / "containers"
    aside = sandboxes.rename(sandboxes.with_name("aside"))
    sandboxes.touch()  # no sandbox can be made there, which shows only after the network is prepared
    before = _objects(one_block)
    try:
        with pytest.raises(PortsliceError, match="Failed to launch container"):
            one_block.launch("first", ports=CONTAINER1_PORTS)
        assert _objects(one_block) == before
    finally:
        sandboxes.unlink()
        aside.rename(sandboxes)
    one_block.launch("second", ports=CONTAINER1_PORTS)
    one_block.kill("second")


# Limits

@pytest.mark.native
def test_nc_small_egress_limit(bed: Testbed) -> None:
    """NC_SmallEgressLimit: 20,480 bytes at 2,000 bytes per second, to the host over its loopback."""
    flags = f"--egress_rate_limit_per_container={RATE}B", "--minimum_egress_rate_limit=0B"
    with (
        node(bed, RESOURCES, f"--ephemeral_ports_per_container={BLOCK}", *flags) as agent,
        peer.listen(bed.host, "tcp", (LOOPBACK, INVALID_PORT)) as listener,
    ):
        script = f"head --bytes={SIZE} /dev/zero | nc -N {LOOPBACK} {INVALID_PORT}"
        began = time.monotonic()
        agent.launch("container1", "sh", "-c", script, ports=CONTAINER1_PORTS)
        with peer.accepted(listener) as (connection, _):
            received = sum(map(len, iter(lambda: connection.recv(65536), b"")))
        took = time.monotonic() - began
        assert agent.client.wait("container1")["exit_status"] == 0
    assert received == SIZE
    assert 10 < took < 25


# Two agents

def test_two_agents_share_a_host(mesos: Node) -> None:
    """Containers of both reach each other, and one agent's end is nothing to the other's containers."""
    resources = "--resources=ports:[29000-29499];ephemeral_ports:[26624-27647]"
    other = Node(mesos.bed, "--port=5052", resources, name="other")
    one = mesos.namespace(mesos.launch("one", ports=CONTAINER1_PORTS))
    before = other.leftovers()  # its search finds the first one's, too
    try:
        other.start()
        two = other.namespace(other.launch("two", ports="29000-29009"))
        _assert_reachable({one: VALID_PORT, two: 29000}, (one, two, mesos.bed.host, mesos.bed.world))
    finally:
        left = other.cleanup()
    assert left == before
    _assert_reachable({one: VALID_PORT}, (mesos.bed.host, mesos.bed.world))
    _assert_reachable({mesos.bed.host: 29000}, (one, mesos.bed.world))  # nobody's port again
    mesos.launch("three", ports=CONTAINER2_PORTS)
    mesos.kill("one", "three")


def _assert_reachable(servers: dict[Path, int], clients: tuple[Path, ...]) -> None:
    for namespace, port in servers.items():
        for client_namespace in clients:
            addresses = [HOST_ADDRESS] if client_namespace.name == "world" else [HOST_ADDRESS, LOOPBACK]
            for address in addresses:
                with (
                    peer.listen(namespace, "tcp", ("", port)) as tcp_server,
                    peer.listen(namespace, "udp", ("", port)) as udp_server,
                    peer.open_socket(client_namespace, "tcp") as tcp_client,
                    peer.open_socket(client_namespace, "udp") as udp_client,
                ):
                    peer.talk_tcp(tcp_server, tcp_client, (address, port), 100_000)
                    peer.talk_udp(udp_server, udp_client, (address, port), 60_000)

"""Limits of both directions, and changes while a container runs: Mesos' scenarios by name, read from the kernel's own
HTB class, never from the agent's memory."""

import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from glob import glob
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from portslice.demo.node import Node, node
from portslice.demo.testbed import HOST_ADDRESS, NIC, WORLD_ADDRESS, Testbed, testbed
from portslice.errors import PortsliceError
from portslice.network import namespaces
from portslice.network.dataplane import CONTAINER_NIC_INDEX
from portslice.network.qdiscs import chain, htb
from portslice.network.rtnetlink import Rtnetlink
from tests.kernel import peer
from tests.kernel.waiting import until

pytestmark = pytest.mark.alone

MB = 1 << 20
RESOURCES = "--resources=cpus:{};mem:1024;disk:1024;ephemeral_ports:[30001-30999];ports:[31000-32000]"
BLOCK = "--ephemeral_ports_per_container=16"
PORT = 31001


def settings(agent: Node, container: dict[str, Any]) -> dict[str, htb.Setting | None]:
    """Class 1:1 at both ends of the container's link, as the kernel has it."""
    with namespaces.entered(agent.bed.host):
        host_end = socket.if_nametoindex(veth(agent, container))
    with Rtnetlink(agent.namespace(container)) as inside, Rtnetlink(agent.bed.host) as outside:
        return {
            "egress": chain.setting_of(inside, CONTAINER_NIC_INDEX),
            "ingress": chain.setting_of(outside, host_end),
        }


def kernel_rates(agent: Node, container: dict[str, Any]) -> dict[str, int | None]:
    """Bytes per second; None without a limit."""
    return {direction: each.rate if each else None for direction, each in settings(agent, container).items()}


def veth(agent: Node, container: dict[str, Any]) -> str:
    for link in json.loads(agent.bed.run(agent.bed.host, "ip", "-json", "link", "show").stdout):
        if link.get("ifalias") == f"portslice {container['id']}":
            return str(link["ifname"])
    raise AssertionError(f"no link of {container['name']}")


def restarted(agent: Node, *flags: str) -> None:
    """The agent with other limits, and nothing else different."""
    agent.stop()
    kept = [flag for flag in agent.flags if "gress_" not in flag]
    agent.flags = [*kept, *flags]
    agent.start()


# The Scale* tests: 2,000, then 3,000, then 4,000 bytes per second

@pytest.mark.parametrize(
    "direction",
    [
        pytest.param("ingress", id="ScaleIngressWithCPU"),
        pytest.param("egress", id="ScaleEgressWithCPU", marks=pytest.mark.native),
    ],
)
def test_scale_with_cpu(bed: Testbed, direction: str) -> None:
    flags = f"--{direction}_rate_per_cpu=1000B", f"--minimum_{direction}_rate_limit=2000B"
    with node(bed, RESOURCES.format(10), BLOCK, *flags, f"--maximum_{direction}_rate_limit=4000B") as agent:
        assert_scales(agent, direction)


@pytest.mark.native
@pytest.mark.parametrize(
    "direction",
    [
        pytest.param("ingress", id="ScaleIngressWithCPUAutoConfig"),
        pytest.param("egress", id="ScaleEgressWithCPUAutoConfig"),
    ],
)
def test_scale_with_cpu_auto_config(bed: Testbed, direction: str) -> None:
    flags = f"--{direction}_rate_per_cpu=auto", f"--minimum_{direction}_rate_limit=2000B", "--network_link_speed=10000B"
    with node(bed, RESOURCES.format(10), BLOCK, *flags, f"--maximum_{direction}_rate_limit=4000B") as agent:
        assert agent.get("/metrics/snapshot")[f"port_mapping/per_cpu_{direction}_rate_limit"] == 1000
        assert_scales(agent, direction)


def assert_scales(agent: Node, direction: str) -> None:
    container = agent.launch("c", ports=1)
    other = {"egress": "ingress", "ingress": "egress"}[direction]
    field = {"egress": "net_tx_rate_limit", "ingress": "net_rx_rate_limit"}[direction]
    for cpus, rate in ((None, 2000), (3.1, 3000), (5, 4000)):
        if cpus is not None:
            agent.client.update("c", {"cpus": cpus})
        assert kernel_rates(agent, container) == {direction: rate, other: None}
        assert agent.statistics("c")[field] == rate


def test_scale_egress_with_cpu_large(bed: Testbed) -> None:
    """ScaleEgressWithCPULarge: beyond what 32 bits hold."""
    flags = (
        "--egress_rate_per_cpu=auto", "--network_link_speed=12500000000B",
        "--minimum_egress_rate_limit=625000000B", "--maximum_egress_rate_limit=11250000000B",
    )  # fmt: skip
    with node(bed, RESOURCES.format(64), BLOCK, *flags) as agent:
        container = agent.launch("c", cpus=30)
        assert agent.statistics("c")["net_tx_rate_limit"] == 5_859_375_000
        for cpus, rate in ((1, 625_000_000), (30, 5_859_375_000), (60, 11_250_000_000)):
            agent.client.update("c", {"cpus": cpus})
            assert kernel_rates(agent, container)["egress"] == rate


# Upgrade


def test_upgrade(bed: Testbed) -> None:
    """Upgrade: what runs follows the flags of each new agent; ingress is put on it only if that is allowed."""
    limits = [
        f"--{flag}" for way in ("egress", "ingress")
        for flag in (f"{way}_rate_limit_per_container=1000B", f"minimum_{way}_rate_limit=0B")
    ]  # fmt: skip
    with node(bed, RESOURCES.format(2), BLOCK) as agent:
        container = agent.launch("c", ports=1)
        own = agent.launch("own", egress=3000, ingress=4000)
        assert kernel_rates(agent, container) == {"egress": None, "ingress": None}
        restarted(agent, *limits, "--no-ingress_isolate_existing_containers")
        assert kernel_rates(agent, container) == {"egress": 1000, "ingress": None}
        agent.client.update("c", {"cpus": 1})
        assert kernel_rates(agent, container) == {"egress": 1000, "ingress": None}
        assert kernel_rates(agent, agent.launch("new")) == {"egress": 1000, "ingress": 1000}
        restarted(agent, *[flag.replace("=1000B", "=2000B") for flag in limits])
        assert kernel_rates(agent, container) == {"egress": 2000, "ingress": 2000}
        restarted(agent)
        assert kernel_rates(agent, container) == {"egress": None, "ingress": None}
        assert kernel_rates(agent, own) == {"egress": 3000, "ingress": 4000}, "asked for: no matter of the flags"
        assert "Repaired container" not in agent.log


# What a limit does


@pytest.mark.native
def test_nc_small_ingress_limit(bed: Testbed) -> None:
    """NC_SmallIngressLimit: 20,480 bytes at 2,000 bytes per second, from the host over its loopback."""
    flags = "--ingress_rate_limit_per_container=2000B", "--minimum_ingress_rate_limit=0B"
    with node(bed, RESOURCES.format(2), BLOCK, *flags) as agent:
        container = agent.launch("c", "sh", "-c", f"nc -l localhost {PORT} | wc -c", ports="31000-31499")
        assert kernel_rates(agent, container) == {"egress": None, "ingress": 2000}
        until(lambda: listening(agent, container), "listener")
        began = time.monotonic()
        agent.bed.run(bed.host, "sh", "-c", f"head --bytes=20480 /dev/zero | nc -N localhost {PORT}")
        assert agent.client.wait("c")["exit_status"] == 0
        took = time.monotonic() - began
        assert Path(container["sandbox"], "stdout").read_text().strip() == "20480"
    assert 9 <= took < 25


def listening(agent: Node, container: dict[str, Any], port: int = PORT) -> bool:
    return bool(agent.bed.run(agent.namespace(container), "ss", "-Hltn", f"sport = :{port}").stdout)


SINK = """
import socket, sys, threading
def drain(s):
    while s.recv(1 << 16): pass
server = socket.create_server(("", int(sys.argv[1])))
while True: threading.Thread(target=drain, args=[server.accept()[0]]).start()
"""
SOURCE = """
import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
while True: s.sendall(bytes(1 << 16))
"""


@pytest.fixture(scope="module")
def shared_node() -> Iterator[Node]:
    """An agent without limits: each container has its own."""
    with testbed() as bed, node(bed) as agent:
        yield agent


def charged(agent: Node, name: str, queue: str) -> tuple[float, int]:
    """(time, bytes) that HTB charged."""
    usage = agent.statistics(name)
    return usage["timestamp"], next(
        each["bytes"] for each in usage["net_traffic_control_statistics"] if each["id"] == queue
    )


def test_the_ingress_limit_is_one_for_everything_that_arrives(agent: Node) -> None:
    """From the world, from the host and from a neighbour at once; by the bytes that HTB charges, of which the NIC's
    counter knows as well."""
    limit = 2_000_000
    container = agent.launch("sink", sys.executable, "-c", SINK, "31000", ports="31000-31000", ingress=limit)
    until(lambda: listening(agent, container, 31000), "sink")
    for namespace, address in ((agent.bed.world, HOST_ADDRESS), (agent.bed.host, "127.0.0.1")):
        agent.bed.start(namespace, sys.executable, "-c", SOURCE, address, "31000", stderr=subprocess.DEVNULL)
    agent.launch("neighbour", sys.executable, "-c", SOURCE, "127.0.0.1", "31000")
    until(lambda: agent.statistics("neighbour")["net_tx_bytes"] > limit // 10, "traffic of the neighbour")
    until(lambda: charged(agent, "sink", "ingress_bw_limit")[1] > limit, "traffic")
    before, received = charged(agent, "sink", "ingress_bw_limit"), agent.statistics("sink")["net_rx_bytes"]
    time.sleep(3)
    after = charged(agent, "sink", "ingress_bw_limit")
    received = agent.statistics("sink")["net_rx_bytes"] - received
    rate = (after[1] - before[1]) / (after[0] - before[0])
    assert rate == pytest.approx(limit, rel=0.03)
    assert received == pytest.approx(after[1] - before[1], rel=0.1)
    usage = agent.statistics("sink")
    assert usage["net_rx_rate_limit"] == limit
    assert "net_tx_rate_limit" not in usage
    agent.kill("neighbour")  # before its connection breaks


@pytest.mark.usefixtures("fq_codel")
def test_the_queue_of_ingress_has_fq_codel_with_ecn(agent: Node) -> None:
    container = agent.launch("c", ingress=400_000, egress=400_000)
    names = ["ingress_bw_limit", "ingress_bloat_reduction", "bw_limit", "bloat_reduction"]
    assert [each["id"] for each in agent.statistics("c")["net_traffic_control_statistics"]] == names
    shown = agent.bed.run(agent.bed.host, "tc", "qdisc", "show", "dev", veth(agent, container)).stdout
    assert re.search(r"qdisc fq_codel .* ecn", shown), shown


def test_a_burst_goes_at_the_ceiling(bed: Testbed) -> None:
    """20 KB/s with bursts of 200 KB at 1 MB/s: the burst needs no tenth of what it would at the rate."""
    flags = "--egress_rate_limit_per_container=20000B", "--minimum_egress_rate_limit=0B"
    burst = "--egress_ceil_limit=1MB", "--egress_burst=200000B"
    with node(bed, *flags, *burst) as agent, peer.listen(bed.world, "tcp", ("", 7000)) as listener:
        agent.launch("c", "sh", "-c", f"head -c 150000 /dev/zero | nc -N {WORLD_ADDRESS} 7000")
        with peer.accepted(listener) as (connection, _):
            began = time.monotonic()
            received = sum(map(len, iter(lambda: connection.recv(65536), b"")))
        took = time.monotonic() - began
        container = agent.launch("d")
        usage = agent.statistics("d")
        assert usage["net_tx_rate_limit"] == 20_000
        assert usage["net_tx_burst_rate_limit"] == MB
        assert usage["net_tx_burst_size"] == 200_000
        present = settings(agent, container)["egress"]
        assert present
        assert (present.rate, present.ceil) == (20_000, MB)
    assert received == 150_000
    assert took < 150_000 / 20_000 / 2


# Changes


ECHO = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", int(sys.argv[1])))
print("ready", flush=True)
while True: s.sendto(*s.recvfrom(2000))
"""


class Exchange(Thread):
    """Datagrams to an echo server and back, one after another; those that do not come back are counted."""

    def __init__(self, caller: socket.socket) -> None:
        super().__init__()
        self.caller, self.stop, self.sent, self.lost = caller, Event(), 0, 0

    def run(self) -> None:
        self.caller.settimeout(5)
        while not self.stop.is_set():
            message = b"%d" % self.sent
            self.sent += 1
            try:
                self.caller.send(message)
                self.lost += self.caller.recv(100) != message
            except (TimeoutError, ConnectionRefusedError):
                self.lost += 1


def test_changes_lose_no_packet_on_a_port_that_stays(agent: Node) -> None:
    """Ports come and go, limits are put on, changed and lifted."""
    container = agent.launch("echo", sys.executable, "-c", ECHO, "31005", ports="31000-31009", egress=10 * MB)
    until(lambda: "ready" in Path(container["sandbox"], "stdout").read_text(), "echo server")
    caller = peer.open_socket(agent.bed.world, "udp", connect=(HOST_ADDRESS, 31005))
    with closing(caller):
        exchange = Exchange(caller)
        exchange.start()
        try:
            for change in (
                {"ports": "31005-31020"}, {"ingress": MB}, {"ports": "31003-31005"}, {"ingress": 5 * MB},
                {"egress": 20 * MB}, {"ingress": 0}, {"egress": 0}, {"egress": MB}, {"ports": "31005"}, {"ports": 7},
            ):  # fmt: skip
                seen = exchange.sent
                changed = agent.client.update("echo", change)
                until(lambda seen=seen: exchange.sent > seen + 20, "traffic")  # type: ignore[misc]
        finally:
            exchange.stop.set()
            exchange.join()
    assert (exchange.lost, exchange.sent > 100) == (0, True)
    assert changed["ports"] == [[31005, 31011]], "the lowest that are free and in a row, beside its own"
    assert agent.drops("echo") == {}


def test_a_port_given_back_is_another_containers(agent: Node) -> None:
    one = agent.launch("one", ports="31000-31001")
    agent.client.update("one", {"ports": "31001-31002"})
    two = agent.launch("two", ports="31000-31000")
    for container, port in ((one, 31001), (one, 31002), (two, 31000)):
        with (
            peer.listen(agent.namespace(container), "tcp", ("", port)) as server,
            peer.open_socket(agent.bed.world, "tcp") as client,
        ):
            peer.talk_tcp(server, client, (HOST_ADDRESS, port), 1000)
    agent.crash()
    agent.start()
    assert agent.client.container("one")["ports"] == [[31001, 31002]]
    with pytest.raises(PortsliceError, match=r"The ports \[31002-31002\] belong to another container"):
        agent.client.update("two", {"ports": "31000,31002"})
    agent.kill("one")
    agent.client.update("two", {"ports": "31000,31002"})


REFUSED = {
    "another's": ({"ports": "31000-31010"}, r"The ports \[31010-31010\] belong to another container"),
    "not managed": (
        {"ports": "31000-31001,40000"},
        r"Some non-ephemeral ports specified in \[31000-31001, 40000-40000\] are not managed by the agent",
    ),
    "too many": ({"ports": 5000}, "Not enough free ports"),
    "no ports": ({"ports": "many"}, "Invalid ports 'many'"),
    "no limit": ({"egress": "fast"}, "'egress' is of the wrong type"),
    "negative": ({"ingress": -1}, "'ingress' is out of range"),
    "no CPU": ({"cpus": 0}, "'cpus' and 'mem' must be more than 0"),
    "unknown": ({"name": "d"}, "'name' cannot be changed while a container runs"),
    "memory in use": ({"mem": MB}, "of memory, which is more than 1MB"),
}


def state(agent: Node, container: dict[str, Any]) -> Any:
    """All that an update could change: what the agent shows, its journal, the kernel."""
    journal = (agent.runtime / "journal" / f"{container['id']}.json").read_text()
    # not Path.glob, which fails when a directory of somebody else's goes away meanwhile
    groups = map(Path, glob(f"/sys/fs/cgroup/**/{agent.cgroups_root}/{container['id']}/*", recursive=True))
    names = ("cpu.shares", "cpu.weight", "memory.limit_in_bytes", "memory.max", "memory.low")
    limits = {str(file): file.read_text() for file in groups if file.name in names}
    return agent.client.container(container["id"]), journal, kernel_rates(agent, container), limits


@pytest.fixture(scope="module")
def busy(shared_node: Node) -> dict[str, Any]:
    """A container that uses memory, and has limits."""
    hold = "import time\nblock = b'x' * (8 << 20)\nprint('ready', flush=True)\ntime.sleep(1e6)"
    container = shared_node.launch(
        "busy", sys.executable, "-c", hold, ports="31000-31001", egress=MB, mem=64 * MB, cpus=1
    )
    shared_node.launch("holder", ports="31010-31010")
    until(lambda: "ready" in Path(container["sandbox"], "stdout").read_text(), "'ready' of the container")
    return container


@pytest.mark.native
@pytest.mark.parametrize(("change", "text"), REFUSED.values(), ids=REFUSED)
def test_refused_changes_change_nothing(
    shared_node: Node, busy: dict[str, Any], change: dict[str, Any], text: str
) -> None:
    before = state(shared_node, busy)
    # What would be possible is asked for at the same time.
    with pytest.raises(PortsliceError, match=text):
        shared_node.client.update("busy", {"egress": 2 * MB, "cpus": 2, "ingress": MB} | change)
    assert state(shared_node, busy) == before


@pytest.mark.native
def test_what_is_not_running_is_not_changed(agent: Node) -> None:
    with pytest.raises(PortsliceError, match="There is no container 'nobody'"):
        agent.client.update("nobody", {"cpus": 1})
    agent.launch("ended", "true")
    agent.client.wait("ended")
    with pytest.raises(PortsliceError, match="The container 'ended' is not running"):
        agent.client.update("ended", {"cpus": 1})


def test_what_the_kernel_refuses_half_way_is_taken_back(agent: Node) -> None:
    """The queue inside cannot be made because somebody else's stands there; by then the ports are changed and the
    ingress limit is on."""
    container = agent.launch("c", ports="31000-31001", cpus=1, mem=64 * MB)
    foreign = f"tc qdisc add dev {NIC} root handle 7: tbf rate 1gbit burst 100kb limit 1mb"
    agent.bed.run(agent.namespace(container), *foreign.split())
    before = state(agent, container)
    with pytest.raises(PortsliceError, match=f"Failed to change the egress of container {container['id']}: .*exists"):
        agent.client.update("c", {"ports": "31001-31002", "egress": MB, "ingress": MB, "cpus": 2, "mem": 96 * MB})
    assert state(agent, container) == before
    assert agent.launch("d", ports="31002-31002")["ports"] == [[31002, 31002]]


@pytest.mark.native
def test_update_command(agent: Node) -> None:
    container = agent.launch("web", ports="31000-31000")
    assert agent.cli("update", "web", "--ports", "31000-31003", "--egress", "2MB").stdout == "web\n"
    assert kernel_rates(agent, container) == {"egress": 2 * MB, "ingress": None}
    changed = json.loads(
        agent.cli("update", "web", "--egress", "0", "--ingress", "1MB", "--mem", "64MB", "--json").stdout
    )
    assert changed["ports"] == [[31000, 31003]]
    assert (changed["egress_bytes_per_sec"], changed["ingress_bytes_per_sec"]) == (None, MB)
    assert changed["mem_bytes"] == 64 * MB
    assert kernel_rates(agent, container) == {"egress": None, "ingress": MB}
    assert json.loads(agent.cli("ps", "--json").stdout)[-1] == changed
    result = agent.cli("update", "web", check=False)
    assert (result.returncode, "nothing to change" in result.stderr) == (2, True)
    result = agent.cli("update", "web", "--egress", "10Mbit", check=False)
    assert (result.returncode, "Unknown bytes unit 'MBIT': write e.g. 64MB" in result.stderr) == (2, True)
    limited = json.loads(agent.cli("run", "-d", "--json", "--egress", "3MB", "--ingress", "4MB", "sleep", "600").stdout)
    assert (limited["egress_bytes_per_sec"], limited["ingress_bytes_per_sec"]) == (3 * MB, 4 * MB)
    assert kernel_rates(agent, limited) == {"egress": 3 * MB, "ingress": 4 * MB}

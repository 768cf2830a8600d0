"""Limits, and fairness between containers, by the bytes that the kernel counts.

Rates are computed from two readings of the statistics and their own timestamps, so nothing here depends on how quickly
the test itself runs. Limits are the documentation's figures, but on an emulated machine a small part of what a
container reaches there without one (`capacity`): near that, it is the processor that limits.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from portslice.demo.node import Node, node
from portslice.demo.testbed import NIC, WORLD_ADDRESS, Testbed
from portslice.network.qdiscs import htb
from portslice.network.rtnetlink import Rtnetlink
from portslice.rates import Rate
from tests.kernel.conftest import HAS_FQ_CODEL
from tests.kernel.waiting import until

pytestmark = pytest.mark.alone

MBIT = 125_000
DOCUMENTED = 37500 * 1024
NIC_INDEX = 2  # of the testbed's host, which has only lo besides
SINK = ("iperf3", "--server", "--bind", WORLD_ADDRESS, "--port")
SOURCE = ("iperf3", "--client", WORLD_ADDRESS, "--time", "600")

only_with_fq_codel = pytest.mark.skipif(not HAS_FQ_CODEL, reason="this kernel has no fq_codel")
only_without_fq_codel = pytest.mark.skipif(HAS_FQ_CODEL, reason="this kernel has fq_codel")


def send_greedily(agent: Node, name: str, port: int, connections: int = 1) -> None:
    """A container that sends to the world as fast as it can."""
    agent.bed.start(agent.bed.world, *SINK, str(port))
    listening = ("ss", "-Hltn", f"sport = :{port}")
    until(lambda: agent.bed.run(agent.bed.world, *listening).stdout, f"iperf3 on port {port}")
    agent.launch(name, *SOURCE, "--port", str(port), "--parallel", str(connections))


def sent(agent: Node, *names: str) -> list[tuple[float, int]]:
    """(time, bytes) that left each container."""
    usages = [agent.statistics(name) for name in names]
    return [(usage["timestamp"], usage["net_tx_bytes"]) for usage in usages]


def charged(agent: Node, *names: str) -> list[tuple[float, int]]:
    """(time, bytes) that HTB charged to each container."""
    usages = [agent.statistics(name) for name in names]
    return [(usage["timestamp"], usage["net_traffic_control_statistics"][0]["bytes"]) for usage in usages]


def rates(count: Callable[..., list[tuple[float, int]]], agent: Node, *names: str, secs: float) -> list[float]:
    """Bytes per second of containers that are in full swing."""
    for name in names:
        until(lambda name=name: sent(agent, name)[0][1] > 100_000, f"traffic of {name}")  # type: ignore[misc]
    before = count(agent, *names)
    time.sleep(secs)
    after = count(agent, *names)
    return [(end[1] - begin[1]) / (end[0] - begin[0]) for begin, end in zip(before, after, strict=True)]


@pytest.fixture(scope="module")
def capacity(shared_node: Node) -> float:
    """What one container without a limit sends, in bytes per second."""
    send_greedily(shared_node, "unlimited", 5201)
    try:
        return rates(sent, shared_node, "unlimited", secs=2)[0]
    finally:
        shared_node.kill("unlimited")


def test_the_limit_holds_over_ten_seconds(bed: Testbed, capacity: float) -> None:
    limit = min(DOCUMENTED, int(capacity / 30))
    with node(bed, f"--egress_rate_limit_per_container={limit}B") as agent:
        send_greedily(agent, "greedy", 5201, connections=4)
        (rate,) = rates(charged, agent, "greedy", secs=10)
    assert rate == pytest.approx(limit, rel=0.02)


SINK_OF_FOUR = """
import socket, sys, threading
def drain(s):
    while s.recv(1 << 16): pass
server = socket.create_server(("", int(sys.argv[1])))
for _ in range(4): threading.Thread(target=drain, args=[server.accept()[0]]).start()
"""
SOURCE_FOR_TWO = """
import socket, sys, threading
def send(address, port):
    s = socket.create_connection((address, port))
    while True: s.sendall(bytes(1 << 16))
for each in 4 * [("127.0.0.1", 31000), (sys.argv[1], 7000)]: threading.Thread(target=send, args=each).start()
"""


def test_the_limit_is_one_for_everything_that_leaves(bed: Testbed, capacity: float) -> None:
    """What goes to the world and what goes to a neighbour share the one limit, which is a small one here."""
    limit = min(20 * MBIT, int(capacity / 100))
    with node(bed, f"--egress_rate_limit_per_container={limit}B") as agent:
        bed.start(bed.world, sys.executable, "-c", SINK_OF_FOUR, "7000")
        until(lambda: bed.run(bed.world, "ss", "-Hltn", "sport = :7000").stdout, "sink in the world")
        neighbour = agent.launch("neighbour", sys.executable, "-c", SINK_OF_FOUR, "31000", ports="31000-31000")
        until(lambda: bed.run(agent.namespace(neighbour), "ss", "-Hltn", "sport = :31000").stdout, "neighbour")
        agent.launch("greedy", sys.executable, "-c", SOURCE_FOR_TWO, WORLD_ADDRESS)
        until(lambda: agent.statistics("neighbour")["net_rx_bytes"] > 100_000, "traffic to the neighbour")
        (rate,) = rates(charged, agent, "greedy", secs=5)
        received = agent.statistics("neighbour")["net_rx_bytes"]
        total = agent.statistics("greedy")["net_tx_bytes"]
        assert 0.05 * total < received < 0.95 * total, "both destinations are sent to"
    assert rate == pytest.approx(limit, rel=0.02)


# What the kernel is told


def test_no_limit_is_no_queue(agent: Node) -> None:
    container = agent.launch("c")
    usage = agent.statistics("c")
    assert "net_tx_rate_limit" not in usage
    assert "net_traffic_control_statistics" not in usage
    assert agent.bed.run(agent.namespace(container), "tc", "class", "show", "dev", NIC).stdout == ""


@pytest.mark.parametrize(
    ("limit", "shown"),
    [(Rate(2000), "16Kbit ceil 16Kbit"), (Rate(125_000), "1Mbit ceil 1Mbit"),
     (Rate(5_000_000_000), "40Gbit ceil 40Gbit"), (Rate(4_000_000_000, ceil=5_000_000_000), "32Gbit ceil 40Gbit"),
     (Rate(125_000_000_000), "1Tbit ceil 1Tbit")],
)  # fmt: skip
def test_rates_arrive_in_the_kernel(bed: Testbed, limit: Rate, shown: str) -> None:
    """Also those beyond the 34 Gbit/s of the classic 32-bit field."""
    with Rtnetlink(bed.host) as netlink:
        htb.install(netlink, NIC_INDEX, limit)
        assert htb.setting_of(netlink, NIC_INDEX) == htb.setting(limit)
    classes = bed.run(bed.host, "tc", "-s", "-d", "class", "show", "dev", NIC).stdout
    assert f"class htb 1:1 root prio 0 quantum {max(1514, min(limit.rate // 10, 60000))} rate {shown} " in classes


# fq_codel in the container

LATENCY = """
import json, socket, sys, threading, time
world, floods = sys.argv[1], int(sys.argv[2])
def flood():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    while True: s.sendto(bytes(1400), (world, 9))
for _ in range(floods): threading.Thread(target=flood, daemon=True).start()
time.sleep(1)
s = socket.create_connection((world, 7000))
s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
times = []
for _ in range(9):
    start = time.monotonic()
    s.sendall(b"x")
    s.recv(1)
    times.append(time.monotonic() - start)
    time.sleep(0.02)
print(json.dumps(times), flush=True)
"""
ECHO = """
import socket
flood = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
flood.bind(("", 9))
server = socket.create_server(("", 7000))
while True:
    c, _ = server.accept()
    c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while data := c.recv(64): c.sendall(data)
"""


@pytest.fixture
def limited(bed: Testbed, capacity: float) -> Iterator[Node]:
    with node(bed, f"--egress_rate_limit_per_container={min(10 * MBIT, int(capacity / 100))}B") as agent:
        yield agent


def latency_under_load(agent: Node, floods: int) -> float:
    """Median round trip, in seconds, of a small message from a container that floods the world at the same time."""
    agent.bed.start(agent.bed.world, sys.executable, "-c", ECHO)
    until(lambda: agent.bed.run(agent.bed.world, "ss", "-Hltn", "sport = :7000").stdout, "echo server")
    container = agent.launch("mixed", sys.executable, "-c", LATENCY, WORLD_ADDRESS, str(floods))
    ended = agent.client.wait(container["id"])
    assert ended["exit_status"] == 0, Path(ended["sandbox"], "stderr").read_text()
    return float(statistics.median(json.loads(Path(ended["sandbox"], "stdout").read_text())))


@only_with_fq_codel
def test_a_sparse_flow_overtakes_the_queue(limited: Node) -> None:
    limited.launch("c")
    entries = limited.statistics("c")["net_traffic_control_statistics"]
    assert [entry["id"] for entry in entries] == ["bw_limit", "bloat_reduction"]
    assert latency_under_load(limited, floods=6) < 0.05


@only_without_fq_codel
def test_without_fq_codel_there_is_a_limit_and_one_long_queue(limited: Node) -> None:
    limited.launch("c")
    entries = limited.statistics("c")["net_traffic_control_statistics"]
    assert [entry["id"] for entry in entries] == ["bw_limit"]
    assert limited.log.count("bloat_reduction is not available") == 1
    assert latency_under_load(limited, floods=6) > 0.2


# One flow per container on the NIC


@pytest.fixture
def slow_nic(bed: Testbed, capacity: float) -> int:
    """The host's NIC, slowed by an HTB class (a veth never lets a queue build up); its bytes per second."""
    rate = min(100 * MBIT, int(capacity / 100))
    for command in (
        f"qdisc add dev {NIC} root handle 1: htb default 1",
        f"class add dev {NIC} parent 1: classid 1:1 htb rate {rate * 8}bit burst {rate // 100 + 3200} quantum 60000",
    ):
        bed.run(bed.host, "tc", *command.split())
    return rate


def two_greedy(agent: Node, secs: float) -> list[float]:
    """Rates of two containers, one with 8 connections and one with 1."""
    send_greedily(agent, "many", 5201, connections=8)
    send_greedily(agent, "one", 5202)
    return rates(sent, agent, "many", "one", secs=secs)


@only_with_fq_codel
def test_containers_share_the_nic_evenly_whatever_their_connections(bed: Testbed, slow_nic: int) -> None:
    flags = ("--egress_unique_flow_per_container", "--egress_flow_classifier_parent=1:1")
    with node(bed, *flags) as agent:
        many, one = two_greedy(agent, secs=10)
        fair_queue = bed.run(bed.host, "tc", "qdisc", "show", "dev", NIC).stdout
        assert "qdisc fq_codel 2: parent 1:1" in fair_queue
    assert many == pytest.approx(slow_nic / 2, rel=0.1)
    assert one == pytest.approx(slow_nic / 2, rel=0.1)
    assert "fq_codel" not in bed.run(bed.host, "tc", "qdisc", "show", "dev", NIC).stdout


def test_without_unique_flows_connections_count(bed: Testbed, slow_nic: int) -> None:
    """The contrast: what the flag is for, and that the test above could fail."""
    with node(bed) as agent:
        many, one = two_greedy(agent, secs=5)
    assert many > 2 * one
    assert many + one == pytest.approx(slow_nic, rel=0.1)


@only_without_fq_codel
def test_unique_flows_need_fq_codel(bed: Testbed) -> None:
    agent = Node(bed, "--egress_unique_flow_per_container")
    refused = agent.agent()
    assert refused.returncode == 1
    assert (
        "Failed to create isolator 'network/port_mapping': --egress_unique_flow_per_container needs fq_codel, a "
        "queueing discipline that this kernel does not have: load sch_fq_codel, or start without the flag"
    ) in refused.stderr
    assert agent.leftovers() == []

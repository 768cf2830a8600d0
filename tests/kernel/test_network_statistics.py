"""What Mesos' network_enable_* flags add to the statistics, against `ss`, `nstat`, /proc/net and known traffic."""

import json
import re
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from portslice.demo.node import Node, node
from portslice.demo.testbed import HOST_ADDRESS, NIC, WORLD_ADDRESS, WORLD_ADDRESS_6, testbed
from portslice.network.protocols import SNMP
from portslice.network.statistics import Extras, inside
from portslice.sampling import RATES, nearest_rank
from tests.kernel import peer
from tests.kernel.conftest import NETWORK_STATISTICS
from tests.kernel.waiting import until

# PortMappingIsolatorTest's set-up
RESOURCES = "--resources=cpus:2;mem:1024;disk:1024;ephemeral_ports:[30001-30999];ports:[31000-32000]"
BLOCK = 16
VALID_PORT, INVALID_PORT = 31001, 32502
RATE, SIZE = 2000, 20480
WINDOW_SECS, INTERVAL_SECS = 5.0, 0.05

CONNECTIONS = {"net_tcp_active_connections", "net_tcp_time_wait_connections"}
ROUND_TRIPS = {f"net_tcp_rtt_microsecs_p{percent}" for percent in (50, 90, 95, 99)}
PERCENTILES = ["min", "p50", "p90", "p95", "p99", "p999", "p9999", "max"]


@pytest.fixture(scope="module")
def shared_node() -> Iterator[Node]:
    """An agent with all of them."""
    flags = (
        f"--ephemeral_ports_per_container={BLOCK}",
        *NETWORK_STATISTICS,
        f"--network_rate_statistics_window={WINDOW_SECS:g}secs",
        f"--network_rate_statistics_interval={INTERVAL_SECS * 1000:g}ms",
    )
    with testbed() as bed, node(bed, RESOURCES, *flags) as agent:
        yield agent


def proc_net(agent: Node, container: dict[str, Any], name: str) -> list[str]:
    """The lines of a file of /proc/net inside."""
    return agent.bed.run(agent.namespace(container), "cat", f"/proc/net/{name}").stdout.splitlines()


def test_port_mapping_statistics(agent: Node) -> None:
    """NC_PortMappingStatistics"""
    agent.bed.start(agent.bed.host, "nc", "-l", HOST_ADDRESS, str(INVALID_PORT))
    until(lambda: agent.bed.run(agent.bed.host, "ss", "-Htln", f"sport = :{INVALID_PORT}").stdout, "netcat")
    send = f"head -c {SIZE} /dev/zero | nc {HOST_ADDRESS} {INVALID_PORT}; exec sleep 1000"
    container = agent.launch("sender", "sh", "-c", send, egress=RATE, ports="31000-31499")

    def measured() -> dict[str, Any] | None:
        usage = agent.statistics("sender")
        return usage if usage.keys() >= ROUND_TRIPS and usage["net_tcp_active_connections"] > 0 else None

    usage = until(measured, "round-trip time while it sends")
    assert {type(usage[name]) for name in CONNECTIONS | ROUND_TRIPS} == {float}
    block = usage["net_ephemeral_ports"]
    assert block["end"] - block["begin"] + 1 == BLOCK
    shown = agent.bed.run(agent.namespace(container), "cat", "/proc/sys/net/ipv4/ip_local_port_range").stdout
    assert [block["begin"], block["end"]] == [int(port) for port in shown.split()]
    assert "RetransSegs" in usage["net_snmp_statistics"]["tcp_stats"]
    # Each group is there if it is wanted: Mesos' test calls its helper in the same way.
    for connections, round_trips, snmp in ((True, True, True), (True, False, False), (False, True, True)):
        read = inside(agent.namespace(container), Extras(connections, round_trips, snmp))
        assert (read.keys() >= CONNECTIONS, read.keys() >= ROUND_TRIPS) == (connections, round_trips)
        assert ("net_snmp_statistics" in read) == snmp
        assert len(read) == 2 * connections + 4 * round_trips + snmp
    assert inside(agent.namespace(container), Extras()) == {}


def test_connections_and_round_trips_are_the_kernels(agent: Node) -> None:
    """Of both families, and of as many sockets as ss(8) shows."""
    container = agent.launch("c", ports=f"{VALID_PORT}-{VALID_PORT}")
    namespace, world = agent.namespace(container), agent.bed.world
    usage = agent.statistics("c")
    assert [usage[name] for name in sorted(CONNECTIONS)] == [0, 0]
    assert not ROUND_TRIPS & usage.keys(), "nothing is measured without a socket"
    with ExitStack() as stack:
        stack.enter_context(peer.listen(namespace, "tcp", ("127.0.0.1", VALID_PORT)))
        assert not ROUND_TRIPS & agent.statistics("c").keys(), "who only listens measures nothing"
        for address, count in ((WORLD_ADDRESS, 3), (WORLD_ADDRESS_6, 2)):
            listener = stack.enter_context(peer.listen(world, "tcp", (address, 7000)))
            for _ in range(count):
                client = stack.enter_context(peer.open_socket(namespace, "tcp", connect=(address, 7000)))
                stack.enter_context(listener.accept()[0]).sendall(b"x")
                assert client.recv(1) == b"x"
        usage = agent.statistics("c")
        assert usage["net_tcp_active_connections"] == 6
        told = [line.split() for name in ("sockstat", "sockstat6") for line in proc_net(agent, container, name)]
        assert [words[2] for words in told if words[0] in ("TCP:", "TCP6:")] == ["4", "2"]
        shown = agent.bed.run(namespace, "ss", "-Htin").stdout
        times = sorted(round(float(rtt) * 1000) for rtt in re.findall(r"\brtt:([\d.]+)/", shown))
        assert len(times) == 5
        for percent in (50, 90, 95, 99):
            assert usage[f"net_tcp_rtt_microsecs_p{percent}"] == nearest_rank(times, percent)
        client.close()
        until(lambda: agent.statistics("c")["net_tcp_active_connections"] == 5, "end of a connection")


def test_closed_connections_wait(agent: Node) -> None:
    container = agent.launch("c")
    with peer.listen(agent.bed.world, "tcp", (WORLD_ADDRESS, 7001)) as listener:
        for _ in range(2):
            client = peer.open_socket(agent.namespace(container), "tcp", connect=(WORLD_ADDRESS, 7001))
            server, _ = listener.accept()
            client.close()
            server.close()
    until(lambda: agent.statistics("c")["net_tcp_time_wait_connections"] == 2, "TIME_WAIT")
    (line,) = (line for line in proc_net(agent, container, "sockstat") if line.startswith("TCP:"))
    assert " tw 2 " in line


def test_snmp_counters_are_the_kernels(agent: Node) -> None:
    """Under the kernel's names, and no others."""
    container = agent.launch("c", ports=f"{VALID_PORT}-{VALID_PORT}")
    namespace, world = agent.namespace(container), agent.bed.world
    target = (HOST_ADDRESS, VALID_PORT)
    with peer.listen(namespace, "udp", target) as server, peer.open_socket(world, "udp") as client:
        for _ in range(3):
            peer.talk_udp(server, client, target, 100)
    with peer.open_socket(world, "udp", connect=target) as client:
        client.send(b"nobody is there any more")
        with pytest.raises(ConnectionRefusedError):
            client.recv(1)
    with peer.listen(namespace, "tcp", target) as server, peer.open_socket(world, "tcp") as client:
        peer.talk_tcp(server, client, target, 1000)

    def told_and_shown() -> tuple[dict[str, int], dict[str, int]]:
        """By ourselves, and by nstat(8), which leaves out what is no counter."""
        groups = agent.statistics("c")["net_snmp_statistics"]
        told = {
            f"{protocol}{name}": groups[f"{protocol.lower()}_stats"][name]
            for protocol, names in SNMP.items()
            for name in names
        }
        shown = json.loads(agent.bed.run(namespace, "nstat", "-asz", "--json").stdout)["kernel"]
        return {name: value for name, value in told.items() if name in shown}, {n: shown[n] for n in told if n in shown}

    def the_same() -> dict[str, int] | None:
        told, shown = told_and_shown()
        return told if told == shown else None

    compared = until(the_same, "the kernel's figures, once all is quiet")
    assert len(compared) > 60
    told = agent.statistics("c")["net_snmp_statistics"]
    assert {type(value) for group in told.values() for value in group.values()} == {int}
    udp, icmp, tcp = (told[f"{protocol}_stats"] for protocol in ("udp", "icmp", "tcp"))
    assert (udp["InDatagrams"], udp["OutDatagrams"], udp["NoPorts"]) == (3, 3, 1)
    assert (icmp["OutDestUnreachs"], icmp["OutMsgs"]) == (1, 1)
    assert (tcp["PassiveOpens"], tcp["ActiveOpens"], tcp["MaxConn"]) == (1, 0, -1)
    assert [len(told[f"{protocol}_stats"]) for protocol in ("ip", "icmp", "tcp", "udp")] == [19, 27, 15, 8]


def rates(agent: Node, name: str) -> dict[str, Any]:
    return dict(agent.statistics(name)["net_rate_statistics"])


def all_rates(agent: Node, name: str) -> dict[str, Any] | None:
    """The rates, once there are any."""
    found = rates(agent, name)
    return found if "rx_rate" in found else None


def test_port_mapping_rate_statistics(agent: Node) -> None:
    """NC_PortMappingRateStatistics; that a small limit takes its time, test_scenarios.py shows."""
    listen = f"nc -l -k {HOST_ADDRESS} {VALID_PORT} >/dev/null"
    container = agent.launch("receiver", "sh", "-c", listen, ingress=RATE, ports="31000-31499")
    until(lambda: agent.bed.run(agent.namespace(container), "ss", "-Htln").stdout, "netcat")
    found = until(lambda: all_rates(agent, "receiver"), "two samples")
    assert found["rx_rate"]["max"] == 0
    with peer.open_socket(agent.bed.world, "tcp", connect=(HOST_ADDRESS, VALID_PORT)) as client:
        # What is not sent yet at the end is not to be sent to the next test's container.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.sendall(b"a" * SIZE)
        until(lambda: rates(agent, "receiver")["rx_rate"]["max"] > 0, "traffic in the rates")
        found = rates(agent, "receiver")
    assert found.keys() == {*RATES.values(), "sampling_window_secs", "sampling_interval_secs"}
    assert (found["sampling_window_secs"], found["sampling_interval_secs"]) == (WINDOW_SECS, INTERVAL_SECS)
    for name in RATES.values():
        figures = found[name]
        assert figures.keys() == {*PERCENTILES, "samples"}
        assert {type(value) for value in figures.values()} == {int}
        assert 2 <= figures["samples"] <= WINDOW_SECS / INTERVAL_SECS
        ordered = [figures[each] for each in PERCENTILES]
        assert ordered == sorted(ordered)


def test_rates_are_the_containers_view(agent: Node) -> None:
    """What arrives is rx, and nothing else, and no sample tells of less time than the interval."""
    container = agent.launch("c", ports=f"{VALID_PORT}-{VALID_PORT}")
    agent.launch("idle")
    before = until(lambda: all_rates(agent, "c"), "two samples")
    until(lambda: all_rates(agent, "idle"), "two samples of the other")
    assert before["rx_packet_rate"]["max"] == 0
    packets, size = 200, 500
    target = (HOST_ADDRESS, VALID_PORT)
    with peer.listen(agent.namespace(container), "udp", target), peer.open_socket(agent.bed.world, "udp") as sender:
        for _ in range(packets):
            sender.sendto(bytes(size), target)
    until(lambda: agent.statistics("c")["net_rx_packets"] == packets, "arrival")
    found = until(
        lambda: each if (each := rates(agent, "c"))["rx_packet_rate"]["max"] > 0 else None, "the packets' rate"
    )
    assert found["rx_packet_rate"]["max"] <= packets / INTERVAL_SECS
    assert found["rx_rate"]["max"] >= found["rx_packet_rate"]["max"] * size
    assert found["rx_rate"]["max"] <= (found["rx_packet_rate"]["max"] + 1) * (size + 42)
    for name in ("tx_rate", "tx_packet_rate", "rx_drop_rate", "rx_error_rate"):
        assert found[name]["max"] == 0, name
    assert rates(agent, "idle")["rx_packet_rate"]["max"] == 0


def test_a_container_of_an_earlier_agent_is_measured_too(agent: Node) -> None:
    agent.launch("c")
    until(lambda: all_rates(agent, "c"), "two samples")
    agent.stop()
    agent.start()
    until(lambda: all_rates(agent, "c"), "two samples")
    assert agent.statistics("c").keys() >= {*CONNECTIONS, "net_snmp_statistics"}


def test_a_container_without_its_nic_costs_no_other_its_rates(agent: Node) -> None:
    agent.bed.run(agent.namespace(agent.launch("cut")), "ip", "link", "delete", NIC)
    agent.launch("whole")
    until(lambda: all_rates(agent, "whole"), "two samples of the other")
    assert "Unexpected error" not in agent.log


def test_nothing_of_a_container_stays_open(agent: Node) -> None:
    """The sampler holds a socket in the namespace, which would keep it alive."""
    assert agent.process is not None
    descriptors = Path(f"/proc/{agent.process.pid}/fd")
    agent.launch("warm-up")
    agent.kill("warm-up")
    before = len(list(descriptors.iterdir()))
    for _ in range(2):
        agent.launch("c")
        until(lambda: all_rates(agent, "c"), "two samples")
        agent.kill("c")
    until(lambda: len(list(descriptors.iterdir())) <= before, "closed sockets")

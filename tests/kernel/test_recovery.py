"""The agent ends, asked or not, at any instant; what it cared for goes on, and the next one takes it up."""

import json
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from portslice.containers.process import ProcessHandle
from portslice.demo.node import Node, node
from portslice.demo.testbed import HOST_ADDRESS, NIC, WORLD_ADDRESS, testbed
from portslice.errors import PortsliceError
from portslice.network import namespaces
from tests.kernel import cgroup_tree
from tests.kernel.waiting import until

MBIT = 125_000

# Echoes TCP and UDP on one port.
SERVER = """
import socket, sys, threading
port = int(sys.argv[1])
def tcp():
    connection, _ = socket.create_server(("", port)).accept()
    while data := connection.recv(1 << 16): connection.sendall(data)
    connection.close()
threading.Thread(target=tcp).start()
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("", port))
print("ready", flush=True)
while True: udp.sendto(*udp.recvfrom(65536))
"""
# Until its input ends it sends a stream that never repeats, and datagrams one by one; all must come back as they went.
CLIENT = """
import json, socket, sys, threading
address, stop = (sys.argv[1], int(sys.argv[2])), threading.Event()
result = {"sent": 0, "received": 0, "wrong": 0, "datagrams": 0, "lost": 0}
tcp = socket.create_connection(address)
def block(number): return b"%016d" % number * 512
def send():
    while not stop.is_set():
        tcp.sendall(block(result["sent"] // 8192))
        result["sent"] += 8192
    tcp.shutdown(socket.SHUT_WR)
def receive():
    with tcp.makefile("rb") as stream:
        while data := stream.read(8192):
            result["wrong"] += data != block(result["received"] // 8192)
            result["received"] += len(data)
def exchange():
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.connect(address)
    udp.settimeout(5)
    while not stop.is_set():
        message = b"%d" % result["datagrams"]
        result["datagrams"] += 1
        udp.send(message)
        try: result["lost"] += udp.recv(100) != message
        except TimeoutError: result["lost"] += 1
        stop.wait(0.01)
threads = [threading.Thread(target=work) for work in (send, receive, exchange)]
for thread in threads: thread.start()
sys.stdin.read()
stop.set()
for thread in threads: thread.join()
print(json.dumps(result))
"""

COUNTERS = [
    *(f"net_{way}_{what}" for way in ("rx", "tx") for what in ("bytes", "packets")),
    *("cpus_user_time_secs", "cpus_system_time_secs"),
]


@pytest.fixture(scope="module")
def shared_node() -> Iterator[Node]:
    """One agent whose end all tests bring about."""
    with testbed() as bed, node(bed, f"--egress_rate_limit_per_container={80 * MBIT}B") as agent:
        yield agent


def living(agent: Node) -> list[dict[str, Any]]:
    return [each for each in agent.client.containers() if each["state"] != "exited"]


def await_output(container: dict[str, Any], text: str) -> None:
    until(lambda: text in Path(container["sandbox"], "stdout").read_text(), f"'{text}' of the container")


def restart(agent: Node, how: str) -> None:
    """End the agent, `stop` or `crash`, and start it again."""
    if how == "stop":
        assert agent.stop() == 0
    else:
        agent.crash()
    agent.start()


def counters(agent: Node, name: str) -> list[float]:
    """Everything of a container that only ever grows."""
    usage = agent.statistics(name)
    return [usage[counter] for counter in COUNTERS] + [usage["net_traffic_control_statistics"][0]["bytes"]]


def metric(agent: Node, name: str) -> float:
    return float(agent.get("/metrics/snapshot")[f"port_mapping/{name}"])


# What goes on


def test_traffic_and_counters_go_on_over_both_ends_of_the_agent(agent: Node) -> None:
    bed = agent.bed
    server = agent.launch("server", sys.executable, "-c", SERVER, "31000", ports="31000-31004")
    await_output(server, "ready")
    client = subprocess.Popen(
        bed.command(bed.world, [sys.executable, "-c", CLIENT, HOST_ADDRESS, "31000"]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        until(lambda: agent.statistics("server")["net_rx_bytes"] > 100_000, "traffic")
        blocks = [server["ephemeral_ports"]]
        for number, how in enumerate(("stop", "crash")):
            before = counters(agent, "server")
            restart(agent, how)
            after = counters(agent, "server")
            assert all(new >= old for old, new in zip(before, after, strict=True)), (before, after)
            assert after[0] > before[0], "received while there was no agent"
            found = agent.client.container("server")
            assert {**found, "message": ""} == {**server, "message": ""}, "the same container, its ports and pid"
            with pytest.raises(PortsliceError, match=r"The ports \[31000-31004\] belong to another container"):
                agent.launch("thief", ports="31000-31004")
            blocks.append(agent.launch(f"new-{number}")["ephemeral_ports"])
        assert len({tuple(block) for block in blocks}) == 3, "every container has a block of its own"
        so_far = agent.statistics("server")["net_rx_packets"]
        until(lambda: agent.statistics("server")["net_rx_packets"] > so_far + 100, "more traffic")
        output, _ = client.communicate("", timeout=60)
    finally:
        client.kill()
        client.wait()
    result = json.loads(output)
    assert result["received"] == result["sent"] > 100_000
    assert (result["wrong"], result["lost"]) == (0, 0)
    assert result["datagrams"] > 10
    assert agent.drops("server") == {}
    assert f"Repaired container {server['id']}" not in agent.log


@pytest.mark.native
def test_a_command_in_the_foreground_survives_restarts(agent: Node) -> None:
    script = "echo before; echo to-stderr >&2; while ! [ -e go ]; do sleep 0.05; done; echo after; exit 7"
    command = [sys.executable, "-m", "portslice", "run", "--socket", str(agent.socket), "--name", "c", "--"]
    with subprocess.Popen(
        [*command, "sh", "-c", script],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as run:  # fmt: skip
        try:
            (container,) = until(lambda: [c for c in living(agent) if c["state"] == "running"], "the container")
            await_output(container, "before")
            restart(agent, "stop")
            restart(agent, "crash")
            Path(container["sandbox"], "go").touch()
            output, errors = run.communicate(timeout=60)
        finally:
            run.kill()
    assert (run.returncode, output, errors) == (7, "before\nafter\n", "to-stderr\n")


def test_the_exit_status_of_a_container_that_ended_without_an_agent(agent: Node) -> None:
    wait = "while ! [ -e go ]; do sleep 0.05; done; exit 9"
    ended = agent.launch("ended", "sh", "-c", wait, ports="31000-31000")
    killed = agent.launch("killed")
    running = agent.launch("running")
    init = {each["name"]: ProcessHandle.of(each["pid"]) for each in (ended, killed)}
    agent.stop()
    Path(ended["sandbox"], "go").touch()
    init["killed"].signal(9)
    assert all(process.wait(60) for process in init.values())
    agent.start()
    found = {name: agent.client.container(name) for name in ("ended", "killed", "running")}
    states = {name: (each["state"], each["exit_status"]) for name, each in found.items()}
    assert states == {"ended": ("exited", 9), "killed": ("exited", 137), "running": ("running", None)}
    assert [each["executor_id"] for each in agent.get("/monitor/statistics")] == ["running"]
    assert not agent.namespace(ended).exists()
    assert metric(agent, "ephemeral_blocks_free") == metric(agent, "ephemeral_blocks_total") - 1
    again = agent.launch("again", ports="31000-31000")
    assert again["ephemeral_ports"] == ended["ephemeral_ports"], "given back"
    assert running["pid"] == agent.client.container("running")["pid"]


def test_killed_at_any_instant_nothing_leaks(agent: Node) -> None:
    seed = random.randrange(1 << 32)
    instant = random.Random(seed)
    print(f"seed {seed}")
    began = time.monotonic()
    agent.launch("first")
    agent.kill("first")
    cycle = time.monotonic() - began
    for _ in range(3):
        stop = Event()
        churn = Thread(target=launch_and_kill, args=(agent, stop))
        churn.start()
        time.sleep(instant.uniform(0, 3 * cycle))
        agent.crash()
        stop.set()
        churn.join()
        agent.start()
        running = living(agent)
        assert {each["state"] for each in running} <= {"running"}
        owned = [tuple(each["ephemeral_ports"]) for each in running]
        assert len(set(owned)) == len(owned)
        assert metric(agent, "ephemeral_blocks_free") == metric(agent, "ephemeral_blocks_total") - len(owned)
        usages = {each["executor_id"]: each["statistics"] for each in agent.get("/monitor/statistics")}
        assert usages.keys() == {each["name"] for each in running}
        for usage in usages.values():
            assert usage.keys() >= {"net_rx_bytes", "cpus_user_time_secs", "mem_total_bytes"}
        assert links(agent) == len(running)
        assert len(list((agent.runtime / "netns").iterdir())) == len(running)
    agent.kill(*(each["id"] for each in living(agent)))
    assert metric(agent, "ephemeral_blocks_free") == metric(agent, "ephemeral_blocks_total")
    assert links(agent) == 0
    assert agent.stop() == 0
    assert agent.leftovers() == [], "the agent stopped without containers: everything of it is gone"
    agent.start()


def launch_and_kill(agent: Node, stop: Event) -> None:
    """Launch containers and kill every other one, whatever becomes of the agent."""
    number = 0
    while not stop.is_set():
        number += 1
        with suppress(Exception):
            container = agent.launch(f"c-{time.monotonic_ns()}", ports=1)
            if number % 2:
                agent.kill(container["id"])


def links(agent: Node) -> int:
    """The host ends of containers' links."""
    shown = agent.bed.run(agent.bed.host, "ip", "-o", "link", "show", "type", "veth").stdout
    return sum(line.split(": ")[1].startswith("ps") for line in shown.splitlines())


# What drifted


def test_drift_is_repaired_and_said(agent: Node) -> None:
    bed = agent.bed
    names = ("route", "address", "filter", "queue", "rate", "range", "link")
    containers = {
        name: agent.launch(name, sys.executable, "-c", SERVER, str(port), ports=f"{port}-{port}")
        for port, name in enumerate(names, 31000)
    }
    untouched = agent.launch("untouched")
    agent.stop()
    inside = {name: agent.namespace(container) for name, container in containers.items()}
    bed.run(inside["route"], "ip", "route", "delete", "default")
    bed.run(inside["address"], "ip", "address", "delete", f"{HOST_ADDRESS}/32", "dev", NIC)
    bed.run(bed.host, "tc", "filter", "delete", "dev", veth(agent, containers["filter"]), "ingress")
    bed.run(inside["queue"], "tc", "qdisc", "delete", "dev", NIC, "root")
    bed.run(inside["rate"], *f"tc class change dev {NIC} parent 1: classid 1:1 htb rate 1gbit".split())
    bed.run(inside["range"], "sysctl", "-qw", "net.ipv4.ip_local_port_range=1024 65535")
    bed.run(bed.host, "ip", "link", "delete", veth(agent, containers["link"]))
    bed.run(bed.host, "tc", "filter", "delete", "dev", NIC, "ingress")
    agent.start()
    for name, problem in {
        "route": "the container has no default route",
        "address": f"the container does not have the address {HOST_ADDRESS}",
        "filter": "container_egress of this agent's version is not on",
        "queue": "the egress limit is None bytes per second, not 10000000",
        "rate": "the egress limit is 125000000 bytes per second, not 10000000",
        "range": "net.ipv4.ip_local_port_range is '1024 65535', not '",
        "link": "the link ps",
    }.items():
        assert f"Repaired container {containers[name]['id']}: {problem}" in agent.log, name
    assert f"Repaired container {untouched['id']}" not in agent.log
    for name, container in containers.items():
        begin, end = container["ephemeral_ports"]
        assert bed.run(inside[name], "sysctl", "-n", "net.ipv4.ip_local_port_range").stdout.split() == [
            str(begin),
            str(end),
        ], name
        assert "rate 80Mbit" in bed.run(inside[name], "tc", "class", "show", "dev", NIC).stdout, name
    bed.start(bed.world, sys.executable, "-c", SERVER, "7000")
    for container in containers.values():
        (port, _), (begin, end) = container["ports"][0], container["ephemeral_ports"]
        echoed(bed.host, ("127.0.0.1", port))
        echoed(bed.world, (HOST_ADDRESS, port))
        assert begin <= echoed(agent.namespace(container), (WORLD_ADDRESS, 7000)) <= end


def test_what_cannot_be_repaired_costs_only_its_container(agent: Node) -> None:
    bed = agent.bed
    broken, sound = agent.launch("broken"), agent.launch("sound")
    name = veth(agent, broken)
    agent.stop()
    bed.run(bed.host, "ip", "link", "delete", name)
    bed.run(bed.host, "ip", "link", "add", name, "type", "veth", "peer", "name", "theirs")
    agent.start()
    assert f"Failed to repair container {broken['id']}: " in agent.log
    assert agent.client.container("sound")["pid"] == sound["pid"]
    assert "net_rx_bytes" in agent.statistics("sound")
    assert "mem_total_bytes" in agent.statistics("broken")
    agent.kill("broken")
    bed.run(bed.host, "ip", "link", "delete", name)
    assert agent.launch("next")["ephemeral_ports"] == broken["ephemeral_ports"]


def echoed(namespace: Path, address: tuple[str, int]) -> int:
    """A datagram goes to an echo server and back, sooner or later; the port that it went from."""
    with namespaces.entered(namespace):
        caller = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with caller:
        caller.connect(address)
        caller.settimeout(1)

        def answer() -> bytes:
            with suppress(TimeoutError, ConnectionRefusedError):
                caller.send(b"hello")
                return caller.recv(100)
            return b""

        assert until(answer, f"echo from {address}") == b"hello"
        return int(caller.getsockname()[1])


def veth(agent: Node, container: dict[str, Any]) -> str:
    """The host end of a container's link."""
    for line in agent.bed.run(agent.bed.host, "ip", "-o", "link", "show", "type", "veth").stdout.splitlines():
        if f"alias portslice {container['id']}" in line:
            return line.split(": ")[1].partition("@")[0]
    raise AssertionError(f"no link of {container['name']}")


# What is not ours


def test_what_others_made_is_left_alone(agent: Node) -> None:
    bed = agent.bed
    ours = agent.launch("ours")
    foreign_link = f"{veth(agent, ours).rpartition('-')[0]}-77"
    foreign_namespace = bed.directory / "foreign"
    cgroups = [path / "foreign" for path in cgroup_tree.find(f"{agent.cgroups_root}")]
    match = "pref 7 protocol ip u32 match ip dport 9999 0xffff flowid 1:1"

    def filters(device: str) -> str:
        return bed.run(bed.host, "tc", "filter", "show", "dev", device, "ingress").stdout

    def assert_untouched() -> None:
        bed.run(bed.host, "ip", "link", "show", foreign_link)
        bed.run(foreign_namespace, "true")
        assert cgroups
        assert all(path.is_dir() for path in cgroups)
        for device in (NIC, "lo"):
            assert "pref 7 u32" in filters(device)
            assert "match" in filters(device)

    try:
        bed.run(bed.host, "ip", "link", "add", foreign_link, "type", "veth", "peer", "name", f"{foreign_link}p")
        namespaces.create(foreign_namespace)
        for path in cgroups:
            path.mkdir()
        for device in (NIC, "lo"):
            bed.run(bed.host, "tc", "filter", "add", "dev", device, "ingress", *match.split())
        restart(agent, "crash")
        assert_untouched()
        assert agent.client.container("ours")["pid"] == ours["pid"]
        agent.kill("ours")
        agent.launch("another")
        agent.stop()
        cleanup = agent.agent("--recover=cleanup")
        assert cleanup.returncode == 0, cleanup.stderr
        assert_untouched()
        assert "bpf" not in filters(NIC) + filters("lo"), "ours are gone"
        agent.start()
        assert {each["state"] for each in agent.client.containers()} == {"exited"}, "they are remembered"
    finally:
        for path in cgroups:
            with suppress(FileNotFoundError):
                path.rmdir()
        namespaces.remove(foreign_namespace)
        bed.run(bed.host, "ip", "link", "delete", foreign_link, check=False)
        for device in (NIC, "lo"):
            bed.run(bed.host, "tc", "filter", "delete", "dev", device, "ingress", "pref", "7", check=False)

"""What the endpoints say, against what the kernel says by other ways: `ip -s`, `tc -s`, the cgroups' files, /proc.

And against docs/statistics.md, whose table says what there is."""

import json
import os
import re
import shlex
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from portslice.demo.node import Node, node
from portslice.demo.testbed import HOST_ADDRESS, NIC, WORLD_ADDRESS, testbed
from tests.kernel import peer
from tests.kernel.asking import ask
from tests.kernel.block_device import block_device, count_for_cgroups
from tests.kernel.conftest import HAS_FQ_CODEL, NETWORK_STATISTICS
from tests.kernel.waiting import until
from tests.statistics_table import leaves, served

pytestmark = pytest.mark.alone

MB = 1 << 20
LIMIT = 37500 * 1024
TICKS_PER_SEC = os.sysconf("SC_CLK_TCK")
HIERARCHY = Path("/sys/fs/cgroup")
V2 = (HIERARCHY / "cgroup.controllers").exists()

DOUBLES = {
    *("cpus_limit", "cpus_soft_limit", "cpus_system_time_secs", "cpus_throttled_time_secs", "cpus_user_time_secs"),
    "timestamp",
}
INTEGERS = {
    *("cpus_nr_periods", "cpus_nr_throttled"),
    *(f"mem_{kind}_bytes" for kind in ("anon", "cache", "file", "limit", "mapped_file", "rss", "soft_limit", "total")),
    *(f"mem_{level}_pressure_counter" for level in ("low", "medium", "critical")),
    *(f"net_{way}_{what}" for way in ("rx", "tx") for what in ("bytes", "dropped", "errors", "packets")),
}
TRAFFIC_CONTROL = {"backlog", "bytes", "drops", "overlimits", "packets", "qlen", "ratebps", "ratepps", "requeues"}

HOLD = "import os, sys, time\nblock = b'x' * (20 << 20)\nprint('ready', flush=True)\ntime.sleep(10000)"
BURN = "while True: pass"
SEND = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(int(sys.argv[3])): s.sendto(bytes(int(sys.argv[4])), (sys.argv[1], int(sys.argv[2])))
"""
RECEIVE = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", int(sys.argv[1])))
print("ready", flush=True)
while True: s.recv(65536)
"""


@pytest.fixture(scope="module")
def shared_node() -> Iterator[Node]:
    """An agent with all that the documentation's example of /monitor/statistics shows."""
    with testbed() as bed, node(bed, f"--egress_rate_limit_per_container={LIMIT}B", "--cgroups_enable_cfs") as agent:
        yield agent


def await_ready(container: dict[str, Any]) -> None:
    """Wait for a command that prints so."""
    until(lambda: "ready" in Path(container["sandbox"], "stdout").read_text(), "'ready' of the container")


def link(agent: Node, container: dict[str, Any]) -> dict[str, int]:
    """The counters of the container's NIC as `ip -s` shows them, by our names."""
    shown = agent.bed.run(agent.namespace(container), "ip", "-s", "-j", "link", "show", "dev", NIC).stdout
    (counters,) = (each["stats64"] for each in json.loads(shown) if each)
    whats = ("bytes", "packets", "errors", "dropped")
    return {f"net_{way}_{what}": counters[way][what] for way in ("rx", "tx") for what in whats}


def cgroup_file(agent: Node, container: dict[str, Any], v1: str, v2: str) -> Path:
    """A file of the container's cgroup."""
    controller, _, name = v1.rpartition("/")
    root = HIERARCHY if V2 else HIERARCHY / controller
    return Path(root, agent.cgroups_root, container["id"], v2 if V2 else name)


def numbers(agent: Node, container: dict[str, Any], v1: str, v2: str) -> dict[str, int]:
    """Such a file: `{name: number}`, or `{"": number}` for one without names."""
    lines = cgroup_file(agent, container, v1, v2).read_text().splitlines()
    return {line.rpartition(" ")[0]: int(line.rpartition(" ")[2]) for line in lines}


# The body


def test_every_field_of_the_documentation_in_its_type(agent: Node) -> None:
    container = agent.launch("web", "sleep", "infinity", cpus=1.0, mem=160 * MB)
    text = ask(agent, "/monitor/statistics").text
    (element,) = json.loads(text)
    assert text == json.dumps([element], sort_keys=True, separators=(",", ":")), "compact, keys in order, 1.0 not 1"
    assert element.keys() == {"executor_id", "executor_name", "framework_id", "source", "statistics"}
    fields = element["statistics"]
    assert {name for name, value in fields.items() if type(value) is float} == DOUBLES
    assert {name for name, value in fields.items() if type(value) is int} >= INTEGERS
    entries = fields["net_traffic_control_statistics"]
    assert [entry["id"] for entry in entries] == ["bw_limit", "bloat_reduction"][: 1 + HAS_FQ_CODEL]
    for entry in entries:
        assert {name for name, value in entry.items() if type(value) is int} == TRAFFIC_CONTROL
    assert (fields["cpus_limit"], fields["mem_limit_bytes"]) == (1.0, 160 * MB)
    assert fields["net_tx_rate_limit"] == LIMIT
    assert [*fields["net_ephemeral_ports"].values()] == container["ephemeral_ports"]
    asked_for = ("net_tcp", "net_snmp", "net_rate")  # by flags that are off here: test_network_statistics.py
    assert not [name for name in fields if name.startswith(asked_for)]
    now = float(agent.bed.run(agent.bed.host, "date", "+%s.%N").stdout)
    assert now - 60 < fields["timestamp"] <= now


@pytest.mark.native
@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (["sh", "-c", "sleep 1000"], "sh -c 'sleep 1000'"),
        (["sh", "-c", "iperf=1; while :; do sleep 1; done"], "sh -c 'iperf=1; whi...'"),
        (["sleep", "1000"], "[sleep, 1000]"),
        (["sleep", "1000", "1000", "1000"], "[sleep, 1000,...]"),
    ],
)
def test_names_have_mesos_form(agent: Node, command: list[str], shown: str) -> None:
    agent.launch("job.1436298853", *command)
    (element,) = agent.get("/monitor/statistics")
    assert element["executor_id"] == element["source"] == "job.1436298853"
    assert element["executor_name"] == f"Command Executor (Task: job.1436298853) (Command: {shown})"
    assert element["framework_id"] == ""


@pytest.mark.native
def test_containers_names_the_container_besides(agent: Node) -> None:
    container = agent.launch("web")
    (element,) = agent.get("/containers")
    (plain,) = agent.get("/monitor/statistics")
    assert element.keys() == {*plain, "container_id", "status"}
    assert element["container_id"] == container["id"]
    assert element["status"] == {"container_id": {"value": container["id"]}, "executor_pid": container["pid"]}
    assert element["statistics"].keys() == plain["statistics"].keys()


@pytest.mark.native
def test_one_element_for_each_living_container(agent: Node) -> None:
    assert ask(agent, "/monitor/statistics").text == "[]"
    agent.launch("a")
    agent.launch("b")
    assert [each["executor_id"] for each in agent.get("/monitor/statistics")] == ["a", "b"]
    agent.kill("a")
    assert [each["executor_id"] for each in agent.get("/monitor/statistics")] == ["b"]


@pytest.mark.native
def test_readers_at_the_same_time_all_get_everything(agent: Node) -> None:
    agent.launch("a")
    with ThreadPoolExecutor(10) as pool:
        bodies = list(pool.map(lambda _: ask(agent, "/monitor/statistics").text, range(40)))
    asked_for = {"cpus_soft_limit", "mem_soft_limit_bytes"}  # not here
    for body in bodies:
        (element,) = json.loads(body)
        assert element["statistics"].keys() >= (DOUBLES | INTEGERS) - asked_for


@pytest.mark.native
def test_limits_are_what_was_asked_for(agent: Node) -> None:
    """Of who asked for nothing, the machine's."""
    agent.launch("asked", cpus=0.5, mem=96 * MB)
    agent.launch("free")
    asked, free = agent.statistics("asked"), agent.statistics("free")
    assert (asked["cpus_limit"], asked["cpus_soft_limit"]) == (0.5, 0.5)
    assert asked["mem_limit_bytes"] == asked["mem_soft_limit_bytes"] == 96 * MB
    assert free["cpus_limit"] == float(agent.bed.run(agent.bed.host, "nproc", "--all").stdout)
    assert free["mem_limit_bytes"] >> 10 == int(Path("/proc/meminfo").read_text().split()[1])
    assert not {"cpus_soft_limit", "mem_soft_limit_bytes"} & free.keys()


# The table of docs/statistics.md

EVERYTHING = (
    "--isolation=cgroups/cpu,cgroups/mem,cgroups/blkio,disk/du,network/port_mapping",
    "--container_disk_watch_interval=1secs",
    "--network_port_statistics_interval=1secs",
    "--cgroups_enable_cfs",
    "--cgroups_cpu_enable_pids_and_tids_count",
    *(() if V2 else ("--cgroups_limit_swap",)),
    *(
        f"--{way}_{limit}"
        for way in ("egress", "ingress")
        for limit in ("rate_limit_per_container=1MB", "ceil_limit=2MB", "burst=100KB")
    ),
    *NETWORK_STATISTICS,
    "--network_rate_statistics_window=10secs",
    "--network_rate_statistics_interval=100ms",
)
ELSEWHERE = "perf."  # which events there are, the machine decides: test_perf.py
SAMPLED = ("disk_used_bytes", "net_ephemeral_ports_in_use")


def test_what_the_table_says_is_served_and_nothing_else(tmp_path: Path) -> None:
    """By an agent that is told to serve everything, of a container to which everything has happened."""
    documented = {field: row.type for row in served() for field in row.numbers if row.on(1 + V2)}
    documented = {field: kind for field, kind in documented.items() if not field.startswith(ELSEWHERE)}
    if not Path("/proc/pressure").exists():
        documented = {field: kind for field, kind in documented.items() if not field.startswith("psi.")}
    with testbed() as bed, node(bed, *EVERYTHING) as agent, block_device(tmp_path, MB) as device, ExitStack() as stack:
        count_for_cgroups(device)
        read = f"dd if={device} of=/dev/null bs=64K count=8 iflag=direct 2>&1 && echo ready; exec sleep 1000"
        request = {"cpus": 1.0, "mem": 64 * MB, "disk": 10 * MB, "devices": [str(device)]}
        container = agent.launch("everything", "sh", "-c", read, **request)
        await_ready(container)
        namespace = agent.namespace(container)
        refused = stack.enter_context(peer.open_socket(namespace, "udp", bind=("", 2000)))
        refused.sendto(b"x", (WORLD_ADDRESS, 9))
        listener = stack.enter_context(peer.listen(bed.world, "tcp", (WORLD_ADDRESS, 7000)))
        client = stack.enter_context(peer.open_socket(namespace, "tcp", connect=(WORLD_ADDRESS, 7000)))
        stack.enter_context(listener.accept()[0]).sendall(b"x")
        assert client.recv(1) == b"x"

        def complete() -> dict[str, Any] | None:
            usage = agent.statistics("everything")
            return usage if "rx_rate" in usage["net_rate_statistics"] and usage.keys() >= {*SAMPLED} else None

        usage = until(complete, "what is sampled")
        found = {field: types for field, types in leaves(usage).items() if not field.startswith(ELSEWHERE)}
        assert found.keys() == documented.keys()
        for field, types in found.items():
            (kind,) = types
            assert documented[field].startswith(kind), field

        # What no other test compares.
        total = usage["blkio_statistics"]["throttling"][-1]
        assert total["io_serviced"] == [{"op": "TOTAL", "value": 8}]
        assert total["io_service_bytes"] == [{"op": "TOTAL", "value": 8 * 65536}]
        assert (usage["processes"], usage["threads"]) == (len(inside(container)),) * 2
        if not V2:
            both = numbers(agent, container, "memory/memory.memsw.usage_in_bytes", "")[""]
            assert usage["mem_total_memsw_bytes"] == pytest.approx(both, abs=MB)
            assert numbers(agent, container, "memory/memory.memsw.limit_in_bytes", "")[""] == 64 * MB


# The network


def test_traffic_in_one_direction_is_counted_in_that_direction(agent: Node) -> None:
    receiver = agent.launch("receiver", sys.executable, "-c", RECEIVE, "31000", ports="31000-31000")
    await_ready(receiver)
    agent.bed.run(agent.bed.world, sys.executable, "-c", SEND, HOST_ADDRESS, "31000", "100", "1000")
    until(lambda: agent.statistics("receiver")["net_rx_packets"] == 100, "100 packets")
    usage = agent.statistics("receiver")
    assert 100 * 1028 <= usage["net_rx_bytes"] <= 100 * 1042, "payload, UDP, IP, and perhaps Ethernet"
    assert (usage["net_tx_packets"], usage["net_tx_bytes"]) == (0, 0)
    assert link(agent, receiver).items() <= usage.items()

    agent.bed.start(agent.bed.world, sys.executable, "-c", RECEIVE, "7000")
    until(lambda: agent.bed.run(agent.bed.world, "ss", "-Hlun", "sport = :7000").stdout, "receiver in the world")
    send = f"{shlex.join([sys.executable, '-c', SEND])} {WORLD_ADDRESS} 7000 50 500; echo ready; sleep 1000"
    sender = agent.launch("sender", "sh", "-c", send)
    await_ready(sender)
    until(lambda: agent.statistics("sender")["net_tx_packets"] == 50, "50 packets")
    usage = agent.statistics("sender")
    assert usage["net_tx_bytes"] == 50 * 542
    assert (usage["net_rx_packets"], usage["net_rx_bytes"]) == (0, 0)
    assert link(agent, sender).items() <= usage.items()


def test_queues_are_what_tc_shows(agent: Node) -> None:
    """After a burst that exceeds the limit, so that not all figures are 0."""
    burst = f"{shlex.join([sys.executable, '-c', SEND])} {WORLD_ADDRESS} 9 300 30000; echo ready; sleep 1000"
    container = agent.launch("burst", "sh", "-c", burst, egress=1_000_000)  # less than an emulated machine sends
    await_ready(container)
    namespace = agent.namespace(container)

    def shown() -> list[dict[str, Any]]:
        return list(json.loads(agent.bed.run(namespace, "tc", "-s", "-j", "qdisc", "show", "dev", NIC).stdout))

    until(lambda: all(queue["qlen"] == 0 for queue in shown()), "end of the queue")
    entries = agent.statistics("burst")["net_traffic_control_statistics"]
    kinds = {"bw_limit": "htb", "bloat_reduction": "fq_codel"}
    queues = {queue["kind"]: queue for queue in shown()}
    for entry in entries:
        queue = queues[kinds[entry["id"]]]
        for name in TRAFFIC_CONTROL - {"ratebps", "ratepps"}:
            assert entry[name] == queue[name], f"{entry['id']}.{name}"
    htb = entries[0]
    assert htb["packets"] > 2000, "fragments"
    assert htb["bytes"] > 2000 * 1400
    assert htb["overlimits"] > 0


# CPUs and memory


def test_cpu_time_and_throttling_are_the_cgroups(agent: Node) -> None:
    # Two processes for less than one CPU. With much less, an emulated machine is long in starting them.
    container = agent.launch("burner", sys.executable, "-c", f"import os\nos.fork()\n{BURN}", cpus=0.9)

    def used() -> dict[str, float]:
        if V2:
            stat = numbers(agent, container, "", "cpu.stat")
            return {
                "cpus_user_time_secs": stat["user_usec"] / 1e6,
                "cpus_system_time_secs": stat["system_usec"] / 1e6,
                "cpus_nr_periods": stat["nr_periods"],
                "cpus_nr_throttled": stat["nr_throttled"],
                "cpus_throttled_time_secs": stat["throttled_usec"] / 1e6,
            }
        time = numbers(agent, container, "cpuacct/cpuacct.stat", "")
        bandwidth = numbers(agent, container, "cpu/cpu.stat", "")
        return {
            "cpus_user_time_secs": time["user"] / TICKS_PER_SEC,
            "cpus_system_time_secs": time["system"] / TICKS_PER_SEC,
            "cpus_nr_periods": bandwidth["nr_periods"],
            "cpus_nr_throttled": bandwidth["nr_throttled"],
            "cpus_throttled_time_secs": bandwidth["throttled_time"] / 1e9,
        }

    until(lambda: used()["cpus_user_time_secs"] > 0.3 and used()["cpus_nr_throttled"] > 3, "throttled work")
    before, usage, after = used(), agent.statistics("burner"), used()
    for name in before:
        assert before[name] <= usage[name] <= after[name], name
    assert usage["cpus_limit"] == 0.9
    assert usage["cpus_throttled_time_secs"] > 0


def test_memory_is_the_cgroups(agent: Node) -> None:
    write = "with open('file', 'wb') as f: f.write(bytes(5 << 20)); f.flush(); os.fsync(f.fileno())\n"
    program = HOLD.replace("print", f"{write}print")
    container = agent.launch("holder", sys.executable, "-c", program, mem=64 * MB)
    await_ready(container)
    usage = agent.statistics("holder")
    stat = numbers(agent, container, "memory/memory.stat", "memory.stat")
    names = {"anon": "anon", "file": "file", "mapped_file": "file_mapped"}
    if not V2:
        names = {"anon": "total_rss", "file": "total_cache", "mapped_file": "total_mapped_file"}
    for name, cgroups_name in names.items():
        assert usage[f"mem_{name}_bytes"] == pytest.approx(stat[cgroups_name], abs=MB)
    held = stat["kernel"] if V2 else numbers(agent, container, "memory/memory.kmem.usage_in_bytes", "")[""]
    assert usage["mem_kmem_usage_bytes"] == pytest.approx(held, abs=MB)
    swapped = numbers(agent, container, "", "memory.swap.current")[""] if V2 else stat["total_swap"]
    assert usage["mem_swap_bytes"] == swapped
    total = numbers(agent, container, "memory/memory.usage_in_bytes", "memory.current")[""]
    assert usage["mem_total_bytes"] == pytest.approx(total, abs=MB)
    assert 20 * MB <= usage["mem_anon_bytes"] < 40 * MB
    assert 4 * MB <= usage["mem_file_bytes"] < 40 * MB
    assert usage["mem_rss_bytes"] == usage["mem_anon_bytes"]
    assert usage["mem_cache_bytes"] == usage["mem_file_bytes"]
    limit = numbers(agent, container, "memory/memory.limit_in_bytes", "memory.max")[""]
    assert usage["mem_limit_bytes"] == limit == 64 * MB


def test_pressure_counters_grow_under_pressure(agent: Node) -> None:
    greedy = f"{sys.executable} -c \"block = b'x' * (200 << 20)\""
    container = agent.launch(
        "hungry", "sh", "-c", f"echo ready; while ! [ -e go ]; do sleep 0.05; done; {greedy}; sleep 1000"
    )
    await_ready(container)
    # The agent would end a container that exceeds its own limit, and then there is nothing to be read any more.
    limit = cgroup_file(agent, container, "memory/memory.limit_in_bytes", "memory.max")
    limit.write_text(str(32 * MB))
    counters = [f"mem_{level}_pressure_counter" for level in ("low", "medium", "critical")]
    usage = agent.statistics("hungry")
    assert [usage[name] for name in counters] == [0, 0, 0]
    Path(container["sandbox"], "go").touch()
    until(lambda: agent.statistics("hungry")[counters[-1]], "critical pressure")
    usage = agent.statistics("hungry")
    assert usage[counters[0]] >= usage[counters[1]] >= usage[counters[2]] > 0


def test_posix_isolators_measure_the_process_tree() -> None:
    with testbed() as bed, node(bed, "--isolation=posix/cpu,posix/mem,network/port_mapping") as agent:
        holder, burner = (shlex.join([sys.executable, "-c", program]) for program in (HOLD, BURN))
        children = f"{holder} & exec {burner}"
        container = agent.launch("tree", "sh", "-c", children, cpus=0.5, mem=64 * MB)
        await_ready(container)

        def ticks() -> tuple[int, int]:
            lines = (Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in inside(container))
            user, system = zip(*((int(fields[11]), int(fields[12])) for fields in lines), strict=True)
            return sum(user), sum(system)

        until(lambda: ticks()[0] > 0.5 * TICKS_PER_SEC, "work")
        before, usage, after = ticks(), agent.statistics("tree"), ticks()
        assert before[0] <= round(usage["cpus_user_time_secs"] * TICKS_PER_SEC) <= after[0]
        assert before[1] <= round(usage["cpus_system_time_secs"] * TICKS_PER_SEC) <= after[1]
        status = [Path(f"/proc/{pid}/status").read_text() for pid in inside(container)]
        resident = sum(int(kilobytes) << 10 for text in status for kilobytes in re.findall(r"VmRSS:\s+(\d+)", text))
        assert usage["mem_rss_bytes"] == pytest.approx(resident, abs=2 * MB)
        assert usage["mem_rss_bytes"] > 20 * MB
        assert "mem_total_bytes" not in usage
        assert "cpus_nr_periods" not in usage
        assert (usage["cpus_soft_limit"], usage["mem_limit_bytes"]) == (0.5, 64 * MB)
        assert "cpus_limit" not in usage, "a share is no limit"
        assert usage["net_rx_packets"] == 0


def inside(container: dict[str, Any]) -> list[int]:
    """All processes of a container, by its PID namespace."""
    namespace = os.readlink(f"/proc/{container['pid']}/ns/pid")
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(process / "ns/pid") == namespace:
                found.append(int(process.name))
        except OSError:
            continue
    return found


def test_an_isolator_that_fails_costs_only_its_own_fields(agent: Node) -> None:
    container = agent.launch("cut", cpus=1.0)
    whole = agent.statistics("cut")
    namespace = agent.namespace(container)
    agent.bed.run(namespace, "ip", "link", "delete", NIC)
    rest = agent.statistics("cut")
    assert rest.keys() == {name for name in whole if not name.startswith("net_")}
    skipped = f"Skipping resource statistic for container {container['id']} because: .*No such device"
    assert re.search(skipped, agent.log)

"""capacity: how many containers fit on a host, what one more costs, and whether the others notice.

One host gets all the containers, another one has two. Every container of the full host is asked once; then round trips
to its first and its last one, and to one of the other host, take turns; and so do launches of some more on both.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench import pingpong
from bench.crowd import Crowd, cpu_secs, crowd, memory_bytes
from bench.figures import Spread, in_turns, percentile
from bench.report import Report, milliseconds, progress
from portslice.demo.interrupt import then_undisturbed
from portslice.demo.testbed import HOST_ADDRESS

MORE = 20  # launches on the full host to compare
_SAMPLED = 50  # containers whose memory is looked at


def run(containers: int, rounds: int) -> Report:
    """:param containers: two at least."""
    report = Report(f"capacity: {containers} containers with 32 ephemeral ports each")
    with crowd() as full, crowd() as small, then_undisturbed():
        progress(f"Launching {containers} containers")
        kernel_before = _kernel_bytes()
        _report_launches(report, full, full.launch(containers))
        _report_memory(report, full, _kernel_bytes() - kernel_before)
        small.launch(2)
        progress("Asking each of them once")
        began = time.perf_counter()
        _ask_all(full)
        secs = time.perf_counter() - began
        report.say(f"Each of the {containers} answered the world, by UDP and by TCP, all in {secs:.1f} s.")
        progress("Round trips to the first and the last of them, in turns")
        for protocol in pingpong.PROTOCOLS:
            for origin in ("world", "host"):
                found = _round_trips(full, small, protocol, origin, rounds)
                report.compare(f"{protocol} from {origin}", found, "first", "first again", "µs")
        progress("Launching some more on both hosts, in turns")
        _report_one_more(report, full, small)
        progress("Restarting the agent")
        _report_restart(report, full)
        progress("Ending them all")
    return report


def _report_launches(report: Report, full: Crowd, times: Sequence[float]) -> None:
    assert full.agent.process is not None
    hundred = min(100, len(times) // 2)
    parts = {"all": times, f"first {hundred}": times[:hundred], f"last {hundred}": times[-hundred:]}
    rows = []
    for name, values in parts.items():
        spread, p95 = Spread.of(values), percentile(values, 95)
        rows.append((name, *milliseconds(spread), f"{p95 * 1000:.1f}"))
        report.figures[f"launch_secs_{name.replace(' ', '_')}"] = {**spread._asdict(), "p95": p95}
    report.table(("launches", "median ms", "quartiles", "p95"), rows)
    cpu = cpu_secs(full.agent.process.pid) / len(times)
    report.say(f"The agent used {cpu * 1000:.1f} ms of a CPU for each.")
    report.figures["agent_cpu_secs_per_launch"] = cpu


def _report_one_more(report: Report, full: Crowd, small: Crowd) -> None:
    def on(host: Crowd) -> Callable[[], float]:
        return lambda: host.launch(1)[0] * 1000

    subjects = {"host with few": on(small), "host with few again": on(small), "full host": on(full)}
    found = in_turns(subjects, MORE)
    report.compare("one more launch", found, "host with few", "host with few again", "ms")


def _report_memory(report: Report, full: Crowd, kernel: int) -> None:
    assert full.agent.process is not None
    agent, _ = memory_bytes(full.agent.process.pid)
    every = full.containers[:: -(-len(full.containers) // _SAMPLED)]
    trees = [_tree(int(each["pid"])) for each in every]
    sizes = [[memory_bytes(pid) for pid in tree] for tree in trees]
    processes = len(trees[0])
    resident = Spread.of([sum(rss for rss, _ in each) for each in sizes]).median
    proportional = Spread.of([sum(pss for _, pss in each) for each in sizes]).median
    kernel_each = kernel / len(full.containers)
    megabytes = 1 << 20
    report.say(
        f"Memory: the agent has {agent / megabytes:.0f} MB. A container has {processes} processes, its command "
        f"included: resident {resident / megabytes:.1f} MB, {proportional / megabytes:.2f} MB if what is shared is "
        f"divided; the kernel keeps {kernel_each / megabytes:.2f} MB for it."
    )
    report.figures["memory_bytes"] = {
        "agent_resident": agent,
        "container_processes": processes,
        "container_resident": resident,
        "container_proportional": proportional,
        "kernel_per_container": kernel_each,
    }


def _tree(init: int) -> list[int]:
    """The processes of a container: its first one and what is below, and those that supervise it."""
    found = [init]
    for pid in found:
        found += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    parent = init
    while "supervise.sh" not in Path(f"/proc/{parent}/cmdline").read_text():
        fields = Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()
        parent = int(fields[1])
        found.append(parent)
    return found


def _kernel_bytes() -> int:
    """What the whole machine's kernel has for itself: slabs, stacks, page tables, per-CPU memory."""
    lines = (line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    values = {name: int(value.split()[0]) * 1024 for name, value in lines}
    return sum(values[name] for name in ("Slab", "KernelStack", "PageTables", "Percpu"))


def _ask_all(full: Crowd) -> None:
    """:raises OSError: one of them does not answer."""
    for number in range(len(full.containers)):
        for connect in pingpong.PROTOCOLS.values():
            with connect(full.bed.world, full.namespace(number), HOST_ADDRESS, full.port(number)) as pair:
                pair.trip()


def _round_trips(full: Crowd, small: Crowd, protocol: str, origin: str, rounds: int) -> dict[str, list[float]]:
    def subject(host: Crowd, number: int) -> Callable[[], float]:
        client: Path = getattr(host.bed, origin)
        return pingpong.subject(protocol, client, host.namespace(number), HOST_ADDRESS, host.port(number))

    first = subject(full, 0)
    subjects = {"first": first, "first again": first, "last": subject(full, -1), "one of two": subject(small, 0)}
    return in_turns(subjects, rounds)


def _report_restart(report: Report, full: Crowd) -> None:
    timings: dict[str, Any] = {}
    for name, action in (("stop", full.agent.stop), ("start", full.agent.start)):
        began = time.perf_counter()
        action()
        timings[name] = time.perf_counter() - began
    report.say(
        f"The agent stopped in {timings['stop']:.2f} s, and with all containers on record another one was ready in "
        f"{timings['start']:.1f} s."
    )
    report.figures |= {"stop_secs": timings["stop"], "recovery_secs": timings["start"]}
    running = sum(each["state"] == "running" for each in full.agent.client.containers())
    report.say(f"It found {running} of {len(full.containers)}.")

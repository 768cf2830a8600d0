"""perf(1): the command line that counts events in cgroups, and what it prints, as members of Mesos' PerfStatistics.

With a separator `perf stat` prints one line for each event and cgroup. How many fields it has depends on the version:

    value,event,cgroup                                        since Linux 2.6.39
    value,unit,event,cgroup[,running,percent[,metric,unit]]   since 3.14, 4.1 and 4.6; 10 fields with a variance

Where perf derives more than one metric from an event, lines without an event follow (MESOS-8664): nothing is counted
there. An alias of an event is printed as it is by newer versions, and by its primary name by older ones.
"""

import re
from collections.abc import Collection, Iterable, Sequence

from portslice.errors import ContainerError, ParseError

Counts = dict[str, int | float]

MIN_VERSION = (2, 6, 39)  # knows cgroups and the separator

_FAILED = "Failed to parse perf sample"
_DOUBLES = frozenset({"cpu_clock", "task_clock"})  # milliseconds
_PLAIN = (
    "cycles stalled_cycles_frontend stalled_cycles_backend instructions cache_references cache_misses branches "
    "branch_misses bus_cycles ref_cycles page_faults minor_faults major_faults context_switches cpu_migrations "
    "alignment_faults emulation_faults"
)
_CACHES = {
    "l1_dcache": "loads load_misses stores store_misses prefetches prefetch_misses",
    "l1_icache": "loads load_misses prefetches prefetch_misses",
    "llc": "loads load_misses stores store_misses prefetches prefetch_misses",
    "dtlb": "loads load_misses stores store_misses prefetches prefetch_misses",
    "itlb": "loads load_misses",
    "branch": "loads load_misses",
    "node": "loads load_misses stores store_misses prefetches prefetch_misses",
}
FIELDS = _DOUBLES.union(
    _PLAIN.split(), (f"{cache}_{kind}" for cache, kinds in _CACHES.items() for kind in kinds.split())
)
"""Members of PerfStatistics that count events; the others are `timestamp` and `duration`."""

_ALIASES = {
    "cpu_cycles": "cycles",
    "idle_cycles_frontend": "stalled_cycles_frontend",
    "idle_cycles_backend": "stalled_cycles_backend",
    "branch_instructions": "branches",
    "faults": "page_faults",
    "cs": "context_switches",
    "migrations": "cpu_migrations",
}


def command(events: Iterable[str], cgroups: Collection[str], workload: Sequence[str]) -> list[str]:
    """The command line that counts these events in each of these cgroups while the workload runs.

    :param cgroups: relative to where the hierarchy is mounted that has perf_event, or else that of version 2.
    """
    pairs = [word for event in events for cgroup in cgroups for word in ("--event", event, "--cgroup", cgroup)]
    return ["perf", "stat", "--all-cpus", "--field-separator", ",", "--log-fd", "1", *pairs, "--", *workload]


def version(text: str) -> tuple[int, int, int]:
    """Of what `perf --version` prints, e.g. `perf version 6.1.187` or `perf version 5.10.g1f6c8`.

    :raises ParseError: it is something else.
    """
    match = re.match(r"perf version (\d+)\.(\d+)(?:\.(\d+))?", text.strip())
    if match is None:
        raise ParseError(f"'{text.strip()}' is no version of perf")
    return int(match[1]), int(match[2]), int(match[3] or 0)


def parse(output: str) -> dict[str, Counts]:
    """What was counted, by cgroup and by the member's name; what the machine cannot count is left out.

    :raises ContainerError: with Mesos' words: a line is of no known form, or about no member of PerfStatistics.
    """
    found: dict[str, Counts] = {}
    for line in output.splitlines():
        fields = line.split(",")
        if not line or line.startswith("#"):
            continue
        if len(fields) == 3:
            value, event, cgroup = fields
        elif len(fields) in (4, 6, 8, 10):
            value, _unit, event, cgroup = fields[:4]
        else:
            raise ContainerError(
                f"{_FAILED}: {_FAILED} line '{line}': Unexpected number of fields ({len(fields)})"
            )
        if not event:
            continue
        name = event.lower().replace("-", "_").partition(":")[0]  # behind it: in which modes it is counted
        name = _ALIASES.get(name, name)
        if name not in FIELDS:
            raise ContainerError(f"{_FAILED}: Unexpected event '{name}' in perf output at line: {line}")
        counts = found.setdefault(cgroup, {})
        if value != "<not supported>":
            counts[name] = _number(line, "0" if value == "<not counted>" else value, double=name in _DOUBLES)
    return found


def _number(line: str, value: str, *, double: bool) -> int | float:
    try:
        return float(value) if double else int(value)
    except ValueError:
        raise ContainerError(f"{_FAILED}: Unable to parse perf value at line: {line}") from None

"""cgroup v2: one tree for all controllers (kernel: Documentation/admin-guide/cgroup-v2.rst).

Theory of operation: a controller must be enabled in ``cgroup.subtree_control`` of every ancestor before a cgroup has
its files, and an ancestor that does so may not hold processes itself. The top of the machine's hierarchy is exempt; our
root holds none; and a container's processes live in ``<id>/leaf``, where the controllers are off, so that they are
charged to ``<id>``, which carries the limits.
"""

from collections.abc import Set
from pathlib import Path

from portslice.containers.cgroups.membership import Membership, trees
from portslice.containers.cgroups.model import (
    CFS_PERIOD_USECS,
    MIN_MEMORY_BYTES,
    CpuStat,
    IoStat,
    MemoryStat,
    OutOfMemory,
    Pressure,
    PressureStat,
    Tasks,
    cfs_quota_usecs,
    cpu_weight,
    raises_limit,
)
from portslice.containers.cgroups.tree import Tree, read, read_number, read_table, write
from portslice.errors import ContainerError

_KERNEL_MEMORY = ("kernel_stack", "pagetables", "sock", "vmalloc", "slab")
"""The parts of ``kernel`` in memory.stat, which has no sum of them before Linux 5.18."""
_OPERATIONS = {"READ": "r", "WRITE": "w", "DISCARD": "d"}


class CgroupsV2(Membership):
    version = 2

    def __init__(self, hierarchy: Path, root: str) -> None:
        self._tree = Tree(hierarchy, root)
        found = trees(hierarchy, root)
        super().__init__({each: tree if each.names else self._tree for each, tree in found.items()})

    def missing(self, controllers: Set[str]) -> list[str]:
        return sorted(controllers - set((read(self._tree.mount / "cgroup.controllers") or "").split()))

    def probe(self, controllers: Set[str]) -> None:
        self._probe([self._tree] if controllers else [])

    def create(self, container_id: str, controllers: Set[str]) -> None:
        if controllers:
            self._enable(controllers)
        self._create(container_id)

    def set_cpu(self, container_id: str, cpus: float, quota: bool) -> None:
        path = self._tree.path(container_id)
        write(path / "cpu.weight", str(cpu_weight(cpus)))
        if quota or (path / "cpu.max").exists():
            write(path / "cpu.max", f"{cfs_quota_usecs(cpus) if quota else 'max'} {CFS_PERIOD_USECS}")

    def set_memory(self, container_id: str, limit_bytes: int, swap: bool = False) -> None:
        path = self._tree.path(container_id)
        limit_bytes = max(limit_bytes, MIN_MEMORY_BYTES)
        write(path / "memory.low", str(limit_bytes))
        if raises_limit(read_number(path / "memory.max"), limit_bytes):
            write(path / "memory.max", str(limit_bytes))

    def limits_swap(self) -> bool:
        return False  # only swap by itself

    def tasks(self, container_id: str) -> Tasks:
        return Tasks(*(len(self._tree.listed(container_id, file)) for file in ("cgroup.procs", "cgroup.threads")))

    def cpu_stat(self, container_id: str) -> CpuStat:
        stat = read_table(self._tree.file(container_id, "cpu.stat"))
        secs = {key: value / 1e6 for key, value in stat.items()}
        return CpuStat(
            user_secs=secs.get("user_usec"),
            system_secs=secs.get("system_usec"),
            nr_periods=stat.get("nr_periods"),
            nr_throttled=stat.get("nr_throttled"),
            throttled_secs=secs.get("throttled_usec"),
        )

    def memory_stat(self, container_id: str) -> MemoryStat:
        stat = read_table(self._tree.file(container_id, "memory.stat"))
        return MemoryStat(
            total=read_number(self._tree.file(container_id, "memory.current")),
            anon=stat.get("anon"),
            file=stat.get("file"),
            mapped_file=stat.get("file_mapped"),
            swap=read_number(self._tree.file(container_id, "memory.swap.current")),
            unevictable=stat.get("unevictable"),
            kernel=stat.get("kernel", sum(stat.get(name, 0) for name in _KERNEL_MEMORY)) if stat else None,
            kernel_tcp=stat.get("sock"),
        )

    def out_of_memory(self, container_id: str) -> OutOfMemory | None:
        limit = read_number(self._tree.file(container_id, "memory.max"))
        if limit is None or not read_table(self._tree.file(container_id, "memory.events")).get("oom_kill"):
            return None
        return OutOfMemory(
            limit=limit,
            most=read_number(self._tree.file(container_id, "memory.peak")) or limit,  # since Linux 5.19
            statistics=read(self._tree.file(container_id, "memory.stat")) or "",
        )

    def memory_and_swap(self, container_id: str) -> int | None:
        return None

    def io_stat(self, container_id: str) -> list[IoStat]:
        text = read(self._tree.file(container_id, "io.stat"))
        if text is None:
            return []
        devices = [_io_stat(line) for line in text.splitlines()]
        every = IoStat(
            None,
            {"TOTAL": sum(stat.operations["TOTAL"] for stat in devices)},
            {"TOTAL": sum(stat.size["TOTAL"] for stat in devices)},
        )
        return [*devices, every]

    def pressure(self, container_id: str) -> Pressure:
        return _MemoryEvents(self._tree.file(container_id, "memory.events"))

    def _enable(self, controllers: Set[str]) -> None:
        """Let our root's children have the controllers: enable them from the top down to the root."""
        if missing := self.missing(controllers):
            raise ContainerError(f"The cgroup controllers {', '.join(missing)} are not available in {self._tree.mount}")
        try:
            self._tree.make_root()
        except OSError as error:
            raise ContainerError(f"Failed to create the cgroup {self._tree.root}: {error.strerror}") from error
        ancestors = [path for path in self._tree.root.parents if path.is_relative_to(self._tree.mount)]
        for cgroup in (*reversed(ancestors), self._tree.root):
            control = cgroup / "cgroup.subtree_control"
            for controller in sorted(controllers - set((read(control) or "").split())):
                try:
                    control.write_text(f"+{controller}")
                except OSError as error:
                    raise ContainerError(
                        f"Failed to enable the cgroup controller {controller} in {control}: {error.strerror}"
                        " (a cgroup with processes of its own cannot pass controllers on)"
                    ) from error


class _MemoryEvents:
    """Pressure levels from ``memory.events``, v2 having no ``memory.pressure_level`` (Mesos reports none there).

    low: memory was taken back, because of ``memory.high``, ``memory.max``, or of the whole machine (``low``); medium:
    ``memory.max`` was reached; critical: the limit could not be kept by taking back (``oom``). As on v1, a level
    includes what is worse. The kernel counts from the container's start, so a restart of the agent loses nothing.
    """

    def __init__(self, events: str) -> None:
        self._events = events

    def read(self) -> PressureStat:
        events = read_table(self._events)
        if not events:
            return PressureStat(None, None, None)
        at_limit = events.get("max", 0)
        taken_back = events.get("low", 0) + events.get("high", 0) + at_limit
        return PressureStat(low=taken_back, medium=at_limit, critical=events.get("oom", 0))

    def close(self) -> None:
        """Nothing is held open."""


def _io_stat(line: str) -> IoStat:
    number, *words = line.split()  # 8:0 rbytes=1459200 wbytes=314773504 rios=192 wios=353 dbytes=0 dios=0
    major, minor = number.split(":")
    values = {name: int(value) for name, _, value in (word.partition("=") for word in words) if value.isdigit()}

    def of(unit: str) -> dict[str, int]:
        found = {operation: values.get(f"{letter}{unit}", 0) for operation, letter in _OPERATIONS.items()}
        return {**found, "TOTAL": sum(found.values())}

    return IoStat((int(major), int(minor)), of("ios"), of("bytes"))

"""What a cgroup tells and what it can be told, whatever the version of the hierarchy.

Base units throughout: seconds, bytes, CPUs. A figure is None where the kernel has no file for it, so that one missing
file only drops its own field.
"""

from collections.abc import Set
from pathlib import Path
from typing import NamedTuple, Protocol

CONTROLLERS = frozenset({"cpu", "io", "memory"})

CFS_PERIOD_USECS = 100_000
MIN_CFS_QUOTA_USECS = 1_000
MIN_MEMORY_BYTES = 32 * 1024 * 1024


class CpuStat(NamedTuple):
    """CPU time since the container's start, and how often CFS bandwidth control held it back."""

    user_secs: float | None
    system_secs: float | None
    nr_periods: int | None
    nr_throttled: int | None
    throttled_secs: float | None


class Tasks(NamedTuple):
    """How many there are now."""

    processes: int
    threads: int


class MemoryStat(NamedTuple):
    """Bytes in use now. ``file`` is the page cache; ``kernel`` is what the kernel holds for the container, and
    ``kernel_tcp`` its part in socket buffers.
    """

    total: int | None
    anon: int | None
    file: int | None
    mapped_file: int | None
    swap: int | None
    unevictable: int | None
    kernel: int | None
    kernel_tcp: int | None


class OutOfMemory(NamedTuple):
    """That the kernel has killed processes for memory.

    :param limit: bytes that they may have, together with all others of the container.
    :param most: bytes that these have had at a time, as far as the kernel tells.
    :param statistics: memory.stat, as it is.
    """

    limit: int
    most: int
    statistics: str


class PressureStat(NamedTuple):
    """How often the kernel signalled memory pressure, by level."""

    low: int | None
    medium: int | None
    critical: int | None


class Stall(NamedTuple):
    """Pressure stall information (kernel: Documentation/accounting/psi.rst).

    :param avg10: percent of the last 10 s in which tasks waited for a resource.
    :param total_secs: how long they have since the container's start.
    """

    avg10: float
    total_secs: float


class IoStat(NamedTuple):
    """What was done on a block device since the container's start, by the kernel's word for it in capitals (READ,
    WRITE, SYNC, ASYNC, DISCARD, TOTAL).

    :param device: major and minor number; None: on all of them together.
    :param operations: how many.
    :param size: how many bytes.
    """

    device: tuple[int, int] | None
    operations: dict[str, int]
    size: dict[str, int]


class Pressure(Protocol):
    """Counts a container's memory pressure for as long as it is open."""

    def read(self) -> PressureStat: ...

    def close(self) -> None: ...


class Cgroups(Protocol):
    """The cgroups of all our containers, in every hierarchy of the machine. What exists is what these show: nothing
    else is remembered of a container.
    """

    @property
    def version(self) -> int:
        """1 or 2."""

    def missing(self, controllers: Set[str]) -> list[str]:
        """The controllers, of those asked for, that this kernel does not offer here; sorted."""

    def probe(self, controllers: Set[str]) -> None:
        """Try to join a cgroup in every hierarchy, once, before the first ``create``; leave out, with a warning, those
        where that fails. ContainerError if the controllers need one of them.
        """

    def create(self, container_id: str, controllers: Set[str]) -> None:
        """Make the container's cgroups, in all hierarchies; the controllers are to limit and measure. ConflictError if
        they exist, ContainerError if the kernel refuses.
        """

    def set_cpu(self, container_id: str, cpus: float, quota: bool) -> None:
        """Share, and with ``quota`` also hard limit, of CPU time: 1024 shares or a weight of 100 for each CPU."""

    def set_memory(self, container_id: str, limit_bytes: int, swap: bool = False) -> None:
        """The soft limit always, the hard limit at first and later only when it rises; 32 MB at least. With ``swap``
        the hard limit also holds for memory and swap together: only where ``limits_swap``.
        """

    def join_files(self, container_id: str) -> list[Path]:
        """The files into which the container's first process writes 0 to join."""

    def limits_swap(self) -> bool:
        """Whether memory and swap together can be limited, and are counted."""

    def tasks(self, container_id: str) -> Tasks:
        """In the container's cgroup and all below it. Needs the controller ``cpu``."""

    def cpu_stat(self, container_id: str) -> CpuStat: ...

    def memory_stat(self, container_id: str) -> MemoryStat: ...

    def out_of_memory(self, container_id: str) -> OutOfMemory | None:
        """None: the kernel has killed nobody of the container for its limit."""

    def memory_and_swap(self, container_id: str) -> int | None:
        """Bytes in use now of both together, where ``limits_swap``."""

    def io_stat(self, container_id: str) -> list[IoStat]:
        """Of each device, and at last of all together; empty where the kernel has no file for it."""

    def stalls(self, container_id: str, resource: str) -> dict[str, Stall]:
        """How long tasks waited for the resource, ``cpu``, ``io`` or ``memory``: ``some`` of them, and all at a time
        (``full``). Only v2 has it, which may be mounted beside v1; empty where the kernel does not tell.
        """

    def pressure(self, container_id: str) -> Pressure:
        """A counter of memory pressure, to be closed; also for a container that has been running for a while."""

    @property
    def has_perf(self) -> bool:
        """Whether events can be counted in cgroups of containers."""

    def perf_name(self, container_id: str) -> str | None:
        """The container's cgroup as perf(1) names it: from where its hierarchy is mounted. None without one."""

    def ids(self) -> list[str]:
        """The ids of all containers that have cgroups below our root, ours of an earlier life included; sorted."""

    def destroy(self, container_id: str) -> None:
        """Remove the container's cgroups, if any; its processes must be gone. ContainerError if some remain."""

    def remove_root(self) -> None:
        """Remove our root cgroups where they are empty."""


def cpu_shares(cpus: float) -> int:
    return max(2, int(1024 * cpus))


def cpu_weight(cpus: float) -> int:
    return min(10_000, max(1, int(100 * cpus)))


def cfs_quota_usecs(cpus: float) -> int:
    return max(MIN_CFS_QUOTA_USECS, int(cpus * CFS_PERIOD_USECS))


def raises_limit(current: int | None, limit: int) -> bool:
    """Whether to set a hard memory limit. ``current`` is None while there is none.

    A limit is not lowered below what a running container may be using: the kernel would kill it (Mesos' rule).
    """
    return current is None or limit > current

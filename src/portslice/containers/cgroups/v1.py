"""cgroup v1: one tree for each controller, wherever it is mounted (kernel: Documentation/admin-guide/cgroup-v1).

Mesos keeps a container's processes in ``<controller>/<root>/<id>`` itself. Ours live one level below, in ``leaf``, as
on v2 (``membership`` says why). All figures are read, and all limits set, on ``<id>``; they hold for the whole subtree.

Block devices: ``blkio.throttle`` counts whether anything is throttled or not, but since Linux 6.10 only on a device for
which some cgroup was given a rule once, be it one that limits nothing.
"""

import contextlib
import logging
import os
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
    cpu_shares,
    raises_limit,
)
from portslice.containers.cgroups.tree import Tree, read, read_number, read_table, write
from portslice.errors import ContainerError

log = logging.getLogger(__name__)

_TICKS_PER_SEC = os.sysconf("SC_CLK_TCK")
_UNLIMITED_BYTES = 1 << 62
"""memory.limit_in_bytes shows the greatest multiple of the page size in 63 bits when there is no limit."""

_KERNEL_CONTROLLERS = {"cpu": ("cpu", "cpuacct"), "io": ("blkio",)}
_THROTTLE = "blkio.throttle.{}_recursive"


class CgroupsV1(Membership):
    version = 1

    def __init__(self, hierarchy: Path, root: str) -> None:
        found = trees(hierarchy, root)
        super().__init__(found)
        self._trees = {
            name: tree
            for each, tree in found.items()
            if tree is not None and tree.mount.is_relative_to(hierarchy)
            for name in each.names
        }

    def missing(self, controllers: Set[str]) -> list[str]:
        return sorted(name for name in _kernel_controllers(controllers) if name not in self._trees)

    def probe(self, controllers: Set[str]) -> None:
        self._probe([self._trees[name] for name in _kernel_controllers(controllers)])
        if "io" in controllers:
            self._tell_uncounted_devices(self._trees["blkio"].mount)

    def create(self, container_id: str, controllers: Set[str]) -> None:
        if missing := self.missing(controllers):
            raise ContainerError(f"No cgroup controller {', '.join(missing)} is mounted")
        self._create(container_id)

    def set_cpu(self, container_id: str, cpus: float, quota: bool) -> None:
        path = self._path("cpu", container_id)
        write(path / "cpu.shares", str(cpu_shares(cpus)))
        if quota:
            write(path / "cpu.cfs_period_us", str(CFS_PERIOD_USECS))
        if quota or (path / "cpu.cfs_quota_us").exists():
            write(path / "cpu.cfs_quota_us", str(cfs_quota_usecs(cpus)) if quota else "-1")

    def set_memory(self, container_id: str, limit_bytes: int, swap: bool = False) -> None:
        path = self._path("memory", container_id)
        limit_bytes = max(limit_bytes, MIN_MEMORY_BYTES)
        write(path / "memory.soft_limit_in_bytes", str(limit_bytes))
        current = read_number(path / "memory.limit_in_bytes")
        if current is not None and current >= _UNLIMITED_BYTES:
            current = None
        together = path / "memory.memsw.limit_in_bytes"
        both = str(max(limit_bytes, current or 0)) if swap else "-1"
        # The kernel refuses to allow less of memory and swap together than of memory alone: they rise first and fall
        # last.
        if current is not None and (swap or together.exists()):
            write(together, both)
        if raises_limit(current, limit_bytes):
            write(path / "memory.limit_in_bytes", str(limit_bytes))
        if current is None and swap:
            write(together, both)

    def limits_swap(self) -> bool:
        return "memory" in self._trees and (self._trees["memory"].mount / "memory.memsw.limit_in_bytes").exists()

    def tasks(self, container_id: str) -> Tasks:
        tree = self._tree("cpuacct")
        return Tasks(*(len(tree.listed(container_id, file)) for file in ("cgroup.procs", "tasks")))

    def cpu_stat(self, container_id: str) -> CpuStat:
        used = read_table(self._file("cpuacct", container_id, "cpuacct.stat"))
        bandwidth = read_table(self._file("cpu", container_id, "cpu.stat"))
        return CpuStat(
            user_secs=used["user"] / _TICKS_PER_SEC if "user" in used else None,
            system_secs=used["system"] / _TICKS_PER_SEC if "system" in used else None,
            nr_periods=bandwidth.get("nr_periods"),
            nr_throttled=bandwidth.get("nr_throttled"),
            throttled_secs=bandwidth["throttled_time"] / 1e9 if "throttled_time" in bandwidth else None,
        )

    def memory_stat(self, container_id: str) -> MemoryStat:
        stat = read_table(self._file("memory", container_id, "memory.stat"))
        return MemoryStat(
            total=read_number(self._file("memory", container_id, "memory.usage_in_bytes")),
            anon=stat.get("total_rss"),
            file=stat.get("total_cache"),
            mapped_file=stat.get("total_mapped_file"),
            swap=stat.get("total_swap"),
            unevictable=stat.get("total_unevictable"),
            kernel=read_number(self._file("memory", container_id, "memory.kmem.usage_in_bytes")),
            kernel_tcp=read_number(self._file("memory", container_id, "memory.kmem.tcp.usage_in_bytes")),
        )

    def out_of_memory(self, container_id: str) -> OutOfMemory | None:
        # Unlike on v2 a cgroup counts those in itself only, not those below.
        counts = self._tree("memory").tables(container_id, "memory.oom_control")
        limit = read_number(self._file("memory", container_id, "memory.limit_in_bytes"))
        if limit is None or not any(count.get("oom_kill") for count in counts):
            return None
        return OutOfMemory(
            limit=limit,
            most=read_number(self._file("memory", container_id, "memory.max_usage_in_bytes")) or limit,
            statistics=read(self._file("memory", container_id, "memory.stat")) or "",
        )

    def memory_and_swap(self, container_id: str) -> int | None:
        return read_number(self._file("memory", container_id, "memory.memsw.usage_in_bytes"))

    def io_stat(self, container_id: str) -> list[IoStat]:
        return _io_stat(self._file("blkio", container_id, _THROTTLE))

    def pressure(self, container_id: str) -> Pressure:
        return _EventCounters(self._path("memory", container_id))

    def _tell_uncounted_devices(self, blkio: Path) -> None:
        counted = {stat.device for stat in _io_stat(f"{blkio}/{_THROTTLE}")}
        for block in sorted(Path("/sys/block").iterdir()):
            number = read(block / "dev")  # a path of a multipath device has none
            done = [int(word) for word in (read(block / "stat") or "").split()]
            if number and any(done) and _device(number) not in counted:
                log.warning(
                    "blkio_statistics will not show the block device %s, of which this kernel counts nothing until it "
                    "was given a rule once. To begin with one that limits nothing: echo '%s 0' >%s",
                    *(block.name, number, blkio / "blkio.throttle.read_bps_device"),
                )

    def _path(self, controller: str, container_id: str) -> Path:
        return self._tree(controller).path(container_id)

    def _file(self, controller: str, container_id: str, name: str) -> str:
        return self._tree(controller).file(container_id, name)

    def _tree(self, controller: str) -> Tree:
        if controller not in self._trees:
            raise ContainerError(f"No cgroup controller {controller} is mounted")
        return self._trees[controller]


class _EventCounters:
    """Pressure levels as the kernel signals them on event descriptors (cgroup-v1/memory.rst §11).

    The count lives in this object: it begins at zero when opened, so also after a restart of the agent, as in Mesos.
    A level counts the events of the higher levels too. Between two readings the kernel itself adds up.
    """

    def __init__(self, cgroup: Path) -> None:
        self._counts = dict.fromkeys(PressureStat._fields, 0)
        self._events: dict[str, int] = {}
        for level in PressureStat._fields:
            with contextlib.suppress(OSError):
                self._events[level] = _register(cgroup, level)

    def read(self) -> PressureStat:
        for level, event in self._events.items():
            with contextlib.suppress(BlockingIOError):
                self._counts[level] += os.eventfd_read(event)
        return PressureStat(*(self._counts[level] if level in self._events else None for level in PressureStat._fields))

    def close(self) -> None:
        while self._events:
            os.close(self._events.popitem()[1])


def _register(cgroup: Path, level: str) -> int:
    pressure = os.open(cgroup / "memory.pressure_level", os.O_RDONLY | os.O_CLOEXEC)
    try:
        event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        try:
            # "hierarchy": a listener that the container has put further down must not swallow the event.
            (cgroup / "cgroup.event_control").write_text(f"{event} {pressure} {level},hierarchy")
        except OSError:
            os.close(event)
            raise
        return event
    finally:
        os.close(pressure)


def _io_stat(files: str) -> list[IoStat]:
    """Of a cgroup and all below it."""
    found: dict[tuple[int, int] | None, IoStat] = {}
    for file, member in (("io_serviced", "operations"), ("io_service_bytes", "size")):
        for line in (read(files.format(file)) or "").splitlines():
            *device, operation, value = line.split()  # 254:0 Read 8192, and at last: Total 8192
            number = _device(device[0]) if device else None
            stat = found.setdefault(number, IoStat(number, {}, {}))
            getattr(stat, member)[operation.upper()] = int(value)
    return sorted(found.values(), key=lambda stat: (stat.device is None, *(stat.device or ())))


def _device(number: str) -> tuple[int, int]:
    major, minor = number.split(":")
    return int(major), int(minor)


def _kernel_controllers(controllers: Set[str]) -> list[str]:
    return [name for wanted in controllers for name in _KERNEL_CONTROLLERS.get(wanted, (wanted,))]

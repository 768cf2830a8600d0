"""cgroups/cpu, cgroups/mem and cgroups/blkio: one isolator over the controllers asked for, since they share a
container's cgroup.

As in Mesos a container that runs out of memory is ended, all of it, also where the kernel has killed one process and
the others would have gone on: the kernel's counts are read in the background.

It is there without them, too: that a container has cgroups of its own keeps it from those of others
(portslice.containers.cgroups.membership). The controllers only decide what is limited and measured.
"""

import asyncio
import logging
import time
from collections.abc import Iterable, Sequence, Set

from portslice.containers.cgroups import Cgroups, IoStat, Pressure
from portslice.containers.container import Change, Container, Limitation, State
from portslice.containers.isolators import BaseIsolator, Containers, Launch, Sampler, Statistics
from portslice.errors import ConflictError, PortsliceError
from portslice.units import Bytes

log = logging.getLogger(__name__)

_MEMORY_SECS = 1.0
_REST = 49  # times as long as it took: 2 % of one CPU at most


class CgroupsIsolator(BaseIsolator):
    """Shares, quotas and limits; the figures of all these controllers."""

    name = "cgroups"

    def __init__(
        self,
        cgroups: Cgroups,
        controllers: Set[str],
        *,
        quota: bool,
        limit_swap: bool = False,
        count_tasks: bool = False,
    ) -> None:
        """:param controllers: of "cpu", "io" and "memory".
        :param quota: limit CPUs hard as well (--cgroups_enable_cfs).
        :param limit_swap: limit memory and swap together as well (--cgroups_limit_swap); `Cgroups.limits_swap`.
        :param count_tasks: tell of processes and threads (--cgroups_cpu_enable_pids_and_tids_count).
        :raises ContainerError: the cgroups of a controller cannot be joined.
        """
        cgroups.probe(controllers)
        self._cgroups = cgroups
        self._controllers = frozenset(controllers)
        self._quota = quota
        self._limit_swap = limit_swap
        self._count_tasks = count_tasks
        self._pressures: dict[str, Pressure] = {}

    def prepare(self, container: Container) -> Launch:
        self._cgroups.create(container.id, self._controllers)
        self._limit_cpu(container)
        self._limit_memory(container)
        return Launch(join_files=tuple(self._cgroups.join_files(container.id)))

    def isolate(self, container: Container) -> None:
        if "memory" in self._controllers and container.id not in self._pressures:
            self._pressures[container.id] = self._cgroups.pressure(container.id)

    def reallocate(self, container: Container, change: Change) -> Container:
        if "memory" in self._controllers and change.mem is not None:
            # Version 2 of cgroups does not refuse such a limit: it kills.
            used = self._cgroups.memory_stat(container.id).anon
            if used is not None and used > change.mem:
                raise ConflictError(
                    f"The container uses {Bytes(used)} of memory, which is more than {Bytes(change.mem)}"
                )
        return container

    def update(self, old: Container, new: Container) -> None:
        if new.cpus != old.cpus:
            self._limit_cpu(new)
        if new.mem != old.mem:  # last: a limit that was raised is not lowered again (`Cgroups.set_memory`)
            self._limit_memory(new)

    def usage(self, container: Container) -> Statistics:
        statistics: Statistics = {}
        if "cpu" in self._controllers:
            cpu = self._cgroups.cpu_stat(container.id)
            statistics |= {"cpus_user_time_secs": cpu.user_secs, "cpus_system_time_secs": cpu.system_secs}
            if self._quota or self._cgroups.version == 2:  # as in Mesos
                statistics |= {
                    "cpus_nr_periods": cpu.nr_periods,
                    "cpus_nr_throttled": cpu.nr_throttled,
                    "cpus_throttled_time_secs": cpu.throttled_secs,
                }
            if self._count_tasks:
                statistics |= self._cgroups.tasks(container.id)._asdict()
        if "memory" in self._controllers:
            memory = self._cgroups.memory_stat(container.id)
            statistics |= {
                "mem_total_bytes": memory.total,
                "mem_anon_bytes": memory.anon,
                "mem_rss_bytes": memory.anon,
                "mem_file_bytes": memory.file,
                "mem_cache_bytes": memory.file,
                "mem_mapped_file_bytes": memory.mapped_file,
                "mem_swap_bytes": memory.swap,
                "mem_unevictable_bytes": memory.unevictable,
                "mem_kmem_usage_bytes": memory.kernel,
                "mem_kmem_tcp_usage_bytes": memory.kernel_tcp,
            }
            if self._limit_swap:
                statistics["mem_total_memsw_bytes"] = self._cgroups.memory_and_swap(container.id)
            if (pressure := self._pressures.get(container.id)) is not None:
                levels = pressure.read()._asdict()
                statistics |= {f"mem_{level}_pressure_counter": count for level, count in levels.items()}
        if "io" in self._controllers and (devices := self._cgroups.io_stat(container.id)):
            statistics["blkio_statistics"] = {"throttling": [_throttling(device) for device in devices]}
        stalls = {resource: self._cgroups.stalls(container.id, resource) for resource in sorted(self._controllers)}
        if told := {resource: kinds for resource, kinds in stalls.items() if kinds}:  # beyond Mesos
            statistics["psi"] = {
                resource: {kind: stall._asdict() for kind, stall in kinds.items()} for resource, kinds in told.items()
            }
        return {name: value for name, value in statistics.items() if value is not None}

    def samplers(self) -> Sequence[Sampler]:
        return [Sampler(_MEMORY_SECS, self._watch_memory)] if "memory" in self._controllers else []

    async def _watch_memory(self, containers: Containers) -> None:
        began = time.monotonic()
        await asyncio.to_thread(self._end_who_ran_out, containers)
        await asyncio.sleep(_REST * (time.monotonic() - began))

    def _end_who_ran_out(self, containers: Containers) -> None:
        for container in containers.living():
            if container.mem is not None and (limitation := self.limitation(container)) is not None:
                containers.limit(container, limitation)

    def limitation(self, container: Container) -> Limitation | None:
        if "memory" not in self._controllers or (out := self._cgroups.out_of_memory(container.id)) is None:
            return None
        statistics = "".join(f"{line}\n" for line in out.statistics.splitlines())
        return Limitation(
            "mem",
            out.most,
            f"Memory limit exceeded: Requested: {Bytes(out.limit)} Maximum Used: {Bytes(out.most)}\n\n"
            f"MEMORY STATISTICS: \n{statistics}",
        )

    def cleanup(self, container: Container) -> list[str]:
        if (pressure := self._pressures.pop(container.id, None)) is not None:
            pressure.close()
        try:
            self._cgroups.destroy(container.id)
        except Exception as error:
            return [str(error)]
        return []

    def recover(self, containers: Iterable[Container], orphans: Iterable[str]) -> None:
        """Finish an update in the middle of which an agent ended. There is nothing to look for but the orphans': the
        record is written before a cgroup is made, so no other is ever without one."""
        for container_id in orphans:
            self._cgroups.destroy(container_id)
        for container in containers:
            if container.state is State.RUNNING:
                try:
                    self._limit_cpu(container)
                    self._limit_memory(container)
                except PortsliceError as error:  # of a container that an agent without the controller started
                    log.warning("The limits of container %s are not what they should be: %s", container.id, error)

    def close(self, *, release: bool) -> None:
        for pressure in self._pressures.values():
            pressure.close()
        self._pressures.clear()
        if release:
            self._cgroups.remove_root()

    def _limit_cpu(self, container: Container) -> None:
        if "cpu" in self._controllers and container.cpus is not None:
            self._cgroups.set_cpu(container.id, container.cpus, self._quota)

    def _limit_memory(self, container: Container) -> None:
        if "memory" in self._controllers and container.mem is not None:
            self._cgroups.set_memory(container.id, container.mem, self._limit_swap)


def _throttling(stat: IoStat) -> Statistics:
    """Mesos' CgroupInfo.Blkio.Throttling.Statistics, whose sum over all devices names none."""
    shown: Statistics = {}
    if stat.device is not None:
        shown["device"] = dict(zip(("major_number", "minor_number"), stat.device, strict=True))
    for name, values in (("io_serviced", stat.operations), ("io_service_bytes", stat.size)):
        shown[name] = [{"op": operation, "value": value} for operation, value in values.items()]
    return shown

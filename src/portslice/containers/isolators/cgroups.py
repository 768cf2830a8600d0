"""cgroups/cpu and cgroups/mem: one isolator over the controllers asked for, since they share a container's cgroup.

It is there without them, too: that a container has cgroups of its own keeps it from those of others
(portslice.containers.cgroups.membership). The controllers only decide what is limited and measured.
"""

from collections.abc import Iterable, Set

from portslice.containers.cgroups import Cgroups, Pressure
from portslice.containers.container import Container
from portslice.containers.isolators import BaseIsolator, Launch, Statistics


class CgroupsIsolator(BaseIsolator):
    """Shares, quotas and limits; the figures of both controllers."""

    name = "cgroups"

    def __init__(self, cgroups: Cgroups, controllers: Set[str], *, quota: bool) -> None:
        """:param controllers: of "cpu" and "memory".
        :param quota: limit CPUs hard as well (--cgroups_enable_cfs).
        :raises ContainerError: the cgroups of a controller cannot be joined.
        """
        cgroups.probe(controllers)
        self._cgroups = cgroups
        self._controllers = frozenset(controllers)
        self._quota = quota
        self._pressures: dict[str, Pressure] = {}

    def prepare(self, container: Container) -> Launch:
        self._cgroups.create(container.id, self._controllers)
        if "cpu" in self._controllers and container.cpus is not None:
            self._cgroups.set_cpu(container.id, container.cpus, self._quota)
        if "memory" in self._controllers and container.mem is not None:
            self._cgroups.set_memory(container.id, container.mem)
        return Launch(join_files=tuple(self._cgroups.join_files(container.id)))

    def isolate(self, container: Container) -> None:
        if "memory" in self._controllers and container.id not in self._pressures:
            self._pressures[container.id] = self._cgroups.pressure(container.id)

    def usage(self, container: Container) -> Statistics:
        statistics: Statistics = {}
        if "cpu" in self._controllers:
            cpu = self._cgroups.cpu_stat(container.id)
            statistics |= {
                "cpus_user_time_secs": cpu.user_secs,
                "cpus_system_time_secs": cpu.system_secs,
                "cpus_nr_periods": cpu.nr_periods,
                "cpus_nr_throttled": cpu.nr_throttled,
                "cpus_throttled_time_secs": cpu.throttled_secs,
            }
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
            }
            if (pressure := self._pressures.get(container.id)) is not None:
                levels = pressure.read()._asdict()
                statistics |= {f"mem_{level}_pressure_counter": count for level, count in levels.items()}
        return {name: value for name, value in statistics.items() if value is not None}

    def cleanup(self, container: Container) -> list[str]:
        if (pressure := self._pressures.pop(container.id, None)) is not None:
            pressure.close()
        try:
            self._cgroups.destroy(container.id)
        except Exception as error:
            return [str(error)]
        return []

    def recover(self, containers: Iterable[Container]) -> None:
        """Nothing to look for: the record is written before a cgroup is made, so none is ever without one."""

    def close(self, *, release: bool) -> None:
        for pressure in self._pressures.values():
            pressure.close()
        self._pressures.clear()
        if release:
            self._cgroups.remove_root()

"""posix/cpu and posix/mem: they keep nothing apart and measure the process tree (Mesos' default isolators)."""

import os
from collections.abc import Iterator
from pathlib import Path

from portslice.containers.container import Container
from portslice.containers.isolators import BaseIsolator, Statistics

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_UTIME, _STIME, _RSS = 11, 12, 21  # fields 14, 15 and 24 of proc(5) /proc/pid/stat, counted behind the name


class PosixCpu(BaseIsolator):
    """CPU time of the tree."""

    name = "posix/cpu"

    def usage(self, container: Container) -> Statistics:
        trees = list(_stat_of_tree(container))
        return {
            "cpus_user_time_secs": sum(stat[_UTIME] for stat in trees) / _TICKS,
            "cpus_system_time_secs": sum(stat[_STIME] for stat in trees) / _TICKS,
        }


class PosixMem(BaseIsolator):
    """Resident memory of the tree."""

    name = "posix/mem"

    def usage(self, container: Container) -> Statistics:
        return {"mem_rss_bytes": sum(stat[_RSS] for stat in _stat_of_tree(container)) * _PAGE}


def _stat_of_tree(container: Container) -> Iterator[list[int]]:
    waiting = [container.init.pid] if container.init else []
    while waiting:
        process = Path("/proc", str(waiting.pop()))
        try:
            stat = (process / "stat").read_text().rpartition(")")[2].split()
            for children in process.glob("task/*/children"):
                waiting += map(int, children.read_text().split())
        except OSError:
            continue  # it ended meanwhile
        yield [0, *map(int, stat[1:])]

"""Control groups: how much CPU and memory a container may use, and how much it does, block devices included.

There are two kinds of hierarchy and one model of them (``model.Cgroups``). Both keep a container in ``<root>/<id>``,
which carries limits and figures, with the processes one level below, in ``leaf``, from where the limits cannot be
reached. What is mounted decides, not the kernel's version: on a hybrid machine the v1 controllers count, and in the
``unified`` tree, which has none, containers have cgroups as they do in every hierarchy (``membership`` says why).
"""

from pathlib import Path

from portslice.containers.cgroups.model import (
    CONTROLLERS,
    MIN_MEMORY_BYTES,
    Cgroups,
    CpuStat,
    IoStat,
    MemoryStat,
    Pressure,
    PressureStat,
    Stall,
    Tasks,
)
from portslice.containers.cgroups.v1 import CgroupsV1
from portslice.containers.cgroups.v2 import CgroupsV2

__all__ = [
    "CONTROLLERS",
    "MIN_MEMORY_BYTES",
    "Cgroups",
    "CpuStat",
    "IoStat",
    "MemoryStat",
    "Pressure",
    "PressureStat",
    "Stall",
    "Tasks",
    "detect",
]


def detect(hierarchy: Path, root: str) -> Cgroups:
    """The cgroups below ``root`` (``--cgroups_root``) of what is mounted at or below ``hierarchy``
    (``--cgroups_hierarchy``).

    If nothing is mounted there, ``missing`` of the result names every controller asked for.
    """
    if (hierarchy / "cgroup.controllers").exists():
        return CgroupsV2(hierarchy, root)
    return CgroupsV1(hierarchy, root)

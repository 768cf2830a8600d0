"""What the agent has to give: the resources of --resources, with Mesos' defaults for those that it does not name, and
the attributes of --attributes.

The defaults leave something to the host (reference: mesos `src/slave/containerizer/containerizer.cpp`): all CPUs, the
memory but 1 GB and the work directory's disk but 5 GB, or half of each where there is less than twice as much.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from portslice.agent.flags import AgentFlags
from portslice.agent.startup import DEFAULT_PORTS, StartupError
from portslice.errors import ParseError
from portslice.resources import Attributes, Resource, Resources, Value, parse_attributes

_MEM_FOR_THE_HOST = 1024  # MB
_DISK_FOR_THE_HOST = 5 * 1024


@dataclass(frozen=True)
class Offer:
    resources: Resources
    attributes: Attributes


def of(flags: AgentFlags) -> Offer:
    """Those of these flags.

    :raises StartupError: with Mesos' words.
    """
    try:
        named = Resources.parse(flags.resources, flags.default_role)
        ephemeral = named.ports("ephemeral_ports")
    except ParseError as error:
        raise StartupError(f"Failed to determine agent resources: {error}") from error
    ports = DEFAULT_PORTS - ephemeral if ephemeral is not None else DEFAULT_PORTS
    defaults: dict[str, Value] = {
        "cpus": float(os.cpu_count() or 1),
        "mem": _but(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), _MEM_FOR_THE_HOST),
        "disk": _but(shutil.disk_usage(_existing(flags.work_dir)).total, _DISK_FOR_THE_HOST),
        "ports": tuple((each.begin, each.end) for each in ports.ranges),
    }
    given = {resource.name for resource in named}
    missing = (Resource(name, value, flags.default_role) for name, value in defaults.items() if name not in given)
    try:
        return Offer(Resources((*named, *missing)), parse_attributes(flags.attributes or ""))
    except ParseError as error:
        raise StartupError(str(error)) from error


def _but(bytes_: int, reserve: int) -> float:
    """MB of what is there, without `reserve` MB of it, or half."""
    total = bytes_ >> 20
    return float(total - reserve if total >= 2 * reserve else total // 2)


def _existing(path: Path) -> Path:
    return next(each for each in (path, *path.parents) if each.exists())

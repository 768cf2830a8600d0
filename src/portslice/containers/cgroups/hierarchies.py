"""The cgroup hierarchies of this machine, and where they are mounted.

A process is in one cgroup of each hierarchy, as ``/proc/self/cgroup`` lists them: one for each v1 controller, or group
of controllers mounted together; one for each v1 hierarchy that only has a name (``name=systemd``); and that of v2.
"""

import re
from pathlib import Path
from typing import NamedTuple


class Hierarchy(NamedTuple):
    """:param names: its v1 controllers and its ``name=``; empty for v2.
    :param mount: None if it is mounted nowhere.
    """

    names: frozenset[str]
    mount: Path | None

    def __str__(self) -> str:
        return ",".join(sorted(self.names)) or "of version 2"


class _Mount(NamedTuple):
    path: Path
    kind: str
    root: str
    options: frozenset[str]

    def shows(self, names: frozenset[str]) -> bool:
        return self.kind == "cgroup" and names <= self.options if names else self.kind == "cgroup2"


def hierarchies(preferred: Path) -> list[Hierarchy]:
    """All of them. If one is mounted several times: rather at or below ``preferred``, rather as a whole."""
    mounts = sorted(_mounts(), key=lambda mount: (not mount.path.is_relative_to(preferred), mount.root != "/"))
    found = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        names = frozenset(line.split(":")[1].split(",")) - {""}
        found.append(Hierarchy(names, next((mount.path for mount in mounts if mount.shows(names)), None)))
    return found


def _mounts() -> list[_Mount]:
    """The mounts of cgroups that are not covered by another mount (proc_pid_mountinfo(5))."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mount, _, file_system = line.partition(" - ")
        kind, _, options = file_system.split(" ", 2)
        if kind in ("cgroup", "cgroup2"):
            root, point = mount.split()[3:5]
            path = Path(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), point))
            if (path / "cgroup.procs").exists():
                found.append(_Mount(path, kind, root, frozenset(options.split(","))))
    return found

"""The agent belongs in the host's mount namespace.

Namespaces and BPF maps are kept by mounts, and mounts end with their mount namespace. `ip netns exec` starts a command
in a private one (with another /sys, without cgroups), so an agent started that way would lose its containers when it
ends. It moves to its eldest ancestor's instead (process 1's, where that may be seen), if that shows the same files
where the agent keeps its things.
"""

import ctypes
import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

log = logging.getLogger(__name__)

_CLONE_NEWNS = 0x20000


def join_host(paths: Iterable[Path]) -> None:
    """Move this process into the host's mount namespace, unless it is there or `paths` would be others.

    Call it while there is one thread only: setns(2) refuses a process that shares its view of the file system.
    """
    host = eldest_visible()
    if host is None:
        return
    if not same_files(host, paths):
        log.warning(
            "The agent has a mount namespace of its own, and its directories lie on mounts that only it sees: what it "
            "keeps there ends with it. Start it with `nsenter --net=NAMESPACE` rather than `ip netns exec`"
        )
        return
    directory = Path.cwd()
    with (host / "ns/mnt").open() as namespace:
        if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), _CLONE_NEWNS) != 0:
            log.warning("Failed to join the host's mount namespace: %s", os.strerror(ctypes.get_errno()))
            return
    os.chdir(directory)
    log.info("Joined the host's mount namespace")


def eldest_visible() -> Path | None:
    """The /proc directory of our eldest ancestor whose mount namespace may be seen; None if it is our own."""
    eldest = None
    for process in _ancestors():
        try:
            eldest = None if (process / "ns/mnt").samefile("/proc/self/ns/mnt") else process
        except OSError:
            break
    return eldest


def same_files(process: Path, paths: Iterable[Path]) -> bool:
    """Whether another process sees the same files at `paths`, or where they are going to be."""
    for path in paths:
        here = next(parent for parent in (path, *path.parents) if parent.exists())
        try:
            if not here.samefile(process / "root" / here.relative_to("/")):
                return False
        except OSError:
            return False
    return True


def _ancestors() -> Iterator[Path]:
    pid = os.getppid()
    while pid:
        process = Path("/proc", str(pid))
        try:
            stat = (process / "stat").read_text()
        except OSError:
            return
        yield process
        pid = int(stat.rpartition(")")[2].split()[1])

"""A container is in a cgroup of its own in every hierarchy of the machine, whether anything is limited there or not.

Theory of operation: a container that runs as uid 0 owns the host's cgroups, whose files belong to uid 0; only, it sees
none. But even without a capability it may unshare a user and a cgroup namespace and mount a hierarchy there, any one
that the machine has. Such a mount begins at the cgroup that the process is in. If that were the agent's, or the top, it
could freeze, limit and kill what is below: other containers, services of the host. So there must be no hierarchy in
which the container is not in a cgroup of its own, and it is in ``<mount>/<root>/<id>/leaf``: the settings of ``<id>``
are out of its reach. The leaf can be seen, so it belongs to a user id that nobody has: a process that froze itself with
the v1 freezer could not even be killed.

Not every hierarchy can be joined (it may be mounted read-only, or nowhere). Which ones can is tried once, before the
first container; of the others there is a warning. After that, a cgroup that cannot be made or joined is an error.
"""

import contextlib
import logging
import re
import subprocess
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from portslice.containers.cgroups.hierarchies import Hierarchy, hierarchies
from portslice.containers.cgroups.model import Stall
from portslice.containers.cgroups.tree import Tree, read
from portslice.errors import ContainerError, PortsliceError

log = logging.getLogger(__name__)

_REMOVAL_PATIENCE_SECS = 2.0
_STALL = re.compile(r"(some|full) avg10=([\d.]+) .* total=(\d+)")


def trees(preferred: Path, root: str) -> dict[Hierarchy, Tree | None]:
    """Our tree in each hierarchy (see ``hierarchies``); None if that is not mounted."""
    return {each: Tree(each.mount, root) if each.mount else None for each in hierarchies(preferred)}


class Membership:
    """The cgroups of all our containers in all hierarchies: what both versions have in common."""

    def __init__(self, found: dict[Hierarchy, Tree | None]) -> None:
        self._found = found
        self._every = [tree for tree in found.values() if tree is not None]
        self._joinable = list(self._every)
        self._unified = next((tree for hierarchy, tree in found.items() if not hierarchy.names), None)

    def _probe(self, needed: Sequence[Tree]) -> None:
        """Leave out the hierarchies that cannot be joined.

        :raises ContainerError: it is one of those needed.
        """
        for hierarchy, tree in self._found.items():
            try:
                if tree is None:
                    raise ContainerError("It is mounted nowhere")
                _try(tree)
            except PortsliceError as error:
                if tree in needed:
                    raise
                log.warning("Containers have no cgroup of their own in the hierarchy %s: %s", hierarchy, error)
                self._joinable = [each for each in self._joinable if each is not tree]

    def _create(self, container_id: str) -> None:
        with contextlib.ExitStack() as made:
            for tree in self._joinable:
                tree.create(container_id)
                made.callback(tree.destroy, container_id, _deadline())
            made.pop_all()

    def join_files(self, container_id: str) -> list[Path]:
        return sorted(tree.join_file(container_id) for tree in self._every if tree.exists(container_id))

    @property
    def has_perf(self) -> bool:
        return self._perf_tree() in self._joinable

    def perf_name(self, container_id: str) -> str | None:
        tree = self._perf_tree()
        return str(tree.path(container_id).relative_to(tree.mount)) if tree and tree.exists(container_id) else None

    def _perf_tree(self) -> Tree | None:
        """Where perf(1) looks: in version 1's own hierarchy of perf_event, else in version 2's, all of whose cgroups
        have it."""
        own = [tree for hierarchy, tree in self._found.items() if "perf_event" in hierarchy.names]
        return next(iter(own), self._unified)

    def stalls(self, container_id: str, resource: str) -> dict[str, Stall]:
        text = read(self._unified.file(container_id, f"{resource}.pressure")) if self._unified else None
        found = _STALL.findall(text or "")
        return {kind: Stall(float(percent), int(usecs) / 1e6) for kind, percent, usecs in found}

    def ids(self) -> list[str]:
        return sorted({container_id for tree in self._every for container_id in tree.ids()})

    def destroy(self, container_id: str) -> None:
        problems, deadline = [], _deadline()
        for tree in self._every:
            try:
                tree.destroy(container_id, deadline)
            except ContainerError as error:
                problems.append(str(error))
        if problems:
            raise ContainerError("; ".join(problems))

    def remove_root(self) -> None:
        for tree in self._every:
            tree.remove_root()


def _deadline() -> float:
    return time.monotonic() + _REMOVAL_PATIENCE_SECS


def _try(tree: Tree) -> None:
    """Join a cgroup of the tree as a container's first process does, and take it away.

    :raises ContainerError: that is not possible.
    """
    had_root = tree.root.exists()
    probe = f"probe-{uuid.uuid4()}"
    try:
        tree.create(probe)
        file = tree.join_file(probe)
        result = subprocess.run(["/bin/sh", "-c", 'echo 0 >"$1"', "sh", str(file)], capture_output=True, text=True)
        if result.returncode != 0:
            raise ContainerError(f"Failed to join {file}: {result.stderr.strip()}")
    finally:
        tree.destroy(probe, _deadline())
        if not had_root:
            tree.remove_root()

"""The directories of one cgroup hierarchy below our root, and the reading and writing of their files.

Nothing outside ``<mount>/<root>/`` is ever created or removed, except the root itself.
"""

import contextlib
import errno
import os
import time
from pathlib import Path

from portslice.errors import ConflictError, ContainerError

LEAF = "leaf"
"""The child in which a container's processes live; the limits are on its parent."""

_STRANGER = 2**32 - 2
"""The owner of a leaf: the greatest user id that there is, which nobody has."""


class Tree:
    """One hierarchy: ``<mount>/<root>/<id>/leaf``."""

    def __init__(self, mount: Path, root: str) -> None:
        parts = Path(root).parts
        if not parts or Path(root).is_absolute() or ".." in parts:
            raise ContainerError(f"Bad cgroups root '{root}': it must be a relative path without '..'")
        self.mount = mount
        self.root = mount / root

    def path(self, container_id: str) -> Path:
        return self.root / _checked(container_id)

    def file(self, container_id: str, name: str) -> str:
        """A path's text: to make paths takes longer than to read files."""
        return f"{self.root}/{_checked(container_id)}/{name}"

    def create(self, container_id: str) -> None:
        path = self.path(container_id)
        try:
            self.make_root()
            for directory in (path, path / LEAF):
                directory.mkdir()
                _inherit_cpuset(directory)
            for file in (path / LEAF, *(path / LEAF).iterdir()):
                os.chown(file, _STRANGER, -1)
        except FileExistsError:
            raise ConflictError(f"The cgroup {path} exists already") from None
        except OSError as error:
            raise ContainerError(f"Failed to create the cgroup {path}: {error.strerror}") from error

    def make_root(self) -> None:
        ancestors = [path for path in self.root.parents if path != self.mount and path.is_relative_to(self.mount)]
        for directory in (*reversed(ancestors), self.root):
            directory.mkdir(exist_ok=True)
            _inherit_cpuset(directory)

    def exists(self, container_id: str) -> bool:
        return self.path(container_id).is_dir()

    def join_file(self, container_id: str) -> Path:
        return self.path(container_id) / LEAF / "cgroup.procs"

    def listed(self, container_id: str, file: str) -> set[str]:
        """The numbers in a file of the container's cgroup and of all below it: one may have made deeper ones."""
        files = self._files(container_id, file)
        return {number for path in files for number in (read(path) or "").split()}

    def tables(self, container_id: str, file: str) -> list[dict[str, int]]:
        """The same of files that are "flat keyed", one each."""
        return [read_table(path) for path in self._files(container_id, file)]

    def _files(self, container_id: str, file: str) -> list[Path]:
        return [Path(directory, file) for directory, _, _ in os.walk(self.path(container_id))]

    def ids(self) -> set[str]:
        try:
            return {entry.name for entry in os.scandir(self.root) if entry.is_dir(follow_symlinks=False)}
        except FileNotFoundError:
            return set()

    def destroy(self, container_id: str, deadline: float) -> None:
        """Remove the container's cgroup with all below it.

        :param deadline: of ``time.monotonic``; a killed process keeps its cgroup busy until the kernel has finished
            with it.
        :raises ContainerError: it is busy still.
        """
        path = self.path(container_id)
        for directory, _, _ in os.walk(path, topdown=False):
            _remove(Path(directory), deadline)

    def remove_root(self) -> None:
        with contextlib.suppress(OSError):
            self.root.rmdir()


def _checked(container_id: str) -> str:
    if container_id in ("", ".", "..") or "/" in container_id or "\0" in container_id:
        raise ContainerError(f"Bad container id '{container_id}' for a cgroup")
    return container_id


def _inherit_cpuset(cgroup: Path) -> None:
    """Of the v1 cpuset controller only: a new cgroup has neither CPUs nor memory nodes, and so nobody can join it."""
    if (cgroup / "cgroup.clone_children").exists():  # not on v2, which takes an empty set for its parent's
        for name in ("cpuset.cpus", "cpuset.mems"):
            if read(cgroup / name) == "":
                write(cgroup / name, read(cgroup.parent / name) or "")


def _remove(directory: Path, deadline: float) -> None:
    while True:
        try:
            directory.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise ContainerError(f"Failed to remove the cgroup {directory}: {error.strerror}") from error
        time.sleep(0.01)


def write(path: Path, value: str) -> None:
    try:
        path.write_text(value)
    except OSError as error:
        raise ContainerError(f"Failed to write '{value}' to {path}: {error.strerror}") from error


def read(path: Path | str) -> str | None:
    """A control file's text, or None if there is no such file (any more)."""
    try:
        # A fifth of what Path.read_text costs. Files kept open would save another 30 µs of each container's statistics,
        # but cost it eight descriptors, and the kernel as many pages.
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            parts = list(iter(lambda: os.read(file, 1 << 16), b""))
        finally:
            os.close(file)
    except OSError:
        return None
    return b"".join(parts).decode().strip()


def read_number(path: Path | str) -> int | None:
    """A control file's number; None without the file, or if it says ``max``."""
    text = read(path)
    return int(text) if text is not None and text.isdigit() else None


def read_table(path: Path | str) -> dict[str, int]:
    """A "flat keyed" control file: one ``key value`` on each line. Empty without the file."""
    words = (read(path) or "").split()
    return dict(zip(words[::2], map(int, words[1::2]), strict=True))

"""Reads what containers have written, without being led elsewhere.

A sandbox belongs to its container's user, who may put there whatever a file system knows, at any moment: links to files
that are root's alone, pipes that never answer, devices, other names of others' files, leases. So a path in a sandbox is
looked up by the kernel below the sandbox in one step (openat2(2), RESOLVE_BENEATH: no link leads out of it, and no
rename in between changes that), and what is found is only looked at (O_PATH) until it is known to be a plain file, or a
directory. And a file is read only if the container's user could: it owns it, or everybody may read it.
"""

import ctypes
import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from portslice.containers import id_range
from portslice.containers.container import Container
from portslice.errors import AccessError, NotFoundError

_OPENAT2 = 437  # the same on every architecture
_RESOLVE_NO_MAGICLINKS, _RESOLVE_BENEATH = 0x02, 0x08
_RETRIES = 16


class _OpenHow(ctypes.Structure):
    """struct open_how"""

    _fields_ = tuple((name, ctypes.c_uint64) for name in ("flags", "mode", "resolve"))


_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Tree:
    """A directory or file to be shown, with all below it.

    :param root: no symbolic link, and in a directory that only root may write.
    :param is_owner: whether a file of this uid is its user's own.
    """

    root: Path
    is_owner: Callable[[int], bool]

    @contextmanager
    def open(self, path: str = "") -> Iterator[int]:
        """A descriptor of the file or directory at `path` below the root, to be read.

        :raises NotFoundError: there is none, or no plain one, or a link led out.
        :raises AccessError: it is somebody else's.
        """
        with _closing(self._find(path)) as found:
            status = os.fstat(found)
            if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
                raise NotFoundError(f"'{path}' is no plain file")
            if not self.is_owner(status.st_uid) and not status.st_mode & stat.S_IROTH:
                raise AccessError(f"'{path}' is not the container's")
            with _closing(_reopen(found)) as descriptor:
                yield descriptor

    def _find(self, path: str) -> int:
        parts = [part for part in path.split("/") if part]
        if ".." in parts or "\0" in path:
            raise NotFoundError(f"There is no '{path}'")
        flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            base = os.open(self.root, flags)
            if not parts:
                return base
            with _closing(base):
                return _open_beneath(base, "/".join(parts), os.O_PATH | os.O_CLOEXEC)
        except (OSError, UnicodeError) as error:
            raise NotFoundError(f"There is no '{path}': {error}") from None


def of(container: Container) -> Tree:
    """A container's sandbox."""
    first = container.first_id
    own = range(container.uid, container.uid + 1) if first is None else range(first, first + id_range.SIZE)
    return Tree(container.sandbox, own.__contains__)


def _reopen(found: int) -> int:
    """To be read: the same file, whatever its name has come to mean. Its owner may have a lease on it (fcntl(2),
    F_SETLEASE), which would keep us waiting until it is broken, 45 seconds as a rule."""
    try:
        return os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except BlockingIOError:
        raise NotFoundError("Its owner has a lease on it: try again in a while") from None
    except OSError as error:
        raise NotFoundError(f"It cannot be opened: {error.strerror}") from None


def _open_beneath(directory: int, path: str, flags: int) -> int:
    how = _OpenHow(flags=flags, resolve=_RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS)
    for _ in range(_RETRIES):
        result: int = _libc.syscall(_OPENAT2, directory, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how))
        if result >= 0:
            return result
        number = ctypes.get_errno()
        if number != errno.EAGAIN:  # that is: something was renamed meanwhile, so the kernel cannot be sure
            break
    raise OSError(number, os.strerror(number))


@contextmanager
def _closing(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)

"""Network namespaces with a name: made, entered and removed without a helper process.

A namespace lives as long as something refers to it: a process, an open file or a mount. `create` unshares one in a
thread of its own and binds it to a file, as `ip netns add` does, but at a path of the caller's choice. `entered`
moves only the calling thread (setns(2)), and a socket opened meanwhile stays in the namespace for good: that is how
the agent talks to a container's netlink without a process inside.
"""

import ctypes
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import TypeVar

T = TypeVar("T")

CLONE_NEWNET = 0x40000000
_MS_BIND, _MS_PRIVATE, _MNT_DETACH = 4096, 1 << 18, 2

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def mount(source: str, target: Path, kind: str = "", flags: int = 0, options: str = "") -> None:
    """mount(2)."""
    arguments = (source.encode(), bytes(target), kind.encode(), flags, options.encode() or None)
    _check(_libc.mount(*arguments), f"Failed to mount '{target}'")


def unmount(target: Path) -> None:
    """Lazily unmount (MNT_DETACH): the mount goes when its last user does."""
    _check(_libc.umount2(bytes(target), _MNT_DETACH), f"Failed to unmount '{target}'")


def in_new(work: Callable[[], T]) -> T:
    """Run `work` in a new, empty network namespace, which goes when nothing refers to it any more."""
    result: Future[T] = Future()

    def run() -> None:
        # A thread of its own: it may end inside the namespace, and no other code ever finds itself there.
        try:
            _check(_libc.unshare(CLONE_NEWNET), "Failed to create a network namespace")
            result.set_result(work())
        except BaseException as error:
            result.set_exception(error)

    Thread(target=run, name="new-netns").start()
    return result.result()


def make_directory(directory: Path) -> None:
    """Make a directory for namespaces, which is a mount of its own.

    Every container has a mount namespace with copies of the host's mounts. As a private mount this one passes nothing
    on to them that is mounted in it later, and a container lets go of the copies of a thousand namespaces by
    unmounting one (`--drop` of init.sh): else N containers would keep N * N mounts.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if not directory.is_mount() and not any(directory.iterdir()):
        mount("portslice", directory, "tmpfs", options="mode=700")
        mount("", directory, flags=_MS_PRIVATE)


def remove_directory(directory: Path) -> None:
    """Remove a directory for namespaces that is empty."""
    if directory.is_mount():
        unmount(directory)
    with suppress(FileNotFoundError):
        directory.rmdir()


def create(path: Path) -> None:
    """Make a network namespace and keep it at `path`."""
    path.touch()
    in_new(lambda: mount("/proc/thread-self/ns/net", path, flags=_MS_BIND))


def exists(path: Path) -> bool:
    """Whether a namespace is kept at `path`: the file alone may remain after a reboot or half a removal."""
    try:
        return path.stat().st_dev != path.parent.stat().st_dev
    except FileNotFoundError:
        return False


def remove(path: Path) -> None:
    """Let go of the namespace at `path`. Unlinking the file also detaches the copies of its mount that every newer
    mount namespace holds (kernel commit 8ed936b5671b); they would keep the network namespace alive."""
    if exists(path):
        unmount(path)
    path.unlink(missing_ok=True)


@contextmanager
def entered(path: Path) -> Iterator[None]:
    """Inside the block the calling thread is in the network namespace at `path`."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _check(_libc.setns(there, CLONE_NEWNET), f"Failed to enter the network namespace '{path}'")
        finally:
            os.close(there)
        try:
            yield
        finally:
            _check(_libc.setns(home, CLONE_NEWNET), "Failed to return to the host's network namespace")
    finally:
        with suppress(OSError):
            os.close(home)

"""Processes, and what they leave behind.

Each command runs below a tini of its own, in a session of its own:

    executor ── tini -s -g ── command ── ...

tini hands signals on to the command's process group, and is the one to whom its orphans come (PR_SET_CHILD_SUBREAPER),
so whatever the command starts stays below it. When tini ends, what is left below comes to the executor, which is such a
reaper, too. It knows the processes that it has started: any other child is left from a command that has ended, and is
killed. So a task takes all its processes with it, and none of another's.
"""

import asyncio
import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO

from portslice.errors import ContainerError

_PR_SET_CHILD_SUBREAPER = 36
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ROUNDS = 1000  # of killing what the killed leave; what is too quick for it ends with the container

_AS = (sys.executable, "-I", "-S", "-c", "import os, sys; os.execvp(sys.argv[1], sys.argv[2:])")
"""Becomes a program that is to see another name than its own."""


class Processes:
    """All that this process has started. For one thread, that of the event loop."""

    def __init__(self) -> None:
        """:raises ContainerError: there is no tini."""
        if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
            raise ContainerError(f"Failed to become a child subreaper: {os.strerror(ctypes.get_errno())}")
        tini = shutil.which("tini", path=_PATH)
        if tini is None:
            raise ContainerError("The program 'tini' is missing")
        self._tini = tini
        self._known: set[int] = set()

    def start(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        directory: str,
        stdout: "IO[bytes] | int | None" = None,
        stderr: "IO[bytes] | int | None" = None,
    ) -> "Process":
        """Start a command; what cannot be executed has its message in `stderr`, and ends with status 127 or 126.

        :param command: the program, then the arguments from the first on, the name that it is to see.
        :raises ContainerError: it cannot be started, and why.
        """
        program, *arguments = command
        argv = [program, *arguments[1:]] if arguments[:1] in ([], [program]) else [*_AS, program, *arguments]
        try:
            popen = subprocess.Popen(
                [self._tini, "-s", "-g", "--", *argv],
                env=environment,
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise ContainerError(f"Failed to start the command: {error}") from None
        self._known.add(popen.pid)
        return Process(popen, self)

    def ended(self, pid: int) -> None:
        """One has been waited for: take with it what it has left."""
        self._known.discard(pid)
        self._sweep()

    def destroy(self) -> None:
        """End all that still runs."""
        self._known.clear()
        self._sweep()

    def _sweep(self) -> None:
        """End the children that are not known, and what comes to us when they have ended."""
        for _ in range(_ROUNDS):
            left = _children() - self._known
            if not left:
                return
            for each in left:
                with suppress(ProcessLookupError):
                    os.kill(each, signal.SIGKILL)
            for each in left:
                with suppress(ChildProcessError):
                    os.waitpid(each, 0)


class Process:
    """A command that runs, or has ended."""

    def __init__(self, popen: "subprocess.Popen[bytes]", processes: Processes) -> None:
        self._popen = popen
        self._processes = processes
        self._ended = asyncio.get_running_loop().create_future()
        self._descriptor = os.pidfd_open(popen.pid)
        asyncio.get_running_loop().add_reader(self._descriptor, self._reap)

    async def wait(self) -> int:
        """Its exit status when it has ended with all that it started: 0-255, 128 + n after signal n."""
        return await asyncio.shield(self._ended)

    def signal(self, number: signal.Signals) -> None:
        """Send the command's process group a signal. SIGKILL is for all that it has started."""
        if not self._ended.done():
            self._popen.send_signal(number)  # no other process can have its pid: it has not been waited for

    def _reap(self) -> None:
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)
        status = self._popen.wait()
        self._processes.ended(self._popen.pid)
        self._ended.set_result(128 - status if status < 0 else status)


def _children() -> set[int]:
    """Of all threads of this process (proc(5), CONFIG_PROC_CHILDREN)."""
    found: set[int] = set()
    for thread in os.listdir("/proc/self/task"):
        with suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/self/task/{thread}/children") as file:
            found.update(map(int, file.read().split()))
    return found

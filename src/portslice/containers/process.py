"""A process that is meant, whatever becomes of its number.

A process id is reused; the pair of id and start time is not. A handle can be written down, read by a later agent, and
still never hits a stranger: every action first opens a pidfd, which pins the process behind the number, and then asks
whether that process has the start time of the handle.
"""

import os
import select
import signal
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from portslice.errors import NotFoundError


@dataclass(frozen=True)
class ProcessHandle:
    """``start_time`` is field 22 of /proc/<pid>/stat (proc(5)): clock ticks since the machine's boot.

    """

    pid: int
    start_time: int

    @classmethod
    def of(cls, pid: int) -> Self:
        """The process that has this id now. NotFoundError if there is none, or only its zombie."""
        start_time = _start_time(pid)
        if start_time is None:
            raise NotFoundError(f"There is no process {pid}")
        return cls(pid, start_time)

    @classmethod
    def parse(cls, text: str) -> Self:
        """From ``<pid> <start time>``, as the launcher's scripts write it. ValueError if it is anything else."""
        pid, start_time = text.split()
        return cls(int(pid), int(start_time))

    @classmethod
    def from_json(cls, data: dict[str, int]) -> Self:
        return cls(**data)

    def to_json(self) -> dict[str, int]:
        return asdict(self)

    def alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        return _start_time(self.pid) == self.start_time

    def pidfd(self) -> int | None:
        """A descriptor of the process, readable when it ends and to be closed by the caller; None if it has ended."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return None
        if self.alive():
            return descriptor
        os.close(descriptor)
        return None

    def signal(self, number: signal.Signals | int) -> bool:
        """Send a signal; False if the process has ended."""
        descriptor = self.pidfd()
        if descriptor is None:
            return False
        try:
            signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(descriptor)
        return True

    def wait(self, timeout_secs: float) -> bool:
        """Wait for its end, whoever is its parent; False if it still runs after that time."""
        descriptor = self.pidfd()
        if descriptor is None:
            return True
        try:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            return bool(poll.poll(timeout_secs * 1000))
        finally:
            os.close(descriptor)


def _start_time(pid: int) -> int | None:
    """The start time of a process that has not ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # Field 2, the name in parentheses, may itself hold blanks and parentheses; field 3 is the state.
    fields = text[text.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else int(fields[19])

"""A command on a terminal: a pseudo-terminal of the kernel's, with an emulator (pyte) behind it that has the screen."""

import fcntl
import os
import select
import struct
import subprocess
import termios
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import pyte

from tests.kernel.waiting import until

KEYS = {"up": "\x1bOA", "down": "\x1bOB", "right": "\x1bOC", "left": "\x1bOD", "pagedown": "\x1b[6~", "end": "\x1b[4~"}


class Terminal:
    """What a command shows, and its keyboard."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], lines: int, columns: int) -> None:
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        self.sent = b""
        self._master, self._slave = os.openpty()
        self._set_size(lines, columns)
        self.mode = self.attributes()
        self.process = subprocess.Popen(
            command,
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            env={**os.environ, "TERM": "screen-256color", "LANG": "C.UTF-8", **environment},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )

    def attributes(self) -> list[Any]:
        """The terminal's mode (termios)."""
        return termios.tcgetattr(self._slave)

    def press(self, *keys: str) -> None:
        """Type characters, or keys of KEYS."""
        for key in keys:
            os.write(self._master, KEYS.get(key, key).encode())

    def resize(self, lines: int, columns: int) -> None:
        """The window gets another size, and the kernel sends SIGWINCH."""
        self._screen.resize(lines, columns)
        self._set_size(lines, columns)

    def lines(self) -> list[str]:
        """What is seen now."""
        while select.select([self._master], [], [], 0)[0]:
            with suppress(OSError):
                data = os.read(self._master, 1 << 16)
                self.sent += data
                self._stream.feed(data)
        return [line.rstrip() for line in self._screen.display]

    def colours(self, text: str) -> set[str]:
        """Of the foreground of a text that is seen once."""
        at = next(y for y, line in enumerate(self.lines()) if text in line)
        begin = self._screen.display[at].index(text)
        return {self._screen.buffer[at][x].fg for x in range(begin, begin + len(text))}

    def line(self, text: str) -> str:
        """The first line that has a text, once there is one."""
        return until(lambda: next((line for line in self.lines() if text in line), None), f"line with '{text}'")

    def wait(self) -> int:
        """The command's exit status."""
        until(lambda: self.lines() and self.process.poll() is not None, "end")
        self.lines()
        return int(self.process.returncode)

    def _set_size(self, lines: int, columns: int) -> None:
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("4H", lines, columns, 0, 0))

    def close(self) -> None:
        """Hang up."""
        self.process.kill()
        self.process.wait()
        os.close(self._master)
        os.close(self._slave)


@contextmanager
def terminal(
    command: Sequence[str], environment: Mapping[str, str] | None = None, *, lines: int = 24, columns: int = 80
) -> Iterator[Terminal]:
    """A terminal with a command that is ended with the block."""
    shown = Terminal(command, environment or {}, lines, columns)
    try:
        yield shown
    finally:
        shown.close()

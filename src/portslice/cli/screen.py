"""The whole terminal, by curses: lines are drawn, keys are read, and whatever happens the terminal is as it was before.

curses sends only what differs from what the terminal shows, so a frame costs about as much as has changed, over ssh
too. Everything that may happen (a key, a new size, a notice from another thread) ends one wait: signals and threads
write to a socket that is polled beside the terminal. ncurses itself handles that the command is stopped (Ctrl-Z) and
continued.
"""

import curses
import locale
import os
import select
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, Self

from portslice.cli.glyphs import Line, Look, Size, Style, clip, width
from portslice.errors import PortsliceError

_ENDING = (signal.SIGTERM, signal.SIGHUP)
_ESCAPE_MSECS = 100  # how long the rest of an arrow's sequence may be on its way
_KEYS: dict[int | str, str] = {
    curses.KEY_UP: "up",
    curses.KEY_DOWN: "down",
    curses.KEY_LEFT: "left",
    curses.KEY_RIGHT: "right",
    curses.KEY_PPAGE: "pageup",
    curses.KEY_NPAGE: "pagedown",
    curses.KEY_HOME: "home",
    curses.KEY_END: "end",
    curses.KEY_ENTER: "enter",
    curses.KEY_BACKSPACE: "backspace",
    "\n": "enter",
    "\r": "enter",
    "\x1b": "escape",
    "\x7f": "backspace",
    "\b": "backspace",
}
_ATTRIBUTES = {Look.BOLD: curses.A_BOLD, Look.DIM: curses.A_DIM, Look.REVERSE: curses.A_REVERSE}
_COLOURS = {
    Look.RED: curses.COLOR_RED,
    Look.YELLOW: curses.COLOR_YELLOW,
    Look.GREEN: curses.COLOR_GREEN,
    Look.CYAN: curses.COLOR_CYAN,
}


def is_possible() -> bool:
    """Are we at a terminal?"""
    return sys.stdin.isatty() and sys.stdout.isatty()


class Screen:
    """A context: inside it the terminal is ours.

    :raises PortsliceError: on entering it; the terminal is of no type that is known.
    """

    def __enter__(self) -> Self:
        locale.setlocale(locale.LC_ALL, "")
        for name in ("LINES", "COLUMNS"):  # ncurses would take them for the size, whatever happens to the window
            os.environ.pop(name, None)
        terminal = os.environ.get("TERM", "")
        try:
            curses.setupterm(terminal or "unknown", sys.stdout.fileno())
        except curses.error:
            raise _unknown(terminal) from None
        if not curses.tigetstr("cup"):
            raise _unknown(terminal)
        seen = locale.nl_langinfo(locale.CODESET).lower().replace("-", "") == "utf8"
        colour = Style.of(sys.stdout).colour
        self._woken, self._wake = socket.socketpair()
        for end in (self._woken, self._wake):
            end.setblocking(False)
        self._resized = False
        # Before initscr, which leaves alone what has a handler.
        self._handlers: dict[int, Any] = {number: signal.signal(number, _end) for number in _ENDING}
        self._handlers[signal.SIGWINCH] = signal.signal(signal.SIGWINCH, self._on_resize)
        try:
            self._window = curses.initscr()
            curses.set_escdelay(_ESCAPE_MSECS)
            curses.noecho()
            curses.cbreak()
            self._window.keypad(True)
            self._window.nodelay(True)
            with suppress(curses.error):  # not every terminal can hide it
                curses.curs_set(0)
            self._pairs = _pairs() if colour else {}
        except BaseException:
            self._restore()
            raise
        self.style = Style(unicode=seen, colour=bool(self._pairs))
        self._poll = select.poll()
        self._poll.register(sys.stdin.fileno(), select.POLLIN)
        self._poll.register(self._woken, select.POLLIN)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._restore()

    @property
    def size(self) -> Size:
        """Now."""
        return Size(*self._window.getmaxyx())

    def wake(self) -> None:
        """End the wait; any thread may call it."""
        with suppress(OSError):  # full: it will wake up, or closed: it is over
            self._wake.send(b".")

    def keys(self, timeout: float) -> list[str]:
        """Wait for a key, a new size, or `wake`; the keys that were pressed: up, enter and the like, else a character.

        :param timeout: seconds.
        """
        events = dict(self._poll.poll(timeout * 1000))
        if events.get(sys.stdin.fileno(), 0) & (select.POLLHUP | select.POLLERR | select.POLLNVAL):
            raise SystemExit(128 + signal.SIGHUP)
        with suppress(BlockingIOError):
            while self._woken.recv(4096):
                pass
        if self._resized:
            self._resized = False
            columns, lines = os.get_terminal_size(sys.stdout.fileno())
            if lines > 0 and columns > 0:  # a serial line does not know its size
                curses.resizeterm(lines, columns)
        pressed = []
        while (key := self._key()) is not None:
            if key == "\f":  # Ctrl-L: somebody else wrote on the terminal
                self._window.redrawwin()
            elif (name := _KEYS.get(key, key if isinstance(key, str) and key.isprintable() else "")) != "":
                pressed.append(name)
        return pressed

    def draw(self, lines: Sequence[Line]) -> None:
        """Show these lines, as far as they fit, and nothing else."""
        size = self.size
        self._window.erase()
        for y, line in enumerate(lines[: size.lines]):
            x = 0
            for text, look in line:
                text = clip(text, size.columns - x, self.style)
                if not self.style.unicode:
                    text = text.encode("ascii", "replace").decode()
                with suppress(curses.error):  # the last cell of all: drawn, but the cursor cannot go on
                    self._window.addstr(y, x, text, self._attributes(look))
                x += width(text)
        self._window.refresh()

    def _key(self) -> int | str | None:
        try:
            return self._window.get_wch()
        except curses.error:
            return None

    def _attributes(self, look: Look) -> int:
        attributes = 0
        for each in look:
            attributes |= _ATTRIBUTES.get(each, 0) | self._pairs.get(each, 0)
        return attributes

    def _on_resize(self, _number: int, _frame: FrameType | None) -> None:
        self._resized = True
        self.wake()

    def _restore(self) -> None:
        with suppress(curses.error):  # the terminal may have gone
            curses.endwin()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._woken.close()
        self._wake.close()


def _pairs() -> dict[Look, int]:
    """Attributes of the colours, on the terminal's own background."""
    curses.start_color()
    if not curses.has_colors():
        return {}
    background = -1
    try:
        curses.use_default_colors()
    except curses.error:
        background = curses.COLOR_BLACK
    for number, colour in enumerate(_COLOURS.values(), 1):
        curses.init_pair(number, colour, background)
    return {look: curses.color_pair(number) for number, look in enumerate(_COLOURS, 1)}


def _unknown(terminal: str) -> PortsliceError:
    return PortsliceError(
        f"The terminal's type '{terminal}' cannot show a live view: set TERM to one that this machine knows, e.g. xterm"
    )


def _end(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)

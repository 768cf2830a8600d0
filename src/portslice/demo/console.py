"""What the demo shows: steps with the time they begin at, the commands it runs, figures, and claims that hold or not.

Plain text of 80 columns; colours only on a terminal, and not where NO_COLOR (no-color.org) is set.
"""

import os
import shlex
import textwrap
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TextIO

from portslice.cli.table import table

_WIDTH = 80
_INDENT = " " * 9
_BOLD, _GREEN, _RED, _DIM = "1", "32", "31", "2"


class Claim(NamedTuple):
    """Something the demo says about the product, and whether it was so."""

    text: str
    held: bool


class Console:
    """Writes to one stream, and keeps the claims."""

    def __init__(self, stream: TextIO) -> None:
        self.claims: list[Claim] = []
        self._stream = stream
        self._colours = stream.isatty() and not os.environ.get("NO_COLOR")
        self._began = time.monotonic()

    @property
    def elapsed_secs(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._began

    def step(self, title: str) -> None:
        """Announce what happens next."""
        self._write(f"{self._paint(f'[{self.elapsed_secs:5.1f}s]', _DIM)} {self._paint(title, _BOLD)}")

    def say(self, text: str) -> None:
        """A sentence."""
        for line in textwrap.wrap(text, _WIDTH - len(_INDENT), break_long_words=False, break_on_hyphens=False):
            self._write(_INDENT + line)

    def command(self, arguments: Sequence[str]) -> None:
        """A command line as one would type it, over as many lines as it takes."""
        lines, line = [], "$"
        for word in map(shlex.quote, arguments):
            if len(_INDENT) + len(line) + len(word) + 3 > _WIDTH:
                lines.append(line + " \\")
                line = "   "
            line += f" {word}"
        for each in [*lines, line]:
            self._write(_INDENT + each)

    def table(self, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Columns."""
        for line in table(header, rows).splitlines():
            self._write(_INDENT + line)

    def claim(self, text: str, held: bool) -> None:
        """Something that must be so."""
        self.claims.append(Claim(text, held))
        mark = self._paint("ok", _GREEN) if held else self._paint("NOT SO", _RED)
        self._write(f"{_INDENT}{mark}: {text}")

    def _paint(self, text: str, code: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self._colours else text

    def _write(self, line: str) -> None:
        print(line, file=self._stream, flush=True)

"""What a live view is drawn with: figures in a few characters, bars, plots, and the looks of a text.

Bytes are shown in powers of 1024 (K, M, G), as the agent's flags take them; packets in powers of 1000 (k, M, G).
"""

import enum
import math
import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TextIO

UNKNOWN = "-"
_EIGHTHS = {True: " ▏▎▍▌▋▊▉█", False: "        #"}
_LEVELS = {True: " ▁▂▃▄▅▆▇█", False: " _.:-=+*#"}
_EMPTY = {True: "░", False: "."}


@dataclass(frozen=True)
class Style:
    """What the terminal can show."""

    unicode: bool
    colour: bool

    @classmethod
    def of(cls, stream: TextIO) -> "Style":
        """Unicode if the stream's encoding has it; colours on a terminal, unless NO_COLOR (no-color.org) is set."""
        return cls(
            unicode=(stream.encoding or "").lower().replace("-", "") == "utf8",
            colour=stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb",
        )


class Look(enum.Flag):
    """How a text is drawn. Colours are left out where the terminal has none, or NO_COLOR is set."""

    PLAIN = 0
    BOLD = enum.auto()
    DIM = enum.auto()
    REVERSE = enum.auto()
    RED = enum.auto()
    YELLOW = enum.auto()
    GREEN = enum.auto()
    CYAN = enum.auto()


Line = Sequence[tuple[str, Look]]


class Size(NamedTuple):
    """Of the terminal, in cells."""

    lines: int
    columns: int


def bytes_(value: float | None) -> str:
    """At most 5 characters: 0, 999, 36.6M."""
    return _scaled(value, 1024, ("", "K", "M", "G", "T", "P", "E"))


def count(value: float | None) -> str:
    """At most 5 characters: 0, 12345, 123k."""
    if value is not None and value < 99_999.5:
        return str(round(value))
    return _scaled(value, 1000, ("", "k", "M", "G", "T", "P", "E"))


def per_second(value: float | None) -> str:
    """A rate of whole things, at most 5 characters: 0, 0.3, 25, 123k."""
    if value is not None and 0 < value < 9.95:
        return f"{max(value, 0.1):.1f}"
    return count(value)


def percent(value: float | None) -> str:
    """Of 1.0: 0%, 0.4%, 87%, 120%."""
    if value is None:
        return UNKNOWN
    return f"{value * 100:.1f}%" if 0 < value < 0.0995 else f"{value * 100:.0f}%"


def microseconds(value: float | None) -> str:
    """At most 6 characters: 850us, 12.3ms, 1.5s."""
    if value is None:
        return UNKNOWN
    for size, unit in ((1e6, "s"), (1e3, "ms")):
        if value >= size * 0.9995:
            scaled = value / size
            return f"{scaled:.0f}{unit}" if scaled >= 99.95 else f"{scaled:.1f}{unit}"
    return f"{value:.0f}us"


def _scaled(value: float | None, base: int, units: Sequence[str]) -> str:
    if value is None:
        return UNKNOWN
    if value < 999.5:
        return str(round(value))
    scaled, exponent = float(value), 0
    while scaled >= 999.5 and exponent < len(units) - 1:
        scaled, exponent = scaled / base, exponent + 1
    return f"{scaled:.0f}{units[exponent]}" if scaled >= 99.95 else f"{scaled:.1f}{units[exponent]}"


def bar(value: float | None, width: int, style: Style) -> str:
    """`value` of 1.0 as a bar of `width`; more than 1.0 is full, too."""
    if value is None:
        return " " * width
    eighths = round(min(max(value, 0.0), 1.0) * width * 8)
    full, rest = divmod(eighths, 8)
    marks = _EIGHTHS[style.unicode]
    drawn = marks[8] * full + (marks[rest] if rest else "")
    return drawn.replace(" ", _EMPTY[style.unicode]).ljust(width, _EMPTY[style.unicode])


def plot(values: Sequence[float | None], style: Style, height: int = 1) -> list[str]:
    """Columns of up to `height` lines, the highest line first. The highest value fills it; 0 is drawn as the thinnest
    line, and every other value is seen to be more; what is not known stays blank.
    """
    highest = max((value for value in values if value is not None), default=0.0)
    marks = _LEVELS[style.unicode]
    steps = height * 8 - 1
    levels = [
        0 if value is None else 1 if value <= 0 else 1 + max(math.ceil(value / highest * steps), 1) for value in values
    ]
    return ["".join(marks[min(max(level - line * 8, 0), 8)] for level in levels) for line in reversed(range(height))]


def _width(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def width(text: str) -> int:
    """How many cells of a terminal it takes."""
    return len(text) if text.isascii() else sum(map(_width, text))


def plain(text: str, style: Style) -> str:
    """What the terminal can show of a text that somebody else wrote: no control characters, among others."""
    return "".join(each if each.isprintable() and (style.unicode or each.isascii()) else "?" for each in text)


def clip(text: str, cells: int, style: Style) -> str:
    """As much as fits; what was cut off is hinted at."""
    if width(text) <= cells:
        return text
    kept, used, mark = [], 0, "…" if style.unicode else "~"
    for character in text:
        if used + _width(character) > cells - 1:
            break
        kept.append(character)
        used += _width(character)
    return "".join(kept) + mark if cells > 0 else ""


def clip_left(text: str, cells: int, style: Style) -> str:
    """The end of a text, or all of it and blanks, in exactly so many cells; for plain ASCII."""
    mark = "…" if style.unicode else "~"
    return text.ljust(cells) if len(text) <= cells else mark + text[len(text) - cells + 1 :]


def fitted(text: str, cells: int, style: Style, *, right: bool = False) -> str:
    """Clipped or padded to exactly so many cells."""
    text = clip(text, cells, style)
    padding = " " * (cells - width(text))
    return padding + text if right else text + padding

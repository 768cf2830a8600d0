"""Amounts of bytes and of time, in the spelling of Mesos (stout's `Bytes` and `Duration`).

Both are a number directly followed by a unit, without a blank. Both read more spellings than they print: printing
picks the unit that reads best, and what is printed always parses back to the same value.

    Bytes      powers of 1024, whole numbers only, any case: 37500KB. A rate is a Bytes meaning bytes per second.
    Duration   decimal numbers, exact case: 1.5hrs. Held as integer nanoseconds, at most 2**63 - 1 (292 years).
"""

import re
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Self

from .errors import ParseError

UINT64_MAX = 2**64 - 1
INT64_MAX = 2**63 - 1


def parse_unsigned(text: str, maximum: int = UINT64_MAX) -> int:
    """Read decimal digits as an integer of 0..`maximum`.

    Raises ParseError `Failed to convert '<text>' to number`.
    """
    # int() alone would let signs, blanks, underscores and foreign digits through; no 64-bit number, unless it is
    # padded with zeros, is longer than 20 digits.
    if re.fullmatch(r"[0-9]+", text) and len(digits := text.lstrip("0") or "0") <= 20 and int(digits) <= maximum:
        return int(digits)
    raise ParseError(f"Failed to convert '{text}' to number")


class Bytes(int):
    """A number of bytes; an int that prints with Mesos' units.

    `str(Bytes(2048))` is `2KB`; use `int(...)` where a text wants the plain number.
    """

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `<digits><B|KB|MB|GB|TB>`, in any case.

        Raises ParseError with the texts of Mesos; a product above 64 bits, which Mesos wraps, is refused.
        """
        number, unit = _split_at(r"[0-9]*", text)
        if not unit:
            raise ParseError(f"Invalid bytes '{text}'")
        if unit.startswith("."):
            raise ParseError(f"Fractional bytes '{text}'")
        count = parse_unsigned(number)
        factor = _BYTES_UNITS.get(unit.upper())
        if factor is None:
            raise ParseError(f"Unknown bytes unit '{unit.upper()}'")
        if count * factor > UINT64_MAX:
            raise ParseError(f"Invalid bytes '{text}': more than 64 bits can hold")
        return cls(count * factor)

    def __str__(self) -> str:
        """Print with the largest unit that divides exactly: 0B, 2000B, 1KB, 37500KB."""
        unit, factor = next(((u, f) for u, f in _BYTES_UNITS.items() if self and not self % f), ("B", 1))
        return f"{int(self) // factor}{unit}"


_BYTES_UNITS = {"TB": 1024**4, "GB": 1024**3, "MB": 1024**2, "KB": 1024, "B": 1}


@dataclass(frozen=True, order=True, slots=True)
class Duration:
    """A length of time in whole nanoseconds."""

    ns: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `<decimal><ns|us|ms|secs|mins|hrs|days|weeks>`, rounded to a nanosecond.

        Raises ParseError with the texts of Mesos.
        """
        number, unit = _split_at(r"[0-9.]*", text)
        if not unit:
            raise ParseError(f"Invalid duration '{text}'")
        if not re.fullmatch(r"[0-9]+\.?[0-9]*|\.[0-9]+", number):
            raise ParseError(f"Failed to convert '{number}' to number")
        if unit not in _DURATION_UNITS:
            raise ParseError(
                f"Unknown duration unit '{unit}'; supported units are"
                " 'ns', 'us', 'ms', 'secs', 'mins', 'hrs', 'days', and 'weeks'"
            )
        ns = _nanoseconds(number, unit)
        if ns > INT64_MAX:
            raise ParseError("Argument out of the range that a Duration can represent due to int64_t's size limit")
        return cls(ns)

    @property
    def seconds(self) -> float:
        """The duration in seconds."""
        return self.ns / 10**9

    def __str__(self) -> str:
        """Print as Mesos does: 1mins, 0ns, 10days, 90mins, 3140ms, 1.1875days.

        The unit is the largest not above the value; if that leaves a fraction and the next smaller unit does not, the
        smaller one. Where the 15 digits of Mesos would lose nanoseconds, the nanoseconds are printed.
        """
        units = list(_DURATION_UNITS)
        unit = next((u for u in reversed(units) if self.ns >= _DURATION_UNITS[u]), "ns")
        smaller = units[max(units.index(unit) - 1, 0)]
        if self.ns % _DURATION_UNITS[unit] and not self.ns % _DURATION_UNITS[smaller]:
            unit = smaller
        number = f"{self.ns / _DURATION_UNITS[unit]:.15g}"
        return f"{number}{unit}" if _nanoseconds(number, unit) == self.ns else f"{self.ns}ns"


_DURATION_UNITS = {
    "ns": 1,
    "us": 10**3,
    "ms": 10**6,
    "secs": 10**9,
    "mins": 60 * 10**9,
    "hrs": 3600 * 10**9,
    "days": 86400 * 10**9,
    "weeks": 604800 * 10**9,
}


def _nanoseconds(number: str, unit: str) -> int:
    # Decimal, not float: 0.29secs is 290,000,000 ns, not one less.
    return int((Decimal(number) * _DURATION_UNITS[unit]).to_integral_value(ROUND_HALF_UP))


def _split_at(number: str, text: str) -> tuple[str, str]:
    """Split a text behind what the pattern `number` matches at its beginning."""
    match = re.match(number, text)
    end = match.end() if match else 0
    return text[:end], text[end:]

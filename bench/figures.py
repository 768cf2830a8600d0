"""Medians with their spread, and ratios of what was measured in turns.

A machine's speed drifts, and more so if others use it. So two things are never compared by figures of their own times:
they take turns in short rounds, a ratio is formed within each round, and what is reported is the median of the ratios.
How far that can be trusted shows where something is compared with itself in the same way: a difference within the
quartiles of that comparison is below the noise.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple


class Spread(NamedTuple):
    """A median, the quartiles around it, and how many values they are of."""

    median: float
    low: float
    high: float
    values: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """:param values: two at least."""
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high, len(values))

    def contains(self, value: float) -> bool:
        """Whether it is within the quartiles."""
        return self.low <= value <= self.high


def percentile(values: Sequence[float], percent: int) -> float:
    """:param values: two at least."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def in_turns(subjects: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Measure each of the subjects once a round, each round beginning with another one."""
    found: dict[str, list[float]] = {name: [] for name in subjects}
    names = list(subjects)
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            found[name].append(subjects[name]())
    return found


def ratios(found: Mapping[str, Sequence[float]], base: str) -> dict[str, Spread]:
    """Of every other subject to `base`, round by round."""
    return {
        name: Spread.of([value / of for value, of in zip(values, found[base], strict=True)])
        for name, values in found.items()
        if name != base
    }

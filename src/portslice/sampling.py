"""Counters read at intervals, and what their rates were over a window of time (Mesos HEAD's rate statistics).

A sample's rate is what a counter grew by since the sample before, by the time between the two as it was, not as it
should have been. What is older than the window is dropped. Where there are still more rates than window and interval
allow for, every other one of the older half goes, as in Mesos' libprocess: the past gets coarser, not shorter.

Mesos knows two kinds of percentiles: by nearest rank for round-trip times, by linear interpolation for these rates.
"""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_MIN_CAPACITY = 3  # below, there is no older half to thin out
_MIN_SHOWN = 2  # samples below which a percentile says nothing
_PERCENTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999, "p9999": 0.9999}
RATES = {
    f"{way}_{counter}": f"{way}_{rate}"
    for way in ("rx", "tx")
    for counter, rate in (
        ("bytes", "rate"),
        ("packets", "packet_rate"),
        ("dropped", "drop_rate"),
        ("errors", "error_rate"),
    )
}
"""Names of the rates by those of their counters."""


def nearest_rank(ordered: Sequence[T], percent: int) -> T:
    """The element at rank floor(n * percent / 100), counted from 0.

    :param ordered: at least one element, the smallest first.
    :param percent: 0 to 99.
    """
    return ordered[len(ordered) * percent // 100]


def interpolated(ordered: Sequence[int], fraction: float) -> int:
    """The value at position fraction * (n - 1), linear between its neighbours and rounded down.

    :param ordered: at least one element, the smallest first.
    :param fraction: 0 to 1.
    """
    position = fraction * (len(ordered) - 1)
    below, above = ordered[math.floor(position)], ordered[math.ceil(position)]
    return math.floor(below + (position - math.floor(position)) * (above - below))


def distribution(values: Sequence[int]) -> dict[str, int]:
    """Mesos' figures of some values, at least one: {min, max, p50, p90, p95, p99, p999, p9999, samples}."""
    ordered = sorted(values)
    percentiles = {name: interpolated(ordered, fraction) for name, fraction in _PERCENTILES.items()}
    return {"min": ordered[0], "max": ordered[-1], **percentiles, "samples": len(ordered)}


@dataclass(frozen=True)
class Sampling:
    """How often, and for how long, in seconds."""

    window_secs: float
    interval_secs: float

    @property
    def capacity(self) -> int:
        """Samples that are kept."""
        return max(math.floor(self.window_secs / self.interval_secs), _MIN_CAPACITY)


class TimeSeries(Generic[T]):
    """What was measured in a window of time that ends with the last value; not more than so many values."""

    def __init__(self, window_secs: float, capacity: int) -> None:
        self._window_secs = window_secs
        self._capacity = capacity
        self._samples: deque[tuple[float, T]] = deque()
        self._thin_at: int | None = None  # where the next one goes, if there are too many

    def __len__(self) -> int:
        return len(self._samples)

    def add(self, time: float, value: T) -> None:
        """One more.

        :param time: in seconds, on a clock that never goes back.
        """
        self._samples.append((time, value))
        while self._samples[0][0] <= time - self._window_secs:
            self._samples.popleft()
            if self._thin_at is not None:
                self._thin_at = self._thin_at - 1 if self._thin_at > 1 else None
        while len(self._samples) > self._capacity:
            if self._thin_at is None or self._thin_at > self._capacity // 2:
                self._thin_at = 1
            del self._samples[self._thin_at]
            self._thin_at += 1

    def values(self) -> list[T]:
        """The oldest first."""
        return [value for _, value in self._samples]


class RateSampler:
    """The rates of a link's eight counters over a window."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._last: tuple[float, list[int]] | None = None
        self._rates: TimeSeries[list[int]] = TimeSeries(sampling.window_secs, sampling.capacity)

    def sample(self, time: float, counters: Mapping[str, int]) -> None:
        """Counters as they are at a time.

        :param time: in seconds, on a clock that never goes back.
        :param counters: at least those named in `RATES`.
        """
        values = [counters[name] for name in RATES]
        if self._last is not None:
            then, before = self._last
            grown = [value - old for value, old in zip(values, before, strict=True)]
            # A counter that is smaller than it was is another link's: from here on, anew.
            if time > then and min(grown) >= 0:
                self._rates.add(time, [math.floor(each / (time - then)) for each in grown])
        self._last = time, values

    def statistics(self) -> dict[str, Any]:
        """Members of Mesos' RateStatistics: each rate, as far as there are samples, per second; window and interval."""
        shown: dict[str, Any] = {
            "sampling_window_secs": self._sampling.window_secs,
            "sampling_interval_secs": self._sampling.interval_secs,
        }
        if len(self._rates) >= _MIN_SHOWN:
            series = zip(*self._rates.values(), strict=True)
            shown |= {name: distribution(values) for name, values in zip(RATES.values(), series, strict=True)}
        return shown

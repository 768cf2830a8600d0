"""Rates over a window, and percentiles: the figures of Mesos' RatesCollectorTest, and what holds of any samples."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portslice.sampling import (
    RATES,
    RateSampler,
    Sampling,
    TimeSeries,
    distribution,
    interpolated,
    nearest_rank,
)

PERCENTILES = ["min", "p50", "p90", "p95", "p99", "p999", "p9999", "max"]
NO_TRAFFIC = dict.fromkeys(RATES, 0)

# RatesCollectorTest.PercentileRatesCollector: counters at seconds 0 to 5, and the figures of their rates.
COUNTERS = {
    "rx_bytes": [0, 100, 200, 250, 300, 350],
    "rx_packets": [0, 10, 20, 25, 30, 35],
    "rx_dropped": [0, 5, 10, 11, 12, 13],
    "rx_errors": [0, 1, 2, 3, 4, 5],
    "tx_bytes": [0, 10, 20, 20, 20, 20],
    "tx_packets": [0, 1, 2, 2, 2, 2],
    "tx_dropped": [0, 1, 2, 2, 2, 2],
    "tx_errors": [0, 1, 2, 2, 2, 2],
}
FIGURES = {
    "rx_rate": {"max": 100, "min": 50, "p90": 100, "p50": 50},
    "rx_packet_rate": {"max": 10, "min": 5, "p90": 10, "p50": 5},
    "rx_drop_rate": {"max": 5, "min": 1, "p90": 5, "p50": 1},
    "rx_error_rate": {"max": 1, "min": 1, "p90": 1, "p50": 1},
    "tx_rate": {"max": 10, "min": 0, "p90": 10, "p50": 0},
    "tx_packet_rate": {"max": 1, "min": 0, "p90": 1, "p50": 0},
    "tx_drop_rate": {"max": 1, "min": 0, "p90": 1, "p50": 0},
    "tx_error_rate": {"max": 1, "min": 0, "p90": 1, "p50": 0},
}


def test_percentile_rates_collector() -> None:
    """PercentileRatesCollector"""
    sampler = RateSampler(Sampling(window_secs=10.0, interval_secs=1.0))
    for second in range(6):
        shown = sampler.statistics()
        assert (shown.keys() >= FIGURES.keys()) == (second >= 3), "two rates need three samples"
        assert (shown["sampling_window_secs"], shown["sampling_interval_secs"]) == (10.0, 1.0)
        sampler.sample(1000.0 + second, {name: values[second] for name, values in COUNTERS.items()})
    shown = sampler.statistics()
    for name, figures in FIGURES.items():
        assert shown[name]["samples"] == 5
        assert figures.items() <= shown[name].items(), name
    assert shown.keys() == {*FIGURES, "sampling_window_secs", "sampling_interval_secs"}


def test_a_rate_is_by_the_time_that_passed() -> None:
    sampler = RateSampler(Sampling(10.0, 1.0))
    for time, octets in ((0.0, 0), (4.0, 100), (4.5, 200)):
        sampler.sample(time, NO_TRAFFIC | {"rx_bytes": octets})
    assert sampler.statistics()["rx_rate"] == distribution([25, 200])


def test_old_rates_leave_the_window() -> None:
    sampler = RateSampler(Sampling(10.0, 1.0))
    for second, octets in enumerate((0, 1000, 1000, 1000)):
        sampler.sample(float(second), NO_TRAFFIC | {"tx_bytes": octets})
    assert sampler.statistics()["tx_rate"]["max"] == 1000
    sampler.sample(11.5, NO_TRAFFIC | {"tx_bytes": 1000})
    assert sampler.statistics()["tx_rate"]["max"] == 0


def test_counters_that_begin_again_are_no_rate() -> None:
    sampler = RateSampler(Sampling(10.0, 1.0))
    for second, octets in enumerate((500, 510, 520, 7, 17)):
        sampler.sample(float(second), NO_TRAFFIC | {"rx_bytes": octets})
    assert sampler.statistics()["rx_rate"] == distribution([10, 10, 10])


@pytest.mark.parametrize(("window", "interval", "capacity"), [(5.0, 0.05, 100), (10.0, 3.0, 3), (1.0, 0.9, 3)])
def test_capacity(window: float, interval: float, capacity: int) -> None:
    assert Sampling(window, interval).capacity == capacity


def test_the_older_half_is_thinned_out() -> None:
    """The example in libprocess' own description."""
    series: TimeSeries[int] = TimeSeries(1000.0, 7)
    for number in range(7):
        series.add(float(number), number)
    for number, kept in {
        7: [0, 2, 3, 4, 5, 6, 7],
        8: [0, 2, 4, 5, 6, 7, 8],
        9: [0, 2, 4, 6, 7, 8, 9],
        10: [0, 4, 6, 7, 8, 9, 10],
    }.items():
        series.add(float(number), number)
        assert series.values() == kept


@given(
    st.lists(st.floats(0.001, 20.0), min_size=1, max_size=200),
    st.floats(0.1, 50.0),
    st.integers(3, 20),
)
def test_a_series_keeps_its_bounds(steps: list[float], window: float, capacity: int) -> None:
    series: TimeSeries[float] = TimeSeries(window, capacity)
    now = 0.0
    added = []
    for step in steps:
        now += step
        series.add(now, now)
        added.append(now)
        values = series.values()
        assert 1 <= len(values) == len(series) <= capacity
        assert values[-1] == now
        assert values[0] > now - window
        assert all(one < other for one, other in pairwise(values))
        within = [each for each in added if each > now - window]
        assert set(values) <= set(within)
        if len(added) <= capacity:
            assert values == within, "nothing has to go"


@given(st.lists(st.integers(0, 2**40), min_size=1))
def test_percentiles_lie_between_the_values(values: list[int]) -> None:
    figures = distribution(values)
    ordered = [figures[name] for name in PERCENTILES]
    assert ordered == sorted(ordered)
    assert (figures["min"], figures["max"], figures["samples"]) == (min(values), max(values), len(values))


@given(st.lists(st.integers(0, 2**40), min_size=1), st.floats(0, 1))
def test_interpolation(values: list[int], fraction: float) -> None:
    values.sort()
    position = fraction * (len(values) - 1)
    around = values[math.floor(position)], values[math.ceil(position)]
    assert around[0] <= interpolated(values, fraction) <= around[1]


def test_interpolation_between_two() -> None:
    assert [interpolated([0, 10, 30], fraction) for fraction in (0, 0.25, 0.5, 0.6, 1)] == [0, 5, 10, 14, 30]


@pytest.mark.parametrize(
    ("count", "ranks"), [(1, [0, 0, 0, 0]), (2, [1, 1, 1, 1]), (10, [5, 9, 9, 9]), (100, [50, 90, 95, 99])]
)
def test_nearest_rank(count: int, ranks: list[int]) -> None:
    assert [nearest_rank(range(count), percent) for percent in (50, 90, 95, 99)] == ranks

"""The arithmetic of limits: Mesos' Scale* tests as vectors, and what holds for any flags."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portslice.rates import Rate, RatePolicy

SCALE = RatePolicy(per_cpu=1000, minimum=2000, maximum=4000)  # ScaleEgressWithCPU
LARGE = RatePolicy(per_cpu=12_500_000_000 // 64, minimum=625_000_000, maximum=11_250_000_000)  # …Large


@pytest.mark.parametrize(
    ("policy", "cpus", "rate"),
    [
        (SCALE, None, 2000),
        (SCALE, 3.1, 3000),
        (SCALE, 3.999, 3000),
        (SCALE, 5, 4000),
        (LARGE, 30, 5_859_375_000),
        (LARGE, 1, 625_000_000),
        (LARGE, 60, 11_250_000_000),
        (RatePolicy(fixed=37500 << 10), None, 37500 << 10),
        (RatePolicy(fixed=37500 << 10), 64, 37500 << 10),
        (RatePolicy(fixed=2000), None, 125_000),
        (RatePolicy(fixed=2000, minimum=0), None, 2000),
        (RatePolicy(fixed=2000, minimum=3000), None, 3000),
        (RatePolicy(fixed=1, maximum=1000), None, 1000),  # the default minimum, then the maximum
        (RatePolicy(fixed=5000, minimum=0, maximum=0), None, 5000),
        (RatePolicy(per_cpu=1000, minimum=0), 0.5, 1000),
        (RatePolicy(per_cpu=1000, minimum=0, maximum=300), 0.5, 300),
    ],
)
def test_vectors(policy: RatePolicy, cpus: float | None, rate: int) -> None:
    assert policy.rate(cpus) == Rate(rate)


@pytest.mark.parametrize(
    "policy", [RatePolicy(), RatePolicy(fixed=0), RatePolicy(per_cpu=0), RatePolicy(minimum=5, maximum=9, ceil=7)]
)
def test_no_limit(policy: RatePolicy) -> None:
    assert policy.rate(4) is None


@pytest.mark.parametrize(
    ("ceil", "burst", "expected"),
    [
        (3000, 500, Rate(2000, 3000, 500)),
        (3000, None, Rate(2000, 3000)),
        (3000, 0, Rate(2000, 3000)),
        (2000, 500, Rate(2000)),
        (1000, 500, Rate(2000)),
        (0, 500, Rate(2000)),
        (None, 500, Rate(2000)),
    ],
)
def test_a_ceiling_counts_above_the_rate_and_a_burst_with_a_ceiling(
    ceil: int | None, burst: int | None, expected: Rate
) -> None:
    assert RatePolicy(fixed=2000, minimum=0, ceil=ceil, burst=burst).rate(None) == expected


def test_what_is_asked_for_goes_before_the_flags_but_not_beyond_the_maximum() -> None:
    policy = RatePolicy(fixed=50_000, minimum=20_000, maximum=100_000, ceil=80_000)
    assert policy.rate(None, 2000) == Rate(2000)
    assert policy.rate(None, 200_000) == Rate(100_000)
    assert policy.rate(None, 0) == Rate(100_000)
    assert RatePolicy(fixed=50_000).rate(None, 0) is None
    assert RatePolicy().rate(None, 7) == Rate(7)


AMOUNTS = st.none() | st.integers(0, 2**62)
POLICIES = st.builds(RatePolicy, AMOUNTS, st.none(), AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS) | st.builds(
    RatePolicy, st.none(), AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS
)
CPUS = st.none() | st.floats(0.01, 4096)


@given(POLICIES, CPUS, AMOUNTS)
def test_what_holds_for_all(policy: RatePolicy, cpus: float | None, asked: int | None) -> None:
    limit = policy.rate(cpus, asked)
    if limit is None:
        assert asked == 0 or (asked is None and not policy.fixed and not policy.per_cpu)
        return
    assert limit.rate > 0
    assert not policy.maximum or limit.rate <= policy.maximum
    assert limit.ceil is None or limit.ceil > limit.rate
    assert limit.burst is None or limit.ceil is not None


@given(POLICIES, st.floats(0.01, 4096), st.floats(0.01, 4096))
def test_more_cpus_never_mean_less(policy: RatePolicy, one: float, other: float) -> None:
    fewer, more = policy.rate(min(one, other)), policy.rate(max(one, other))
    assert (fewer is None) == (more is None)
    assert fewer is None or more is None or fewer.rate <= more.rate

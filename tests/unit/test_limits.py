"""What one of those that reach a port may take, and that it is no other's."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from portslice.engines.mesos.authentication import Timeouts
from portslice.http import connections
from portslice.http.basic import Allowance
from portslice.http.connections import Connections
from portslice.http.sources import Source


class Clock:
    """Goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_some_failures_are_free_and_then_one_in_a_while() -> None:
    clock = Clock()
    allowance: Allowance[str] = Allowance(3, 5.0, clock=clock)
    for _ in range(3):
        assert allowance.wait_secs("a") == 0
        allowance.failed("a")
    assert allowance.wait_secs("a") == 5
    assert allowance.wait_secs("b") == 0
    clock.now += 5
    assert allowance.wait_secs("a") == 0
    allowance.failed("a")
    assert allowance.wait_secs("a") == 5
    clock.now += 15
    for _ in range(3):
        assert allowance.wait_secs("a") == 0
        allowance.failed("a")


@given(st.lists(st.tuples(st.integers(0, 9), st.floats(0, 3)), max_size=200))
def test_nobody_tries_oftener_than_allowed(tries: list[tuple[int, float]]) -> None:
    """Whenever they come, in any stretch of time; and what is remembered is bounded."""
    clock = Clock()
    allowance: Allowance[int] = Allowance(3, 5.0, most=10, clock=clock)
    failures: dict[int, list[float]] = {}
    for who, later in tries:
        clock.now += later
        if allowance.wait_secs(who) == 0:
            allowance.failed(who)
            failures.setdefault(who, []).append(clock.now)
        assert len(allowance) <= 10
    for times in failures.values():
        for first in range(len(times) - 3):
            assert times[first + 3] - times[first] >= 5 - 1e-9


def test_who_failed_most_is_not_forgotten() -> None:
    clock = Clock()
    allowance: Allowance[int] = Allowance(2, 5.0, most=10, clock=clock)
    for _ in range(2):
        allowance.failed(-1)
    for stranger in range(1000):
        allowance.failed(stranger)
        assert len(allowance) <= 10
    assert allowance.wait_secs(-1) == 5
    clock.now += 60
    allowance.failed(1)
    for stranger in range(10):
        allowance.failed(stranger)
    assert len(allowance) <= 10


def test_containers_leave_half_to_others_and_nobody_takes_all() -> None:
    served = Connections()
    counts: Counter[str] = Counter()
    containers = [Source("10.0.0.1", f"the container {number}", is_container=True) for number in range(100)]
    for source in containers:
        while served.enter(source):
            counts[source.who] += 1
    assert max(counts.values()) == connections.MOST_OF_ONE
    assert counts.total() == connections.MOST_OF_CONTAINERS
    process = Source("10.0.0.1", "a process of the user 0")
    assert served.enter(process)
    others = [Source(f"10.0.1.{number}") for number in range(100)]
    for source in others:
        while served.enter(source):
            pass
    assert not served.enter(Source("10.0.2.1"))
    served.leave(process)
    assert served.enter(Source("10.0.2.1"))


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3)), max_size=100))
def test_what_has_gone_is_not_counted(events: list[tuple[bool, int]]) -> None:
    served = Connections()
    inside: Counter[int] = Counter()
    for comes, who in events:
        source = Source(f"10.0.0.{who}")
        if comes:
            assert served.enter(source)
            inside[who] += 1
        elif inside[who]:
            served.leave(source)
            inside[who] -= 1
        assert len(served) == inside.total()
    for who, number in inside.items():
        for _ in range(number):
            served.leave(Source(f"10.0.0.{who}"))
    for _ in range(connections.MOST_OF_ONE):
        assert served.enter(Source("10.0.0.0"))
    assert not served.enter(Source("10.0.0.0"))


@given(st.integers(0, 2000))
def test_a_try_gets_more_time_each_time(tries: int) -> None:
    timeouts = Timeouts(least=5, most=60, factor=1)
    assert 5 <= timeouts.secs(tries) <= min(5 + 2.0 ** min(tries + 1, 30), 60)
    assert Timeouts(least=5, most=1, factor=1).secs(tries) == 5

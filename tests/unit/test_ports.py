"""Port sets against sets of bits, and the block allocator's vectors and invariants."""

import time
from functools import reduce
from operator import or_

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from portslice.errors import ConflictError, NoPortsError, ParseError
from portslice.ports import MAX_PORT, BlockAllocator, PortRange, PortSet, choose_ports

# Small numbers make ranges overlap and touch; the ends of the space make overflows show.
port = st.integers(0, 60) | st.integers(MAX_PORT - 60, MAX_PORT) | st.integers(0, MAX_PORT)
port_range = st.tuples(port, st.integers(0, 40)).map(lambda p: PortRange(p[0], min(p[0] + p[1], MAX_PORT)))
port_set = st.lists(port_range | st.just(PortRange(0, MAX_PORT)), max_size=12).map(PortSet)


def ranges(*pairs: tuple[int, int]) -> PortSet:
    return PortSet(PortRange(begin, end) for begin, end in pairs)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("31000-31004,31010", ranges((31000, 31004), (31010, 31010))),
        ("31010, 31000 - 31004", ranges((31000, 31004), (31010, 31010))),
        ("[31000-31004, 31010-31010]", ranges((31000, 31004), (31010, 31010))),
        ("1-5,3-9", ranges((1, 9))),
        ("1-5,6-9", ranges((1, 9))),
        ("0-65535", ranges((0, 65535))),
        ("[]", PortSet()),
    ],
)
def test_port_sets_are_read(text: str, expected: PortSet) -> None:
    assert PortSet.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Invalid ports '': Failed to convert '' to number"),
        ("80,x", "Invalid ports 'x': Failed to convert 'x' to number"),
        ("1-2-3", "Invalid ports '1-2-3': Failed to convert '2-3' to number"),
        ("5-3", "Invalid ports '5-3': 'begin' is larger than 'end'"),
        ("1-65536", "Invalid ports '1-65536': Range is out of bounds"),
        ("[1-2", "Invalid ports '[1-2': Failed to convert '[1' to number"),
    ],
)
def test_bad_ports_are_refused(text: str, message: str) -> None:
    with pytest.raises(ParseError) as caught:
        PortSet.parse(text)
    assert str(caught.value) == message


def test_texts() -> None:
    ports = PortSet.parse("31000-31004,31010")
    assert str(ports) == "[31000-31004, 31010-31010]"
    assert ports.icl() == "{[31000,31005)[31010,31011)}"
    assert PortRange(0, 1023).icl() == "[0,1024)"
    assert ranges((60000, 65535)).icl() == "{[60000,65536)}"
    assert PortSet().icl() == "{}"
    assert str(PortSet()) == "[]"


def bits(ports: PortSet) -> int:
    """The set as a number: bit n stands for port n."""
    return reduce(or_, (((1 << each.end - each.begin + 1) - 1) << each.begin for each in ports.ranges), 0)


@given(port_set, port_set, port)
def test_algebra_is_that_of_sets(a: PortSet, b: PortSet, p: int) -> None:
    left, right = bits(a), bits(b)
    for result, expected in [(a | b, left | right), (a & b, left & right), (a - b, left & ~right)]:
        assert bits(result) == expected
        assert len(result) == expected.bit_count()
        assert bool(result) == bool(expected)
        assert all(x.end + 1 < y.begin for x, y in zip(result.ranges, result.ranges[1:], strict=False))
    assert bits(~a) == left ^ (1 << MAX_PORT + 1) - 1
    assert list(a) == [port for each in a.ranges for port in range(each.begin, each.end + 1)]
    assert (p in a) == bool(left >> p & 1)
    assert a.issubset(b) == (left & ~right == 0)
    assert a.isdisjoint(b) == (left & right == 0)
    assert (a == b) == (left == right)
    assert PortSet(reversed(a.ranges)) == a
    assert PortSet.parse(str(a)) == a


@pytest.mark.parametrize(
    ("space", "size", "count", "first", "last"),
    [
        ("30001-30999", 16, 61, (30016, 30031), (30976, 30991)),
        ("30001-30999", 512, 1, (30208, 30719), (30208, 30719)),
        ("32768-57344", 1024, 24, (32768, 33791), (56320, 57343)),
        ("32768-57344", 512, 48, (32768, 33279), (56832, 57343)),
        ("60000-65535", 16, 346, (60000, 60015), (65520, 65535)),
        ("0-65535", 65536, 1, (0, 65535), (0, 65535)),
        ("0-65535", 1, 65536, (0, 0), (65535, 65535)),
        ("32768-57344", 1000, 24, (33000, 33999), (56000, 56999)),
        ("1000-1031,2000-2031", 20, 2, (1000, 1019), (2000, 2019)),
        ("1000-1010", 16, 0, None, None),
    ],
)
def test_vectors_of_the_allocator(
    space: str, size: int, count: int, first: tuple[int, int] | None, last: tuple[int, int] | None
) -> None:
    allocator = BlockAllocator(PortSet.parse(space), size)
    blocks = list(allocator.blocks())
    assert (len(blocks), allocator.capacity, allocator.available) == (count, count, count)
    if first and last:
        assert (blocks[0], blocks[-1]) == (PortRange(*first), PortRange(*last))
    if count <= 1000:
        assert [allocator.allocate() for _ in range(count)] == blocks
        with pytest.raises(NoPortsError, match=r"^Failed to allocate ephemeral ports$"):
            allocator.allocate()


def test_a_block_of_no_ports_is_refused() -> None:
    with pytest.raises(NoPortsError, match=r"^Number of ephemeral ports per container is zero$"):
        BlockAllocator(ranges((0, 99)), 0)


def test_blocks_with_ports_to_avoid_are_skipped() -> None:
    allocator = BlockAllocator(ranges((1000, 2047)), 256)
    assert list(allocator.free_blocks()) == [PortRange(1024 + 256 * n, 1279 + 256 * n) for n in range(4)]
    avoid = ranges((1, 1023), (1279, 1280), (65535, 65535))
    assert allocator.allocate(avoid) == PortRange(1536, 1791)
    assert allocator.allocate(avoid) == PortRange(1792, 2047)
    with pytest.raises(NoPortsError):
        allocator.allocate(avoid)
    assert allocator.available == 2  # nothing was taken
    assert allocator.allocate() == PortRange(1024, 1279)


@given(*(st.lists(port_range, max_size=8).map(PortSet) for _ in range(3)), st.integers(1, 20))
def test_the_lowest_block_without_such_ports(space: PortSet, taken: PortSet, avoid: PortSet, size: int) -> None:
    allocator = BlockAllocator(space, size)
    for ports in (space & taken).ranges:
        allocator.reserve(ports)
    fitting = [block for block in allocator.free_blocks() if not any(each in avoid for each in block)]
    if fitting:
        assert allocator.allocate(avoid) == fitting[0]
    else:
        with pytest.raises(NoPortsError):
            allocator.allocate(avoid)


@given(st.lists(port))
def test_sets_of_single_ports(ports: list[int]) -> None:
    assert PortSet.of(ports) == PortSet(PortRange(each, each) for each in ports)


def test_recovered_blocks_keep_their_size() -> None:
    allocator = BlockAllocator(ranges((1024, 2047)), 256)
    allocator.reserve(PortRange(1270, 1290))  # straddles the first two blocks
    assert allocator.available == 2
    assert allocator.allocate() == PortRange(1536, 1791)
    allocator.release(PortRange(1270, 1290))
    assert allocator.allocate() == PortRange(1024, 1279)


@pytest.mark.parametrize(
    ("ports", "message"),
    [
        (PortRange(1000, 1100), "The ephemeral ports 1000-1100 are not managed by the agent"),
        (PortRange(1100, 1300), "The ephemeral ports 1100-1300 are in use"),
    ],
)
def test_reserving_what_is_not_free_is_refused(ports: PortRange, message: str) -> None:
    allocator = BlockAllocator(ranges((1024, 2047)), 256)
    allocator.allocate()
    with pytest.raises(ConflictError, match=f"^{message}$"):
        allocator.reserve(ports)
    assert allocator.available == 3


def test_releasing_what_is_not_in_use_is_refused() -> None:
    allocator = BlockAllocator(ranges((1024, 2047)), 256)
    block = allocator.allocate()
    allocator.release(block)
    for ports in (block, PortRange(1, 2)):
        with pytest.raises(ConflictError, match=f"^The ephemeral ports {ports} are not in use$"):
            allocator.release(ports)
    assert allocator.available == 4


class Allocations(RuleBasedStateMachine):
    """Any sequence of allocate, reserve and release keeps the promises of the allocator."""

    held = Bundle("held")

    @initialize(space=port_set, size=st.integers(1, 64))
    def start(self, space: PortSet, size: int) -> None:
        self.space = space
        self.allocator = BlockAllocator(space, size)
        self.used: list[PortRange] = []
        self.grid = set(self.allocator.blocks()) if self.allocator.capacity <= 2000 else None

    @rule(target=held)
    def allocate(self) -> PortRange | None:
        before = self.allocator.available
        if not before:
            with pytest.raises(NoPortsError):
                self.allocator.allocate()
            return None
        block = self.allocator.allocate()
        assert len(block) == self.allocator.size
        assert block.begin % self.allocator.size == 0
        assert self.grid is None or block in self.grid
        assert self.allocator.available == before - 1
        self.take(block)
        return block

    @rule(target=held, ports=port_range)
    def reserve(self, ports: PortRange) -> PortRange | None:
        if set(ports) <= set(self.space) and not any(set(ports) & set(used) for used in self.used):
            self.allocator.reserve(ports)
            self.take(ports)
            return ports
        with pytest.raises(ConflictError):
            self.allocator.reserve(ports)
        return None

    @rule(ports=consumes(held))
    def release(self, ports: PortRange | None) -> None:
        if ports is not None:
            self.allocator.release(ports)
            self.used.remove(ports)

    def take(self, ports: PortRange) -> None:
        assert PortSet([ports]).issubset(self.space)
        assert PortSet([ports]).isdisjoint(PortSet(self.used))
        self.used.append(ports)

    @invariant()
    def nothing_is_lost(self) -> None:
        if hasattr(self, "used") and not self.used:
            assert self.allocator.available == self.allocator.capacity


TestAllocations = Allocations.TestCase
TestAllocations.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


def test_the_cost_does_not_grow_with_the_size_of_the_block() -> None:
    def seconds(size: int) -> float:
        start = time.perf_counter()
        for _ in range(50):
            allocator = BlockAllocator(ranges((0, MAX_PORT)), size)
            for _ in range(8):
                allocator.allocate()
        return time.perf_counter() - start

    small, large = (min(seconds(size) for _ in range(5)) for size in (16, 8192))
    assert large < 5 * small  # 512 times as many ports


@pytest.mark.parametrize(
    ("free", "count", "chosen"),
    [
        ("31000-32000", 5, "31000-31004"),
        ("31000-31001,31005-31010", 5, "31005-31009"),
        ("31000-31001,31005-31006,31009-31010", 5, "31000-31001,31005-31006,31009"),
        ("31000-31001,31005-31009", 5, "31005-31009"),
        ("31000-32000", 0, "[]"),
    ],
)
def test_ports_are_chosen_in_one_run_if_there_is_one(free: str, count: int, chosen: str) -> None:
    assert choose_ports(PortSet.parse(free), count) == PortSet.parse(chosen)


@given(port_set, st.integers(0, 100))
def test_chosen_ports_are_free_and_as_many_as_asked(free: PortSet, count: int) -> None:
    if count > len(free):
        with pytest.raises(NoPortsError, match=f"^Not enough free ports: {count} asked for, {len(free)} left$"):
            choose_ports(free, count)
    else:
        chosen = choose_ports(free, count)
        assert len(chosen) == count
        assert chosen.issubset(free)

"""Containers that live at the same time share no id."""

from hypothesis import given
from hypothesis import strategies as st

from portslice.agent.startup import MIN_BLOCK
from portslice.containers import id_range
from portslice.ports import PortRange

LAST_UNUSED = 0x7FFFFFFF  # in systemd's list; signed 32 bits end there, too


@st.composite
def disjoint_blocks(draw: st.DrawFn) -> tuple[PortRange, PortRange]:
    """Of two agents, with block sizes of their own."""
    first, second = draw(st.integers(MIN_BLOCK, 4096)), draw(st.integers(MIN_BLOCK, 4096))
    begin = draw(st.integers(1, 65536 - first - second))
    gap = draw(st.integers(0, 65536 - begin - first - second))
    after = begin + first + gap
    return PortRange(begin, begin + first - 1), PortRange(after, after + second - 1)


@given(disjoint_blocks())
def test_disjoint_blocks_have_disjoint_ids(blocks: tuple[PortRange, PortRange]) -> None:
    lower, upper = (id_range.first_id(block) for block in blocks)
    assert lower + id_range.SIZE <= upper
    assert lower >= 0x70000000
    assert upper + id_range.SIZE - 1 <= LAST_UNUSED


def test_no_block_is_smaller_than_a_range_stands_for() -> None:
    assert id_range.SMALLEST_BLOCK <= MIN_BLOCK

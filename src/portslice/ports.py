"""Ports as values: ranges, sets, and the allocators that hand them out.

A `PortSet` is a sorted tuple of ranges that neither overlap nor touch, so equal sets are equal tuples and every
operation costs as much as there are ranges, never as there are ports. Union (sort and coalesce) and complement (the
gaps) are written out; intersection and difference follow by De Morgan. Both ends of a range are inclusive, so 65535
needs no 17th bit; only the half-open text of Boost ICL, which Mesos uses in its messages, shows a 65536.

An ephemeral block is `size` ports aligned to a multiple of `size` (Mesos' `EphemeralPortsAllocator`). Alignment makes
fragmentation impossible: as all blocks fall on one grid, a freed block is exactly as good as one never used. A range's
unaligned head and tail are left unused. The size need not be a power of two.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Self

from .errors import ConflictError, NoPortsError, ParseError
from .units import parse_unsigned

MAX_PORT = 65535


@dataclass(frozen=True, order=True, slots=True)
class PortRange:
    """The ports `begin`..`end`, both included.

    Raises ParseError if `begin` is larger than `end`, or a port is not in 0..65535.
    """

    begin: int
    end: int

    def __post_init__(self) -> None:
        if self.begin > self.end:
            raise ParseError("'begin' is larger than 'end'")
        if self.begin < 0 or self.end > MAX_PORT:
            raise ParseError("Range is out of bounds")

    def __len__(self) -> int:
        return self.end - self.begin + 1

    def __contains__(self, port: int) -> bool:
        return self.begin <= port <= self.end

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.begin, self.end + 1))

    def __str__(self) -> str:
        return f"{self.begin}-{self.end}"

    def icl(self) -> str:
        """The half-open text of a Boost ICL interval: [0,1024)."""
        return f"[{self.begin},{self.end + 1})"


@dataclass(frozen=True, slots=True, init=False)
class PortSet:
    """An immutable set of ports; `ranges` is its unique normal form, ascending, neither overlapping nor touching."""

    ranges: tuple[PortRange, ...]

    def __init__(self, ranges: Iterable[PortRange] = ()) -> None:
        object.__setattr__(self, "ranges", tuple(_coalesce(ranges)))

    @classmethod
    def of(cls, ports: Iterable[int]) -> Self:
        """The set of these ports. Raises ParseError if one is not in 0..65535."""
        runs: list[list[int]] = []
        for port in sorted(ports):
            if runs and port <= runs[-1][1] + 1:
                runs[-1][1] = port
            else:
                runs.append([port, port])
        return cls(PortRange(begin, end) for begin, end in runs)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `31000-31004,31010`; the form that `str` gives, in brackets, is read as well.

        Raises ParseError naming the part that is wrong.
        """
        inner = text.strip()
        if inner == "[]":
            return cls()
        if inner.startswith("[") and inner.endswith("]"):
            inner = inner[1:-1]
        return cls(map(_parse_range, inner.split(",")))

    def __len__(self) -> int:
        return sum(map(len, self.ranges))

    def __contains__(self, port: int) -> bool:
        at = bisect_right(self.ranges, port, key=lambda r: r.begin)
        return at > 0 and port <= self.ranges[at - 1].end

    def __iter__(self) -> Iterator[int]:
        for ports in self.ranges:
            yield from ports

    def __or__(self, other: "PortSet") -> "PortSet":
        return PortSet(self.ranges + other.ranges)

    def __invert__(self) -> "PortSet":
        begins = [0, *(r.end + 1 for r in self.ranges)]
        ends = [*(r.begin - 1 for r in self.ranges), MAX_PORT]
        return PortSet(PortRange(b, e) for b, e in zip(begins, ends, strict=True) if b <= e)

    def __and__(self, other: "PortSet") -> "PortSet":
        return ~(~self | ~other)

    def __sub__(self, other: "PortSet") -> "PortSet":
        return ~(~self | other)

    def issubset(self, other: "PortSet") -> bool:
        return not self - other

    def isdisjoint(self, other: "PortSet") -> bool:
        return not self & other

    def __str__(self) -> str:
        """The text of a Mesos resource: [31000-31004, 31010-31010]."""
        return f"[{', '.join(map(str, self.ranges))}]"

    def icl(self) -> str:
        """The text of a Boost ICL interval set, which Mesos' messages use: {[31000,31005)[31010,31011)}."""
        return f"{{{''.join(r.icl() for r in self.ranges)}}}"


def _coalesce(ranges: Iterable[PortRange]) -> Iterator[PortRange]:
    merged: PortRange | None = None
    for current in sorted(ranges):
        if merged is None:
            merged = current
        elif current.begin <= merged.end + 1:
            merged = PortRange(merged.begin, max(merged.end, current.end))
        else:
            yield merged
            merged = current
    if merged is not None:
        yield merged


def _parse_range(text: str) -> PortRange:
    begin, dash, end = (part.strip() for part in text.partition("-"))
    try:
        return PortRange(parse_unsigned(begin), parse_unsigned(end if dash else begin))
    except ParseError as error:
        raise ParseError(f"Invalid ports '{text.strip()}': {error}") from None


_NO_PORTS = PortSet()


class BlockAllocator:
    """Hands out aligned blocks of `size` ports from `space`, lowest first.

    Raises NoPortsError if `size` is less than 1.
    """

    def __init__(self, space: PortSet, size: int) -> None:
        if size < 1:
            raise NoPortsError("Number of ephemeral ports per container is zero")
        self.space = space
        self.size = size
        self._free = space

    @property
    def capacity(self) -> int:
        """The number of blocks in the whole space."""
        return sum(len(self._begins(r)) for r in self.space.ranges)

    @property
    def available(self) -> int:
        """The number of blocks that can still be allocated."""
        return sum(len(self._begins(r)) for r in self._free.ranges)

    def blocks(self) -> Iterator[PortRange]:
        """All blocks of the space, free or not, in the order in which an empty allocator hands them out."""
        return self._blocks(self.space)

    def free_blocks(self) -> Iterator[PortRange]:
        """The blocks that can still be allocated, lowest first."""
        return self._blocks(self._free)

    def allocate(self, avoid: PortSet = _NO_PORTS) -> PortRange:
        """Take the lowest free block that has none of the ports `avoid`. Raises NoPortsError if there is none."""
        block = next(self._blocks(self._free - avoid), None)
        if block is None:
            raise NoPortsError("Failed to allocate ephemeral ports")
        self._free -= PortSet([block])
        return block

    def reserve(self, ports: PortRange) -> None:
        """Take exactly these ports, of whatever size: a recovered block keeps the size of its time.

        Raises ConflictError if they are not in the space, or not free.
        """
        wanted = PortSet([ports])
        if not wanted.issubset(self.space):
            raise ConflictError(f"The ephemeral ports {ports} are not managed by the agent")
        if not wanted.issubset(self._free):
            raise ConflictError(f"The ephemeral ports {ports} are in use")
        self._free -= wanted

    def release(self, ports: PortRange) -> None:
        """Give back ports that were allocated or reserved. Raises ConflictError if any of them is not in use."""
        given = PortSet([ports])
        if not given.issubset(self.space - self._free):
            raise ConflictError(f"The ephemeral ports {ports} are not in use")
        self._free |= given

    def _begins(self, ports: PortRange) -> range:
        """The first port of each aligned block that lies within these ports."""
        lowest = -(-ports.begin // self.size) * self.size
        return range(lowest, ports.end - self.size + 2, self.size)

    def _blocks(self, ports: PortSet) -> Iterator[PortRange]:
        return (PortRange(b, b + self.size - 1) for r in ports.ranges for b in self._begins(r))


def choose_ports(free: PortSet, count: int) -> PortSet:
    """Choose `count` of the free ports: the lowest run of them that is contiguous, else the lowest.

    Raises NoPortsError if there are not so many.
    """
    if count > len(free):
        raise NoPortsError(f"Not enough free ports: {count} asked for, {len(free)} left")
    if count == 0:
        return PortSet()
    run = next((r for r in free.ranges if len(r) >= count), None)
    if run is not None:
        return PortSet([PortRange(run.begin, run.begin + count - 1)])
    chosen: list[PortRange] = []
    for ports in free.ranges:
        taken = min(len(ports), count)
        chosen.append(PortRange(ports.begin, ports.begin + taken - 1))
        count -= taken
        if not count:
            break
    return PortSet(chosen)

"""What `portslice top` knows of the containers: their last overviews (portslice.overview), rates, and the last minute.

    overviews ──feed()──▶ rows by container id ──▶ columns ──▶ chosen, sorted

A container is known by its id: another one that got the same name is another row, without a rate until it was seen
twice. When no agent answers for a while, the counters go on; the rates after the gap are the averages over it.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from portslice.cli.counters import per_second

WINDOW_SECS = 60.0
SATURATED = 0.9  # of a limit, which charges every segment its headers; the NIC counts them once before
_REMEMBERED = ("rx_bytes", "tx_bytes")
Overview = dict[str, Any]
History = deque[tuple[float, float]]


@dataclass
class Row:
    """A container. What is not known is None."""

    overview: Overview
    rates: dict[str, float] = field(default_factory=dict)
    """Per second, by counter: rx_bytes, tx_bytes, rx_packets, tx_packets, cpu_secs, drops, refused, refused.REASON."""
    history: dict[str, History] = field(default_factory=lambda: {name: deque() for name in _REMEMBERED})
    """(timestamp, bytes per second) of rx_bytes and tx_bytes, of WINDOW_SECS."""

    @property
    def id(self) -> str:
        """The container's."""
        return str(self.overview["id"])

    @property
    def name(self) -> str:
        """The container's."""
        return str(self.overview["name"])

    def fullness(self, way: str) -> float | None:
        """Rate by limit, 1.0 at the limit.

        :param way: rx or tx.
        """
        rate, limit = self.rates.get(f"{way}_bytes"), self.overview.get(f"{way}_limit")
        return rate / limit if rate is not None and limit else None

    @property
    def saturated(self) -> bool:
        """It uses up a limit."""
        return any((self.fullness(way) or 0) >= SATURATED for way in ("rx", "tx"))

    def queued(self) -> float | None:
        """Bytes that wait in the queues of both directions."""
        return _sum(queue["bytes"] for queue in _queues(self.overview))

    def dropped(self) -> float | None:
        """Packets that the queues of both directions have dropped."""
        return _sum(queue["drops"] for queue in _queues(self.overview))

    def refused(self) -> float | None:
        """Refused packets, of all reasons."""
        return sum(self.overview["refused"].values()) if "refused" in self.overview else None

    def block(self) -> int | None:
        """How many ephemeral ports it has."""
        bounds = self.overview.get("ephemeral_ports")
        return bounds[1] - bounds[0] + 1 if bounds else None

    def memory_fullness(self) -> float | None:
        """Memory by its limit."""
        used, limit = self.overview.get("mem_bytes"), self.overview.get("mem_limit_bytes")
        return used / limit if used is not None and limit else None

    def to_json(self) -> dict[str, Any]:
        """The overview, with `rates` in it."""
        return {**self.overview, "rates": self.rates}


def _queues(overview: Overview) -> list[dict[str, int]]:
    return [overview[name] for name in ("rx_queue", "tx_queue") if name in overview]


def _sum(values: Iterable[float]) -> float | None:
    known = list(values)
    return sum(known) if known else None


def _counters(row: Row) -> dict[str, float]:
    names = ("rx_bytes", "tx_bytes", "rx_packets", "tx_packets", "cpu_secs")
    known: dict[str, float | None] = {name: row.overview.get(name) for name in names}
    known |= {"drops": row.dropped(), "refused": row.refused()}
    known |= {f"refused.{reason}": count for reason, count in row.overview.get("refused", {}).items()}
    return {name: value for name, value in known.items() if value is not None}


class Model:
    """All containers, as of the last answer of the agent."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.asked = False
        """There was an answer."""

    def feed(self, overviews: Iterable[Overview]) -> None:
        """Take in an answer of the agent."""
        self.asked = True
        self.rows = {row.id: _followed(self.rows.get(row.id), row) for row in map(Row, overviews)}

    def total(self, rate: str) -> float:
        """Of a rate, over all containers."""
        return sum(row.rates.get(rate, 0.0) for row in self.rows.values())

    def refused(self) -> int:
        """Refused packets of all containers."""
        return int(sum(row.refused() or 0 for row in self.rows.values()))


def _followed(before: Row | None, row: Row) -> Row:
    if before is None:
        return row
    now, then = row.overview["timestamp"], before.overview["timestamp"]
    row.history = before.history
    if now == then:  # the same reading once more
        row.rates = before.rates
        return row
    row.rates = per_second(_counters(before), _counters(row), now - then)
    for name, history in row.history.items():
        while history and not now - WINDOW_SECS < history[0][0] < now:  # too old, or of a clock that was set back
            history.popleft()
        if name in row.rates:
            history.append((now, row.rates[name]))
    return row


@dataclass(frozen=True)
class Column:
    """A figure of each row.

    :param value: to sort by; None is unknown, and comes last.
    :param unit: of the value: text, bytes, rate (bytes per second), count, packets (per second), percent (1.0 is
        100 %), ports, microseconds.
    """

    name: str
    title: str
    unit: str
    value: Callable[[Row], Any]
    meaning: str


def _rate(name: str) -> Callable[[Row], Any]:
    return lambda row: row.rates.get(name)


def _member(name: str) -> Callable[[Row], Any]:
    return lambda row: row.overview.get(name)


COLUMNS = (
    Column("name", "NAME", "text", lambda row: row.name, "the container"),
    Column("tx", "TX/s", "rate", _rate("tx_bytes"), "what it sends, bytes per second"),
    Column("tx%", "TX LIMIT%", "percent", lambda row: row.fullness("tx"), "how full its egress limit is"),
    Column("rx", "RX/s", "rate", _rate("rx_bytes"), "what it receives, bytes per second"),
    Column("rx%", "RX LIMIT%", "percent", lambda row: row.fullness("rx"), "how full its ingress limit is"),
    Column("cpu", "CPU%", "percent", _rate("cpu_secs"), "100% is one CPU"),
    Column("mem", "MEM", "bytes", _member("mem_bytes"), "memory"),
    Column("queue", "QUEUE", "bytes", Row.queued, "bytes that wait in its queues, both directions"),
    Column("refused/s", "REFUSE/s", "packets", _rate("refused"), "packets refused per second; see portslice drops"),
    Column("drops/s", "DROP/s", "packets", _rate("drops"), "packets that its queues drop per second"),
    Column("ports", "PORTS", "ports", _member("ephemeral_ports_in_use"), "ephemeral ports in use, of how many"),
    Column("rtt", "RTT", "microseconds", _member("rtt_microsecs_p50"), "median round-trip time of its TCP connections"),
    Column("mem%", "MEM%", "percent", Row.memory_fullness, "memory by its limit"),
    Column("refused", "REFUSED", "count", Row.refused, "packets refused since its start"),
    Column("drops", "DROPS", "count", Row.dropped, "packets that its queues dropped since its start"),
    Column("tx-limit", "TX LIMIT", "rate", _member("tx_limit"), "egress limit, bytes per second"),
    Column("rx-limit", "RX LIMIT", "rate", _member("rx_limit"), "ingress limit, bytes per second"),
)
BY_NAME = {column.name: column for column in COLUMNS}


def chosen(rows: Iterable[Row], column: Column, *, reverse: bool = False, pattern: str = "") -> list[Row]:
    """The rows whose names contain `pattern`, whatever the case, sorted: names upwards, figures downwards, or the other
    way if `reverse`. Rows of one value are in the order of their names; those without a value come last.
    """
    pattern = pattern.casefold()
    found = sorted(
        (row for row in rows if pattern in row.name.casefold()), key=lambda row: (row.name, row.id)
    )
    known = [row for row in found if column.value(row) is not None]
    unknown = [row for row in found if column.value(row) is None]
    downwards = (column.unit != "text") is not reverse
    if column.unit == "text":
        known.sort(key=lambda row: (column.value(row), row.id), reverse=downwards)
    else:
        known.sort(key=lambda row: -column.value(row) if downwards else column.value(row))
    return known + unknown


def cells(history: Sequence[tuple[float, float]], count: int, now: float) -> list[float | None]:
    """The last WINDOW_SECS as `count` values, oldest first; None where nothing is known.

    Cells begin at multiples of their length, so that a drawn history moves as a whole, and a cell does not change once
    it has passed. A reading holds for all the time since the one before.
    """
    length = WINDOW_SECS / count
    last = int(now // length)
    sums: dict[int, list[float]] = {}
    previous: int | None = None
    for timestamp, rate in history:
        at = int(timestamp // length)
        for cell in range(at if previous is None else min(previous + 1, at), at + 1):
            sums.setdefault(cell, []).append(rate)
        previous = at
    means = {cell: sum(rates) / len(rates) for cell, rates in sums.items()}
    return [means.get(cell) for cell in range(last - count + 1, last + 1)]

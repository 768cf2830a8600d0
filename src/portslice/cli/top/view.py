"""The pictures of `portslice top`: the table, one container, the keys. Pure: from what is known to lines of a size.

The table has as many columns as fit, in the order of how much they tell; the one that it is sorted by is always there.
What room is left goes to the names, then to the plots. Only the rows that are seen are made.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from portslice.cli import glyphs
from portslice.cli.glyphs import Line, Look, Size, Style
from portslice.cli.table import age, ports
from portslice.cli.top.controls import DETAILS, HELP, Controls
from portslice.cli.top.model import BY_NAME, COLUMNS, SATURATED, WINDOW_SECS, Column, Model, Row, cells, chosen

_HIGH = 0.75  # of a limit
_NAME_MOST, _PLOT_MOST = 40, 30
_FOOTER = (
    ("<>", "sort"),
    ("r", "reverse"),
    ("/", "filter"),
    ("Enter", "details"),
    ("p", "pause"),
    ("+-", "pace"),
    ("h", "help"),
    ("q", "quit"),
)
_KEYS = (
    ("< >, Left, Right", "sort by the column before, behind"),
    ("N T R P M", "sort by name, sent, received, CPU, memory"),
    ("r", "the other way round"),
    ("Up, Down, PgUp, PgDn, Home, End", "move; the cursor stays on its container, Home lets it go"),
    ("/", "filter by name; Esc clears"),
    ("Enter", "one container in detail; Esc goes back"),
    ("p, Space", "pause, go on"),
    ("+ -", "longer, shorter interval"),
    ("Ctrl-L", "draw anew"),
    ("h, ?", "this page"),
    ("q", "quit"),
)


@dataclass(frozen=True)
class _Shown:
    """A column on the screen.

    :param source: of the figures; or of the rate whose last minute is drawn.
    :param bar: how many cells before the figure show it as a bar.
    """

    source: Column
    width: int
    plot: str = ""
    bar: int = 0


_FIGURES = {
    "name": _Shown(BY_NAME["name"], 12),
    "tx": _Shown(BY_NAME["tx"], 6),
    "tx plot": _Shown(BY_NAME["tx"], 10, plot="tx_bytes"),
    "tx%": _Shown(BY_NAME["tx%"], 11, bar=5),
    "tx-limit": _Shown(BY_NAME["tx-limit"], 8),
    "rx": _Shown(BY_NAME["rx"], 6),
    "rx plot": _Shown(BY_NAME["rx"], 10, plot="rx_bytes"),
    "rx%": _Shown(BY_NAME["rx%"], 11, bar=5),
    "rx-limit": _Shown(BY_NAME["rx-limit"], 8),
    "queue": _Shown(BY_NAME["queue"], 6),
    "drops/s": _Shown(BY_NAME["drops/s"], 6),
    "drops": _Shown(BY_NAME["drops"], 6),
    "refused/s": _Shown(BY_NAME["refused/s"], 8),
    "refused": _Shown(BY_NAME["refused"], 7),
    "ports": _Shown(BY_NAME["ports"], 10),
    "rtt": _Shown(BY_NAME["rtt"], 6),
    "cpu": _Shown(BY_NAME["cpu"], 5),
    "mem": _Shown(BY_NAME["mem"], 5),
    "mem%": _Shown(BY_NAME["mem%"], 5),
}
_FIRST_TO_STAY = (
    *("name", "tx", "rx", "tx%", "cpu", "tx plot", "queue", "refused/s", "mem", "rx plot", "ports", "drops/s", "rtt"),
    *("rx%", "mem%", "tx-limit", "rx-limit", "refused", "drops"),
)


@dataclass(frozen=True)
class Status:
    """What is known beside the containers.

    :param agent: its version.
    :param problem: why there is no newer answer; empty if all is well.
    :param now: Unix time.
    """

    agent: str
    problem: str
    now: float


def text(column: Column, row: Row) -> str:
    """A figure of a row in a few characters."""
    value = column.value(row)
    if column.unit == "ports":
        block = row.block()
        return glyphs.UNKNOWN if block is None else f"{glyphs.UNKNOWN if value is None else round(value)}/{block}"
    return _TEXTS[column.unit](value)


_TEXTS: dict[str, Callable[[Any], str]] = {
    "text": str,
    "bytes": glyphs.bytes_,
    "rate": glyphs.bytes_,
    "count": glyphs.count,
    "packets": glyphs.per_second,
    "percent": glyphs.percent,
    "microseconds": glyphs.microseconds,
}


def rows_height(size: Size) -> int:
    """How many rows of the table, or lines of a page, are seen."""
    return max(size.lines - _above(size) - _below(size), 1)


def frame(model: Model, controls: Controls, status: Status, size: Size, style: Style) -> list[Line]:
    """The whole screen."""
    height = rows_height(size)
    if controls.page == HELP:
        body = _page(_help(), controls, height)
    elif controls.page == DETAILS:
        body = _page(_details(model, controls, status, size, style), controls, height)
    else:
        body = _table(model, controls, status, size, style, height)
    lines = _summary(model, controls, status, style)[: _above(size) - 1] + body
    lines += [[]] * (size.lines - len(lines) - _below(size))
    return [*lines, _footer(controls, style)] if _below(size) else lines


def _above(size: Size) -> int:
    """Lines above the rows: the summary, and the titles."""
    return 3 if size.lines >= 8 else 2


def _below(size: Size) -> int:
    return 1 if size.lines >= 6 else 0


def _summary(model: Model, controls: Controls, status: Status, style: Style) -> list[Line]:
    number = len(model.rows)
    saturated = sum(row.saturated for row in model.rows.values())
    state: list[tuple[str, Look]] = [(f"every {controls.interval:g} s", Look.PLAIN)]
    if status.problem:
        state = [(status.problem, Look.RED | Look.BOLD)]
    elif controls.paused:
        state = [("paused", Look.YELLOW | Look.BOLD)]
    clock = time.strftime("%H:%M:%S", time.localtime(status.now))
    first: Line = [
        ("portslice top", Look.BOLD),
        ("  ", Look.PLAIN),
        *state,
        (f"  {number} container{'' if number == 1 else 's'}", Look.PLAIN),
        (f"  {saturated} at a limit", Look.RED | Look.BOLD if saturated else Look.PLAIN),
        (f"  {clock}  agent {status.agent}", Look.DIM),
    ]
    figures = (
        ("tx", f"{glyphs.bytes_(model.total('tx_bytes'))}B/s"),
        ("rx", f"{glyphs.bytes_(model.total('rx_bytes'))}B/s"),
        ("refused", f"{glyphs.per_second(model.total('refused'))}/s, {glyphs.count(model.refused())} in all"),
        ("sorted by", f"{controls.sort} {_arrow(controls, style)}"),
    )
    second = [part for name, value in figures for part in ((f"{name} ", Look.DIM), (f"{value}  ", Look.PLAIN))]
    if controls.filter and not controls.typing:
        second += [("filter ", Look.DIM), (controls.filter, Look.BOLD)]
    return [first, second]


def _arrow(controls: Controls, style: Style) -> str:
    downwards = (BY_NAME[controls.sort].unit != "text") is not controls.reverse
    return ("▼" if downwards else "▲") if style.unicode else ("v" if downwards else "^")


def _footer(controls: Controls, style: Style) -> Line:
    if controls.typing:
        cursor = "▏" if style.unicode else "_"
        hint = "  Enter keeps it, Esc clears it"
        return [("filter: ", Look.BOLD), (controls.filter + cursor, Look.PLAIN), (hint, Look.DIM)]
    if controls.page != "table":
        return [("Esc", Look.REVERSE), (" back  ", Look.PLAIN), ("Up Down", Look.REVERSE), (" scroll", Look.PLAIN)]
    return [part for key, does in _FOOTER for part in ((key, Look.REVERSE), (f" {does}  ", Look.PLAIN))]


def _table(
    model: Model, controls: Controls, status: Status, size: Size, style: Style, height: int
) -> list[Line]:
    rows = chosen(model.rows.values(), BY_NAME[controls.sort], reverse=controls.reverse, pattern=controls.filter)
    columns = _columns(size.columns, controls.sort, max((glyphs.width(row.name) for row in rows), default=0))
    lines: list[Line] = [_titles(columns, controls, size, style)]
    offset, cursor = controls.scroll(rows, height), controls.index(rows)
    for at, row in enumerate(rows[offset : offset + height], offset):
        line = _row(row, columns, status.now, style)
        if at == cursor:
            line = [(part, look | Look.REVERSE) for part, look in line]
        lines.append(line)
    if not rows:
        lines.append([(_nothing(model), Look.DIM)])
    return lines


def _nothing(model: Model) -> str:
    if not model.asked:
        return "The agent is asked."
    return "No container's name has this in it." if model.rows else "No container runs."


def _columns(columns: int, sort: str, longest: int) -> list[_Shown]:
    """Those that fit, in the order of the screen, with the room that is left given away."""
    kept: set[str] = set()
    left = columns + 1
    order = sorted(_FIRST_TO_STAY, key=lambda name: ("name", sort).index(name) if name in ("name", sort) else 2)
    for name in order:
        if _FIGURES[name].width + 1 <= left:
            kept.add(name)
            left -= _FIGURES[name].width + 1
    widths = {name: _FIGURES[name].width for name in _FIGURES if name in kept}
    if "name" in kept:
        more = min(max(min(longest, _NAME_MOST) - widths["name"], 0), left)
        widths["name"] += more
        left -= more
    plots = [name for name in widths if _FIGURES[name].plot]
    for name in plots:
        widths[name] += min(left // len(plots), _PLOT_MOST - widths[name])
    return [
        _Shown(shown.source, widths[name], shown.plot, shown.bar) for name, shown in _FIGURES.items() if name in kept
    ]


def _titles(columns: Sequence[_Shown], controls: Controls, size: Size, style: Style) -> Line:
    line: list[tuple[str, Look]] = []
    for shown in columns:
        sorted_by = shown.source.name == controls.sort and not shown.plot
        title = f"{shown.source.name[:2].upper()} 1 MIN" if shown.plot else shown.source.title
        if sorted_by and glyphs.width(title) + 1 < shown.width:
            arrow = _arrow(controls, style)
            title = f"{title} {arrow}" if shown.source.unit == "text" else f"{arrow} {title}"
        right = shown.source.unit != "text" and not shown.plot
        look = Look.REVERSE | (Look.BOLD if sorted_by else Look.PLAIN)
        line += [(glyphs.fitted(title, shown.width, style, right=right), look), (" ", Look.REVERSE)]
    rest = size.columns - sum(glyphs.width(part) for part, _ in line)
    return [*line, (" " * max(rest, 0), Look.REVERSE)]


def _row(row: Row, columns: Sequence[_Shown], now: float, style: Style) -> Line:
    line: list[tuple[str, Look]] = []
    for shown in columns:
        value = shown.source.value(row)
        look = _look(shown, row, value)
        if shown.plot:
            drawn = glyphs.plot(cells(row.history[shown.plot], shown.width, _newest(row, now)), style)[0]
        else:
            drawn = glyphs.plain(text(shown.source, row), style)
            if shown.bar:
                drawn = f"{glyphs.bar(value, shown.bar, style)} {drawn:>{shown.width - shown.bar - 1}}"
            drawn = glyphs.fitted(drawn, shown.width, style, right=shown.source.unit != "text")
        line += [(drawn, look), (" ", Look.PLAIN)]
    return line


def _newest(row: Row, now: float) -> float:
    """The agent's clock is what the readings go by."""
    return float(row.overview.get("timestamp", now))


def _look(shown: _Shown, row: Row, value: Any) -> Look:
    name = shown.source.name
    if shown.plot:
        return Look.CYAN if name == "tx" else Look.GREEN
    if name == "name":
        return Look.RED | Look.BOLD if row.saturated else Look.BOLD
    if value is None or value == 0:
        return Look.DIM
    if name in ("tx%", "rx%", "mem%"):
        return fullness_look(value)
    if name in ("refused/s", "drops/s"):
        return Look.YELLOW
    if name == "ports":
        return fullness_look(value / (row.block() or value))
    return Look.PLAIN


def fullness_look(value: float | None) -> Look:
    """Red when saturated."""
    if value is None or value < _HIGH:
        return Look.PLAIN
    return Look.RED | Look.BOLD if value >= SATURATED else Look.YELLOW


def _page(lines: list[Line], controls: Controls, height: int) -> list[Line]:
    controls.line = min(controls.line, max(len(lines) - height, 0))
    return lines[controls.line : controls.line + height]


def _help() -> list[Line]:
    keys = max(len(key) for key, _ in _KEYS)
    names = max(len(column.name) for column in COLUMNS)
    return [
        [("Keys", Look.BOLD)],
        *([(f"  {key.ljust(keys)}  ", Look.CYAN), (does, Look.PLAIN)] for key, does in _KEYS),
        [],
        [("Columns", Look.BOLD), ("; a narrow terminal shows those that tell most", Look.DIM)],
        *([(f"  {each.name.ljust(names)}  ", Look.CYAN), (each.meaning, Look.PLAIN)] for each in COLUMNS),
        [],
        [("Bytes are in powers of 1024, as the agent's flags; counts in powers of 1000.", Look.PLAIN)],
        [(f"A limit is red from {SATURATED:.0%} on. Plots show the last minute, each to its own scale.", Look.PLAIN)],
    ]


def _details(model: Model, controls: Controls, status: Status, size: Size, style: Style) -> list[Line]:
    row = model.rows.get(controls.selected or "")
    if row is None:
        return [[("The container has ended.", Look.BOLD)]]
    seen = row.overview
    lines: list[Line] = [
        [(glyphs.plain(row.name, style), Look.BOLD), (f"  {row.id}", Look.DIM)],
        _fact("command", glyphs.plain(str(seen.get("command", "")), style)),
        _fact("age", age(max(seen["timestamp"] - seen["created"], 0)) if "created" in seen else glyphs.UNKNOWN),
    ]
    if block := seen.get("ephemeral_ports"):
        lines.append(_fact("ports", ports(seen.get("ports", []))))
        lines.append(_fact("ephemeral", f"{ports([block])}, in use {text(BY_NAME['ports'], row)}"))
    refused = sorted(seen.get("refused", {}).items(), key=lambda each: (-each[1], each[0]))
    told = [f"{reason}: {count} in all, {_per_second(row, reason)}/s" for reason, count in refused if count]
    lines += [_fact("refused", each) for each in told or ["no packet"]]
    for way, verb, colour in (("tx", "sends", Look.CYAN), ("rx", "receives", Look.GREEN)):
        lines += [[], *_way(row, way, verb, colour, size, status, style)]
    lines += [
        [],
        _fact("cpu", f"{glyphs.percent(row.rates.get('cpu_secs'))} of one CPU, limit {seen.get('cpus_limit', '-')}"),
        _fact(
            "memory",
            f"{glyphs.bytes_(seen.get('mem_bytes'))} of {glyphs.bytes_(seen.get('mem_limit_bytes'))},"
            f" {glyphs.percent(row.memory_fullness())}",
            fullness_look(row.memory_fullness()),
        ),
        _fact(
            "rtt",
            ", ".join(
                f"p{percent} {glyphs.microseconds(seen.get(f'rtt_microsecs_p{percent}'))}" for percent in (50, 90, 99)
            ),
        ),
    ]
    return lines


def _per_second(row: Row, reason: str) -> str:
    return glyphs.per_second(row.rates.get(f"refused.{reason}"))


def _way(
    row: Row, way: str, verb: str, colour: Look, size: Size, status: Status, style: Style
) -> list[Line]:
    rate, packets = row.rates.get(f"{way}_bytes"), row.rates.get(f"{way}_packets")
    full = row.fullness(way)
    told = f"{glyphs.bytes_(rate)}B/s, {glyphs.per_second(packets)} packets/s"
    limit = "no limit"
    if row.overview.get(f"{way}_limit"):
        limit = f"limit {glyphs.bytes_(row.overview[f'{way}_limit'])}B/s {glyphs.bar(full, 10, style)}"
        limit += f" {glyphs.percent(full)}"
    lines: list[Line] = [[*_fact(verb, f"{told}, "), (limit, fullness_look(full))]]
    if queue := row.overview.get(f"{way}_queue"):
        waiting = f"{glyphs.bytes_(queue['bytes'])} bytes in {queue['packets']} packets wait"
        lines.append(_fact("queue", f"{waiting}, {queue['drops']} packets were dropped"))
    count = min(max(size.columns - 12, 1), int(WINDOW_SECS))
    history = cells(row.history[f"{way}_bytes"], count, _newest(row, status.now))
    height = 2 if size.lines < 30 else 4
    highest = max((value for value in history if value is not None), default=None)
    labels = [f"{glyphs.bytes_(highest)}B/s", *[""] * (height - 2), "0"]
    for label, drawn in zip(labels, glyphs.plot(history, style, height), strict=True):
        lines.append([(f"{label:>10}  ", Look.DIM), (drawn, colour)])
    return lines


def _fact(name: str, value: str, look: Look = Look.PLAIN) -> list[tuple[str, Look]]:
    return [(f"{name:>10}  ", Look.DIM), (value, look)]

"""`portslice stats`."""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from typing import Any

from portslice.cli import screen, values
from portslice.cli.client import AgentGoneError, Client
from portslice.cli.counters import counters, flattened, per_second
from portslice.cli.drops import last
from portslice.cli.glyphs import Line, Look, Size, Style, clip_left, fitted, plain
from portslice.cli.sampler import Sampler
from portslice.cli.screen import Screen
from portslice.cli.table import table
from portslice.errors import PortsliceError

_EPILOG = """\
The fields are Mesos' ResourceStatistics, as on /monitor/statistics, and the packets that were refused, by reason.

With --watch the fields are shown again and again, with the rates of those that count; Up, Down, PgUp, PgDn, Home and
End scroll, q ends. With --watch --json each reading is an object on a line of its own, with a member `rates`: the
increase per second, by dotted names of the fields; it is empty in the first one. A stopped agent is waited for; when
the container has ended, the command ends with status 1.

examples:
  portslice stats web
  portslice stats web --json
  portslice stats web --watch
  portslice stats web --watch --interval 10 --json"""
_INTERVAL = 2.0
_RETRY_SECS = 0.5
Answer = dict[str, Any]


def configure(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.epilog = _EPILOG
    parser.add_argument("name", metavar="NAME", help="name or id of a container")
    parser.add_argument("-w", "--watch", action="store_true", help="show them again and again, with rates")
    parser.add_argument(
        "-d", "--interval", type=values.interval, metavar="SECS", help="between readings (default: 2)"
    )


def main(options: argparse.Namespace) -> int:
    """Show them."""
    client = Client(options.socket)
    if not options.watch:
        if options.interval is not None:
            options.parser.error("--interval needs --watch")
        return _once(client, options)
    interval = options.interval or _INTERVAL
    if options.json:
        return _print_lines(client, options.name, interval)
    if not screen.is_possible():
        raise PortsliceError("A live view needs a terminal; for lines of JSON: portslice stats NAME --watch --json")
    client.statistics(options.name)  # what cannot be watched fails before the screen is taken
    with Screen() as shown:
        return _live(shown, client, options.name, interval)


def _once(client: Client, options: argparse.Namespace) -> int:
    answer = client.statistics(options.name)
    if options.json:
        print(json.dumps(answer, indent=2))
        return 0
    print(table(("FIELD", "VALUE"), flattened(answer["statistics"]).items()))
    if rows := _refused(answer):
        print()
        print(table(("REFUSED", "PACKETS", "PROTOCOL", "LAST FROM", "TO", "AGO"), rows))
    return 0


def _refused(answer: Answer) -> list[tuple[Any, ...]]:
    drops = answer["drops"] or {"samples": ()}
    return [(each["reason"], drops["counts"].get(each["reason"], 0), *last(each)) for each in drops["samples"]]


class Watched:
    """The readings of one container; another one that got its name begins anew."""

    def __init__(self) -> None:
        self.answer: Answer | None = None
        self.rates: dict[str, float] = {}

    def feed(self, answer: Answer) -> None:
        """One more reading."""
        before, self.answer, self.rates = self.answer, answer, {}
        if before is not None and before["container_id"] == answer["container_id"]:
            then, now = before["statistics"], answer["statistics"]
            secs = now["timestamp"] - then["timestamp"]
            self.rates = per_second(counters(flattened(then)), counters(flattened(now)), secs)

    def rows(self, style: Style) -> list[tuple[str, str, str]]:
        """Field, value and rate."""
        if self.answer is None:
            return []
        fields = flattened(self.answer["statistics"])
        return [(name, plain(str(value), style), _rate(self.rates.get(name))) for name, value in fields.items()]


def _rate(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.1f}" if value >= 10 else f"{value:.3f}".rstrip("0").rstrip(".")


def _print_lines(client: Client, name: str, interval: float) -> int:
    watched = Watched()
    for answer in _answers(client, name, interval):
        watched.feed(answer)
        print(json.dumps({**answer, "rates": watched.rates}, separators=(",", ":")), flush=True)
    return 0


def _answers(client: Client, name: str, interval: float) -> Iterator[Answer]:
    """:raises PortsliceError: the container has ended; or no agent was there from the beginning."""
    answered = False
    while True:
        begun, wait = time.monotonic(), interval
        try:
            answer = client.statistics(name)
        except AgentGoneError:
            if not answered:
                raise
            wait = min(interval, _RETRY_SECS)
        else:
            answered = True
            yield answer
        time.sleep(max(begun + wait - time.monotonic(), 0))


def _live(shown: Screen, client: Client, name: str, interval: float) -> int:
    watched, problem, offset = Watched(), "", 0
    sampler = Sampler(lambda: client.statistics(name), interval, shown.wake)
    while True:
        for answer in sampler.take():
            if isinstance(answer, AgentGoneError):
                problem = "agent gone, retrying"
            elif isinstance(answer, PortsliceError):
                raise answer
            else:
                problem = ""
                watched.feed(answer)
        rows, height = watched.rows(shown.style), max(shown.size.lines - 2, 1)
        lowest = max(len(rows) - height, 0)
        offset = min(offset, lowest)
        where = f"{offset + 1}-{min(offset + height, len(rows))} of {len(rows)} fields; arrows scroll, q quits"
        state = _state(interval, problem or sampler.waiting())
        head = [(f"{name}  ", Look.BOLD), state, (f"  {where}" if rows else "", Look.DIM)]
        shown.draw([head, *_table(rows[offset : offset + height], shown.size, shown.style)])
        for key in shown.keys(1.0):
            if key == "q":
                return 0
            steps = {"up": -1, "down": 1, "pageup": -height, "pagedown": height, "home": -offset, "end": len(rows)}
            offset = min(max(offset + steps.get(key, 0), 0), lowest)


def _state(interval: float, problem: str) -> tuple[str, Look]:
    return (problem, Look.RED | Look.BOLD) if problem else (f"every {interval:g} s", Look.PLAIN)


def _table(rows: Sequence[tuple[str, str, str]], size: Size, style: Style) -> list[Line]:
    """As wide as the terminal; of a name that is too long the end tells more."""
    values = min(20, size.columns // 4)
    names = max(size.columns - 2 * (values + 1), 1)
    lines: list[Line] = []
    for number, (name, value, rate) in enumerate([("FIELD", "VALUE", "PER SECOND"), *rows]):
        cells = (clip_left(name, names, style), *(fitted(each, values, style, right=True) for each in (value, rate)))
        lines.append([(" ".join(cells), Look.PLAIN if number else Look.REVERSE)])
    return lines

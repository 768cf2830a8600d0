"""`portslice top`.

    agent ──Sampler──▶ Model ──┐
                               ├──frame()──▶ Screen
    keys ─────────▶ Controls ──┘

`model` is what is known of the containers, `controls` what the keys have chosen, `view` the picture of both; none of
them does I/O. The loop here waits for what comes first: an answer, a key, a new size, the next second.
"""

import argparse
import json
import time
from collections.abc import Sequence

from portslice.cli import screen, values
from portslice.cli.client import AgentGoneError, Client
from portslice.cli.sampler import Sampler
from portslice.cli.screen import Screen
from portslice.cli.table import table
from portslice.cli.top.controls import Controls
from portslice.cli.top.model import BY_NAME, COLUMNS, Model, Overview, Row, chosen
from portslice.cli.top.view import Status, frame, rows_height
from portslice.cli.top.view import text as text_of
from portslice.errors import PortsliceError

_REDRAW_SECS = 1.0  # for the clock
_COLUMNS = "\n".join(f"  {column.name:<10} {column.meaning}" for column in COLUMNS)
_EPILOG = f"""\
Keys are shown below the table, and explained by h. --once prints one table and ends: of rates over one interval.

examples:
  portslice top
  portslice top --sort cpu --interval 5
  portslice top --once
  portslice top --once --sort refused/s --json
  LC_ALL=C portslice top

columns:
{_COLUMNS}

Bytes are in powers of 1024 (K, M, G), as the agent's flags; - stands for what is not known. Of a narrow terminal the
columns that tell most are shown. Colours are left out if NO_COLOR is set, and a locale without UTF-8 gets plain ASCII.

With --json, an object: timestamp (Unix seconds), interval_secs, total and containers. Of each container the members of
the agent's /overview (bytes, packets, seconds, microseconds; counters since its start), and `rates`: the increase of
these counters per second. Of a container that was not there at both ends of the interval `rates` is empty.

exit status: 0, 1 if something failed, 2 if the command line is wrong; as after a signal if one ended it."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.epilog = _EPILOG
    parser.add_argument(
        "-d", "--interval", type=values.interval, default=2.0, metavar="SECS", help="between readings (default: 2)"
    )
    parser.add_argument(
        "-s", "--sort", type=_column, default="tx", metavar="COLUMN",
        help="sort by it: names upwards, figures downwards (default: tx)",
    )
    parser.add_argument("-r", "--reverse", action="store_true", help="sort the other way round")
    parser.add_argument("--once", action="store_true", help="print one table, and end")


def _column(text: str) -> str:
    if text not in BY_NAME:
        raise argparse.ArgumentTypeError(f"there is no column '{text}': it is one of {', '.join(BY_NAME)}")
    return text


def main(options: argparse.Namespace) -> int:
    """Show them."""
    client = Client(options.socket)
    if options.once:
        return _once(client, options)
    if options.json:
        options.parser.error("--json needs --once")
    if not screen.is_possible():
        raise PortsliceError("A live view needs a terminal; for a table of one interval: portslice top --once")
    version = client.version()  # without an agent there is nothing to show: fail before the screen is taken
    with Screen() as shown:
        _live(shown, client, version, Controls(sort=options.sort, reverse=options.reverse, interval=options.interval))
    return 0


def _once(client: Client, options: argparse.Namespace) -> int:
    model = Model()
    model.feed(client.overview())
    time.sleep(options.interval)
    model.feed(client.overview())
    rows = chosen(model.rows.values(), BY_NAME[options.sort], reverse=options.reverse)
    if options.json:
        print(json.dumps(_json(model, rows, options.interval), indent=2))
    else:
        cells = ([text_of(column, row) for column in COLUMNS] for row in rows)
        print(table([column.title for column in COLUMNS], cells))
    return 0


def _json(model: Model, rows: Sequence[Row], interval: float) -> dict[str, object]:
    total = {name: model.total(name) for name in ("rx_bytes", "tx_bytes", "refused", "drops")}
    return {
        "timestamp": time.time(),
        "interval_secs": interval,
        "total": {"rates": total, "refused": model.refused()},
        "containers": [row.to_json() for row in rows],
    }


def _live(shown: Screen, client: Client, version: str, controls: Controls) -> None:
    model, problem = Model(), ""

    def ask() -> tuple[str, list[Overview]]:
        return (client.version() if problem else version), client.overview()

    sampler = Sampler(ask, controls.interval, shown.wake)
    rows: list[Row] = []
    while not controls.quit:
        for answer in sampler.take():
            if isinstance(answer, AgentGoneError):
                problem = "agent gone, retrying"
            elif isinstance(answer, PortsliceError):
                problem = str(answer)
            else:
                problem = ""
                version, overviews = answer
                model.feed(overviews)
        status = Status(version, problem or sampler.waiting(), time.time())
        shown.draw(frame(model, controls, status, shown.size, shown.style))
        for key in shown.keys(_REDRAW_SECS):
            rows = chosen(
                model.rows.values(), BY_NAME[controls.sort], reverse=controls.reverse, pattern=controls.filter
            )
            controls.press(key, rows, rows_height(shown.size))
        sampler.set(controls.interval, paused=controls.paused)

"""`portslice stats`."""

import argparse
import json
from collections.abc import Iterator
from typing import Any

from portslice.cli.client import Client
from portslice.cli.table import table

_EPILOG = """\
The fields are Mesos' ResourceStatistics, as on /monitor/statistics, and the packets that were refused, by reason.

examples:
  portslice stats web
  portslice stats web --json"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.epilog = _EPILOG
    parser.add_argument("name", metavar="NAME", help="name or id of a container")


def main(options: argparse.Namespace) -> int:
    """Show them."""
    answer = Client(options.socket).statistics(options.name)
    if options.json:
        print(json.dumps(answer, indent=2))
        return 0
    print(table(("FIELD", "VALUE"), _rows(answer["statistics"])))
    drops = answer["drops"]
    if drops and drops["samples"]:
        print()
        rows = (
            (
                sample["reason"],
                drops["counts"].get(sample["reason"], 0),
                f"{sample['source']}:{sample['source_port']}",
                f"{sample['destination']}:{sample['destination_port']}",
                f"{sample['age_secs']:.1f}s",
            )
            for sample in drops["samples"]
        )
        print(table(("REFUSED", "PACKETS", "LAST FROM", "TO", "AGO"), rows))
    return 0


def _rows(statistics: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in sorted(statistics.items()):
        if isinstance(value, dict):
            yield from _rows(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            for element in value:
                yield from _rows({k: v for k, v in element.items() if k != "id"}, f"{prefix}{name}.{element['id']}.")
        else:
            yield f"{prefix}{name}", value

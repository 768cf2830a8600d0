"""`portslice ps`."""

import argparse
import json
import time
from typing import Any

from portslice.cli.client import Client
from portslice.cli.table import age, ports, table

_EPILOG = """\
examples:
  portslice ps
  portslice ps --all
  portslice ps --json"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.epilog = _EPILOG
    parser.add_argument("-a", "--all", action="store_true", help="also those that have ended")


def main(options: argparse.Namespace) -> int:
    """Show them."""
    containers = Client(options.socket).containers()
    if not options.all:
        containers = [each for each in containers if each["state"] != "exited"]
    if options.json:
        print(json.dumps(containers, indent=2))
        return 0
    rows = [
        (
            each["name"],
            each["id"][:8],
            each["pid"] or "-",
            ports(each["ports"]),
            ports([each["ephemeral_ports"]]) if each["ephemeral_ports"] else "-",
            _state(each),
            age(time.time() - each["created"]),
            " ".join(each["command"])[:40],
        )
        for each in containers
    ]
    print(table(("NAME", "ID", "PID", "PORTS", "EPHEMERAL", "STATE", "AGE", "COMMAND"), rows))
    return 0


def _state(container: dict[str, Any]) -> str:
    if container["state"] != "exited":
        return str(container["state"])
    status, message = container["exit_status"], container["message"].partition("\n")[0]
    return f"exited ({'?' if status is None else status}{': ' if message else ''}{message})"

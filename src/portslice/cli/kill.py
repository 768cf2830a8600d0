"""`portslice kill`."""

import argparse
import json
import signal
import sys

from portslice.cli.client import Client
from portslice.errors import PortsliceError

_EPILOG = """\
SIGTERM is followed by SIGKILL after the agent's --executor_shutdown_grace_period. The command returns when the
container has ended; with --signal it sends that signal and returns at once.

examples:
  portslice kill web
  portslice kill --signal SIGHUP web"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.epilog = _EPILOG
    parser.add_argument("names", nargs="+", metavar="NAME", help="name or id of a container")
    parser.add_argument("-s", "--signal", type=_signal, help="send only this signal, e.g. SIGHUP or KILL")


def main(options: argparse.Namespace) -> int:
    """End them."""
    client = Client(options.socket)
    killed, status = [], 0
    for name in options.names:
        try:
            killed.append(client.kill(name, options.signal or "SIGTERM"))
        except PortsliceError as error:
            print(f"portslice: {error}", file=sys.stderr)
            status = 1
    if options.signal is None:
        killed = [client.wait(each["id"]) for each in killed]
    if options.json:
        print(json.dumps(killed, indent=2))
    return status


def _signal(text: str) -> str:
    """SIGHUP, HUP or 1."""
    name = text.upper()
    try:
        if name.isdecimal():
            return signal.Signals(int(name)).name
        return signal.Signals[name if name.startswith("SIG") else f"SIG{name}"].name
    except (ValueError, KeyError):
        raise argparse.ArgumentTypeError(f"unknown signal '{text}'") from None

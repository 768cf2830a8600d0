"""`portslice kill`."""

import argparse
import json

from portslice.cli.client import Client

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
    killed = [client.kill(name, options.signal or "SIGTERM") for name in options.names]
    if options.signal is None:
        killed = [client.wait(each["id"]) for each in killed]
    if options.json:
        print(json.dumps(killed, indent=2))
    return 0


def _signal(text: str) -> str:
    name = text.upper()
    return name if name.startswith("SIG") else f"SIG{name}"

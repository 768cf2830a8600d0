"""`portslice COMMAND`: the parser, and the way from a command's name to its module.

Modules are imported when their command is called: `portslice ps` must not wait for what only the agent needs.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from portslice import __version__
from portslice.errors import PortsliceError

DEFAULT_SOCKET = "/run/portslice/agent.sock"
_COMMANDS = {
    "agent": "run the agent (also installed as mesos-agent and mesos-slave)",
    "run": "run a command in a container",
    "ps": "list containers",
    "stats": "show a container's statistics",
    "kill": "end a container",
    "doctor": "check what the host needs, and say how to mend it",
    "plan": "show how many containers fit and which block each gets",
    "demo": "show the main job on real traffic, on a host built from namespaces",
}
_EPILOG = """\
examples:
  portslice agent --isolation=network/port_mapping --resources='ports:[31000-32000];ephemeral_ports:[32768-57344]'
  portslice run --name web --ports 2 -- python3 -m http.server 31000
  portslice ps
  portslice stats web --json

`portslice COMMAND --help` says more about a command."""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["agent"]:  # it has Mesos' flags, not argparse's
        from portslice.cli import agent

        return agent.run(arguments[1:])
    options = _parser(arguments).parse_args(arguments)
    try:
        return int(options.command(options))
    except PortsliceError as error:
        print(f"portslice: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # as a shell reports SIGPIPE
    except KeyboardInterrupt:
        return 130


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="portslice",
        description="Many containers behind one IP address, each with its own slice of the ports.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"portslice {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--socket",
        type=Path,
        default=Path(os.environ.get("PORTSLICE_SOCKET", DEFAULT_SOCKET)),
        help=f"the agent's socket (default: $PORTSLICE_SOCKET, else {DEFAULT_SOCKET})",
    )
    common.add_argument("--json", action="store_true", help="machine-readable output")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    wanted = next((word for word in arguments if word in _COMMANDS), None)
    for name, summary in _COMMANDS.items():
        command = commands.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            parents=[common],
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name == wanted and name != "agent":
            module = importlib.import_module(f"portslice.cli.{name}")
            module.configure(command)
            command.set_defaults(command=module.main)
    return parser

"""`portslice COMMAND`: the parser, and the way from a command's name to its module.

A command's module is imported when it is called: `portslice ps` must not wait for what only the agent needs. It offers
`configure(parser)`, which adds its arguments, and `main(options)`, which returns the exit status. `agent` and `master`
have Mesos' flags instead of arguments, and `doctor` and `plan` take the same ones.
"""

import argparse
import difflib
import importlib
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from portslice import __version__
from portslice.errors import FlagError, PortsliceError

DEFAULT_SOCKET = "/run/portslice/agent.sock"
_COMMANDS = {
    "agent": "run the agent (also installed as mesos-agent and mesos-slave)",
    "master": "run a small Mesos master for this host (also installed as mesos-master)",
    "run": "run a command in a container",
    "ps": "list containers",
    "update": "change a running container's ports and limits",
    "stats": "show a container's statistics",
    "top": "watch all containers: rates, limits, queues, refused packets",
    "drops": "show which packets were refused, and why",
    "kill": "end containers",
    "doctor": "check what the host needs, and say how to mend it",
    "plan": "show how many containers fit and which block each gets",
    "demo": "show the main job on real traffic, on a host built from namespaces",
}
_WITH_AGENT_FLAGS = ("doctor", "plan")
_WITHOUT_AGENT = (*_WITH_AGENT_FLAGS, "demo")
_EPILOG = """\
examples:
  portslice agent --isolation=network/port_mapping --resources='ports:[31000-32000];ephemeral_ports:[32768-57344]'
  portslice run --name web --ports 2 -- sh -c 'exec python3 -m http.server $PORT0'
  portslice ps
  portslice stats web --json
  portslice top

exit status: 0, 1 if something failed, 2 if the command line is wrong; `run` has its command's.

`portslice COMMAND --help` says more about a command."""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["agent"]:
        from portslice.cli import agent

        return guarded(lambda: agent.run(arguments[1:]))
    if arguments[:1] == ["master"]:
        from portslice.cli import master

        return guarded(lambda: master.run(arguments[1:]))
    options = _parse(arguments)
    return guarded(lambda: int(options.command(options)))


def guarded(work: Callable[[], int]) -> int:
    """Do the work of a command, and let it end as commands do: errors in a line, a closed pipe in silence."""
    try:
        status = work()
        sys.stdout.flush()
        return status
    except FlagError as error:
        print(f"portslice: {error}", file=sys.stderr)
        return 2
    except PortsliceError as error:
        print(f"portslice: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left in its buffer fails as well
        if isinstance(error, BrokenPipeError):
            return 141  # as a shell reports SIGPIPE
        print(f"portslice: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


class _Parser(argparse.ArgumentParser):
    """argparse's, with a hint for what is nearly right."""

    def __init__(self, **options: Any) -> None:
        self._known: list[str] = []
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **options)

    def add_argument(self, *names: str, **options: Any) -> argparse.Action:
        action = super().add_argument(*names, **options)
        self._known += action.option_strings
        return action

    def error(self, message: str) -> NoReturn:
        if wrong := re.search(r"invalid choice: '([^']*)'", message):
            message = f"there is no command '{wrong[1]}'{_hint(wrong[1], _COMMANDS)}"
        super().error(message)

    def refuse(self, argument: str) -> NoReturn:
        """End with an error about an argument that nothing takes."""
        if argument.startswith("-"):
            option = argument.partition("=")[0]
            self.error(f"unknown option '{option}'{_hint(option, self._known)}")
        self.error(f"unexpected argument '{argument}'")


class _Command(_Parser):
    """Imports the command's module and adds its arguments when it is chosen."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        name = self.prog.split()[-1]
        if name in ("agent", "master"):
            self.error(f"what belongs to the {name} stands behind the word: see portslice {name} --help")
        module = importlib.import_module(f"portslice.cli.{name}")
        _add_common(self, default=argparse.SUPPRESS, socket=name not in _WITHOUT_AGENT)
        module.configure(self)
        self.set_defaults(command=module.main, parser=self)
        return super().parse_known_args(args, namespace)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(
        prog="portslice",
        description="Many containers behind one IP address, each with its own slice of the ports.",
        epilog=_EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"portslice {__version__}")
    _add_common(parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_Command)
    for name, summary in _COMMANDS.items():
        # prog is given, because argparse would put the options before COMMAND into it.
        commands.add_parser(
            name, prog=f"portslice {name}", help=summary, description=f"{summary[0].upper()}{summary[1:]}."
        )
    options, rest = parser.parse_known_args(arguments)
    options.agent_flags = rest
    if rest and options.parser.prog.split()[-1] not in _WITH_AGENT_FLAGS:
        options.parser.refuse(rest[0])
    return options


def _add_common(parser: _Parser, *, default: Any = None, socket: bool = True) -> None:
    """The options of all commands; they may stand before the command, too."""
    if socket:
        parser.add_argument(
            "--socket",
            type=Path,
            default=default or Path(os.environ.get("PORTSLICE_SOCKET") or DEFAULT_SOCKET),
            help=f"the agent's socket (default: $PORTSLICE_SOCKET, else {DEFAULT_SOCKET})",
        )
    parser.add_argument("--json", action="store_true", default=default or False, help="machine-readable output")


def _hint(wrong: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(wrong, list(known), n=1, cutoff=0.6)
    return f": did you mean {near[0]}?" if near else ""

"""How a program with Mesos' flags begins: `portslice agent` and `portslice master`."""

import os
import sys
from collections.abc import Sequence
from dataclasses import Field
from typing import Any, ClassVar, Protocol, TypeVar

from portslice import __version__
from portslice.cli import logs
from portslice.errors import FlagError
from portslice.flags import load, usage


class _Flags(Protocol):
    """A dataclass of flags, with those that every program has."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def version(self) -> bool: ...

    @property
    def logging_level(self) -> str: ...


_F = TypeVar("_F", bound=_Flags)


def begin(kind: type[_F], argv: Sequence[str], program: str, intro: str) -> tuple[_F, list[str]] | int:
    """The flags of a command line and what is to be warned of; or the exit status, if that is all that is to be done.

    :param intro: of the help; `{program}` in it is the program's name.
    """
    if any(word in ("--help", "-h", "--help=true") for word in argv):
        print(usage(kind, program, intro.format(program=program)))
        return 0
    stray = next((word for word in argv if not word.startswith("--")), None)
    try:
        if stray is not None:
            raise FlagError(f"Unexpected argument '{stray}': flags are --NAME=VALUE")
        flags, warnings = load(kind, argv, os.environ)
    except FlagError as error:
        print(f"{error}\n\nSee `{program} --help` for a list of supported flags.", file=sys.stderr)
        return 1
    if flags.version:
        print(f"portslice {__version__}")
        return 0
    if flags.logging_level not in logs.LEVELS:
        print(f"'{flags.logging_level}' is not a valid logging level: INFO, WARNING or ERROR", file=sys.stderr)
        return 1
    return flags, warnings

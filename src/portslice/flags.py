"""Mesos' flags: command line and environment in, a frozen dataclass out.

A program declares its flags as the fields of a dataclass and gets an instance of it:

    @dataclass(frozen=True)
    class Flags:
        port: int = flag(5051, parse=uint16, help="Port to listen on.")
        agent_subsystems: str | None = flag(None, parse=text, help="…", aliases=("slave_subsystems",))

    flags, warnings = load(Flags, sys.argv[1:], os.environ)

A flag is boolean if its parser is `boolean`, and a path if its parser is `path`; any function from a text to a value
that raises ParseError can be a parser. The syntax is that of stout's `FlagsBase`:

    --name=value            a value; `--name value` is not one
    --name, --no-name       a boolean; `--name=` is true, too
    MESOS_NAME=value        the environment; names nobody declared are ignored, the command line wins
    file:///path            as any value but a path's: the content of the file, not trimmed
                            (a secret's or a JSON object's may be a bare absolute path, too, with a warning)
    --                      the end of the flags; what does not begin with -- is not a flag, and ignored

Names are read in any case. A flag may be given once, an alias counting as its name. All errors are FlagErrors with
the texts of Mesos; behind an unknown flag's, a second sentence names the flag that was probably meant.
"""

import difflib
import json
import math
import os
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from .errors import FlagError, ParseError
from .units import Bytes, Duration, parse_unsigned

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Flags = TypeVar("Flags", bound=DataclassInstance)

T = TypeVar("T")


# The parsers of values.


def boolean(value: str) -> bool:
    """true, 1, false or 0."""
    if value in ("true", "1"):
        return True
    if value in ("false", "0"):
        return False
    raise ParseError("Expecting a boolean (e.g., true or false)")


def text(value: str) -> str:
    """Any text, as it is."""
    return value


def path(value: str) -> Path:
    """A path, made absolute; `file://` has no meaning in it."""
    if not value:
        raise ParseError("Expecting a path")
    return Path(value).absolute()


def uint16(value: str) -> int:
    """An integer of 0..65535."""
    try:
        return parse_unsigned(value.strip(), 65535)
    except ParseError:
        raise ParseError("Failed to convert into required type") from None


def integer(value: str) -> int:
    """An integer that 64 bits hold."""
    digits = value.strip()
    negative = digits.startswith("-")
    try:
        magnitude = parse_unsigned(digits.removeprefix("-"), 2**63 - (not negative))
    except ParseError:
        raise ParseError(f"Failed to convert '{digits}' to number") from None
    return -magnitude if negative else magnitude


def number(value: str) -> float:
    """A decimal number."""
    try:
        if math.isfinite(result := float(value)):
            return result
    except ValueError:
        pass
    raise ParseError(f"Failed to convert '{value.strip()}' to number")


def bytes_(value: str) -> Bytes:
    """An amount of bytes with its unit."""
    return Bytes.parse(value.strip())


def duration(value: str) -> Duration:
    """A length of time with its unit."""
    return Duration.parse(value.strip())


def json_object(value: str) -> dict[str, Any]:
    """A JSON object. `load` reads a bare absolute path as the name of a file, with a warning."""
    try:
        parsed = json.loads(value)
    except ValueError as error:
        raise ParseError(f"Failed to parse JSON: {error}") from None
    if not isinstance(parsed, dict):
        raise ParseError("Expecting a JSON object")
    return parsed


# Declaring.


def flag(
    default: T | None = None,
    *,
    parse: Callable[[str], T],
    help: str,
    aliases: tuple[str, ...] = (),
    required: bool = False,
    secret: bool = False,
) -> T:
    """Declare a field of a flags dataclass.

    The value None means "not set". Aliases are deprecated names. A required flag has no default. The value of a secret
    one is never shown, and its file is expected to be its owner's alone.
    """
    return cast(T, field(default=default, metadata={_KEY: _Declaration(parse, help, aliases, required, secret)}))


@dataclass(frozen=True, slots=True)
class _Declaration:
    parse: Callable[[str], Any]
    help: str
    aliases: tuple[str, ...]
    required: bool
    secret: bool


@dataclass(frozen=True, slots=True)
class _Flag:
    name: str
    default: Any
    declaration: _Declaration

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, *self.declaration.aliases)

    @property
    def is_boolean(self) -> bool:
        return self.declaration.parse is boolean


_KEY = "flag"
_HIDDEN = "(hidden)"
_PASSWORD = re.compile(r"(?<=zk://)([^/@:]*):[^/@]*@")


def _flags_of(cls: "type[DataclassInstance]") -> list[_Flag]:
    declared = (f for f in fields(cls) if _KEY in f.metadata)
    return sorted((_Flag(f.name, f.default, f.metadata[_KEY]) for f in declared), key=lambda f: f.name)


# Loading.


def load(
    cls: "type[Flags]", argv: Sequence[str], environ: Mapping[str, str], prefix: str = "MESOS_"
) -> tuple["Flags", list[str]]:
    """Read the flags of `cls` from the arguments (without the program's name) and the environment.

    Returns the instance and warnings for the log. Raises FlagError.
    """
    loader = _Loader(_flags_of(cls))
    for name, value in _split_arguments(argv):
        loader.load(name, value)
    on_command_line = frozenset(loader.given)
    for key, value in sorted(environ.items()):
        name = key.removeprefix(prefix).lower()
        known = loader.find(name) if key.startswith(prefix) else None
        if known is not None and known.name not in on_command_line:
            loader.load(name, value)
    loader.check_required()
    return cls(**loader.values), loader.warnings


def _split_arguments(argv: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    for argument in argv:
        if argument == "--":
            return
        if argument.startswith("--"):
            name, equals, value = argument[2:].partition("=")
            yield name.lower(), value if equals else None


class _Loader:
    """Takes flags one by one, under the names that were given; `no-` may stand before a name."""

    def __init__(self, flags: list[_Flag]) -> None:
        self.flags = {name: flag for flag in flags for name in flag.names}
        self.given: dict[str, str] = {}  # the flag's name -> the name it was given by
        self.values: dict[str, Any] = {}
        self.warnings: list[str] = []

    def find(self, name: str) -> _Flag | None:
        return self.flags.get(name.removeprefix("no-"))

    def load(self, given: str, value: str | None) -> None:
        name = given.removeprefix("no-")
        negated = name != given
        flag = self.find(given)
        if flag is None:
            via = f" via '{given}'" if negated else ""
            raise FlagError(f"Failed to load unknown flag '{name}'{via}{self._hint(name)}")
        if flag.name in self.given:
            raise FlagError(f"Flag '{name}' is already loaded via name '{self.given[flag.name]}'")
        self.given[flag.name] = name
        if name != flag.name:
            self.warnings.append(f"Loaded deprecated flag '{name}'")
        self.values[flag.name] = self._parse(flag, name, self._raw(flag, name, negated, value))

    def check_required(self) -> None:
        for flag in self.flags.values():
            if flag.declaration.required and flag.name not in self.given:
                raise FlagError(f"Flag '{flag.name}' is required, but it was not provided")

    def _raw(self, flag: _Flag, name: str, negated: bool, value: str | None) -> str:
        if flag.is_boolean:
            if not value:
                return "false" if negated else "true"
            if negated:
                raise FlagError(f"Failed to load boolean flag '{name}' via 'no-{name}' with value '{value}'")
            return value
        if negated:
            raise FlagError(f"Failed to load non-boolean flag '{name}' via 'no-{name}'")
        if value is None:
            raise FlagError(f"Failed to load non-boolean flag '{name}': Missing value")
        return value

    def _parse(self, flag: _Flag, name: str, value: str) -> Any:
        try:
            return flag.declaration.parse(self._fetch(flag, value))
        except ParseError as error:
            shown = _HIDDEN if flag.declaration.secret else value
            raise FlagError(f"Failed to load flag '{name}': Failed to load value '{shown}': {error}") from None

    def _fetch(self, flag: _Flag, value: str) -> str:
        """The value itself, or the content of the file it names."""
        if flag.declaration.parse is path:
            return value
        secret = flag.declaration.secret
        if (secret or flag.declaration.parse is json_object) and value.startswith("/"):
            self.warnings.append(f"Flag '{flag.name}' names a file by its bare path: write 'file://{value}' instead")
            value = f"file://{value}"
        if not value.startswith("file://"):
            if secret:
                self.warnings.append(f"Flag '{flag.name}' shows its secret to whoever lists processes: name a file")
            return value
        content = _read(file := value.removeprefix("file://"))
        if secret and os.stat(file).st_mode & 0o077:
            self.warnings.append(
                f"Permissions on credentials file '{file}' are too open; it is recommended that your credentials file "
                "is NOT accessible by others"
            )
        return content

    def _hint(self, name: str) -> str:
        near = difflib.get_close_matches(name, self.flags, n=1, cutoff=0.7)
        return f". Did you mean --{near[0]}?" if near else ""


def _read(file: str) -> str:
    try:
        with open(file, encoding="utf-8", newline="") as stream:
            return stream.read()
    except OSError as error:
        raise ParseError(f"Error reading file '{file}': {error.strerror}") from None
    except ValueError as error:  # not UTF-8, or a zero byte in the path
        raise ParseError(f"Error reading file '{file}': {error}") from None


# Showing.


def as_strings(instance: "DataclassInstance") -> dict[str, str]:
    """The flags that are set, by name, in the spelling that `load` reads (Mesos' `/flags`), but for passwords."""
    values = ((flag, getattr(instance, flag.name)) for flag in _flags_of(type(instance)))
    return {
        flag.name: _HIDDEN if flag.declaration.secret else _PASSWORD.sub(r"\1:(hidden)@", _string(value))
        for flag, value in values
        if value is not None
    }


def startup_line(instance: "DataclassInstance") -> str:
    """The line that Mesos logs first: Flags at startup: --a="x" --b="y"."""
    return "Flags at startup: " + " ".join(f'--{name}="{value}"' for name, value in as_strings(instance).items())


def usage(cls: "type[DataclassInstance]", program: str, intro: str) -> str:
    """The text of `--help`: every flag with its aliases, help and default, at most 80 columns wide where it can be."""
    indent = " " * 30
    parts = [f"Usage: {program} [options]\n"]
    for paragraph in intro.split("\n\n"):
        parts.append((paragraph if "\n " in paragraph else textwrap.fill(paragraph, 80)) + "\n")  # examples as they are
    for flag in _flags_of(cls):
        form = "--[no-]{}" if flag.is_boolean else "--{}=VALUE"
        head = "  " + ", ".join(form.format(name) for name in flag.names)
        body = textwrap.fill(_help(flag), 80, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
        # The help begins on the line of the name if two blanks fit between them.
        parts.append(head + body[len(head) :] if len(head) <= len(indent) - 2 else f"{head}\n{body}")
    return "\n".join(parts) + "\n"


def _help(flag: _Flag) -> str:
    if flag.declaration.required:
        return f"{flag.declaration.help} (required)"
    return flag.declaration.help + ("" if flag.default is None else f" (default: {_string(flag.default)})")


def _string(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    if isinstance(value, dict):
        return json.dumps(value, separators=(",", ":"))
    return str(value)

"""From a request's body to a call: the JSON mapping of Mesos' messages `mesos.agent.Call` and `mesos.master.Call`.

A schema is data: a member is a kind of scalar, a message (a dict), or a list of either; `!` marks those that
must be there. As in Mesos, a null is as if it were not there, unknown members are ignored, and a value of another kind
is refused. Containers and resources stay as they are for those who know more of them.
"""

import json
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any, NamedTuple

from portslice.errors import ParseError


class Call(NamedTuple):
    """A call and its argument; members of the argument are of the kinds in the schema."""

    type: str
    argument: dict[str, Any]


class _Kind(NamedTuple):
    types: tuple[type, ...]
    least: float = 0
    most: float = 0


TEXT, BOOL, ANY = _Kind((str,)), _Kind((bool,)), _Kind((dict,))
UINT32, INT32 = _Kind((int,), 0, 2**32 - 1), _Kind((int,), -(2**31), 2**31 - 1)
UINT64, INT64 = _Kind((int,), 0, 2**64 - 1), _Kind((int,), -(2**63), 2**63 - 1)

DURATION = {"nanoseconds!": INT64}


@dataclass(frozen=True)
class Schema:
    """All calls of an API.

    :param whose: for its errors: `agent` or `master`.
    :param arguments: the schema of each call that has an argument.
    :param optional: those whose argument need not be there.
    :param without: calls without an argument.
    :param not_here: calls that Mesos knows and that are not served here.
    """

    whose: str
    arguments: Mapping[str, Any]
    without: Set[str]
    not_here: Set[str]
    optional: Set[str] = frozenset()

    def read(self, text: str) -> Call:
        """The call that a body is.

        :raises ParseError: in Mesos' words.
        """
        members = {name.lower(): schema for name, schema in self.arguments.items()}
        try:
            call = _message(_json(text), {"type": TEXT, **members}, "")
        except _WrongShapeError as error:
            raise ParseError(f"Failed to convert JSON into Call protobuf: {error}") from None
        kind = call.get("type", "")
        if kind in self.not_here or kind in self.without:
            return Call(kind, {})
        if kind not in self.arguments:
            raise self._missing("type")
        if (member := kind.lower()) not in call and kind not in self.optional:
            raise self._missing(member)
        return Call(kind, call.get(member, {}))

    def _missing(self, member: str) -> ParseError:
        return ParseError(f"Failed to validate {self.whose}::Call: Expecting '{member}' to be present")


class _WrongShapeError(ParseError):
    """JSON, but not of the schema."""


def _json(text: str) -> Any:
    try:
        body = json.loads(text)
        json.dumps(body, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except RecursionError:
        raise ParseError("Failed to parse body into JSON: it is nested too deeply") from None
    except json.JSONDecodeError as error:
        near = error.doc[error.pos :].partition("\n")[0]
        raise ParseError(f"Failed to parse body into JSON: syntax error at line {error.lineno} near: {near}") from None
    except ValueError as error:  # a number of thousands of digits, or no text
        raise ParseError(f"Failed to parse body into JSON: {error}") from None
    return body


def _value(value: Any, schema: Any, path: str) -> Any:
    if isinstance(schema, list):
        if not isinstance(value, list):
            raise _not_expecting(value, path)
        return [_value(each, schema[0], path) for each in value]
    if isinstance(schema, dict):
        return _message(value, schema, path)
    if not isinstance(value, schema.types) or (isinstance(value, bool) and schema is not BOOL):
        raise _not_expecting(value, path)
    if schema.types == (int,) and not schema.least <= value <= schema.most:
        raise _WrongShapeError(f"The number {value} is out of range for field '{path}'")
    return value


def _message(value: Any, schema: dict[str, Any], path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _not_expecting(value, path) if path else _WrongShapeError("Expecting a JSON object")
    given = {name: member for name, member in value.items() if member is not None}
    below = f"{path}." if path else ""
    required = [name[:-1] for name in schema if name.endswith("!")]
    if absent := [below + name for name in required if name not in given]:
        raise _WrongShapeError(f"Missing required fields: {', '.join(absent)}")
    known = {name.removesuffix("!"): kind for name, kind in schema.items()}
    return {name: _value(given[name], kind, below + name) for name, kind in known.items() if name in given}


def _not_expecting(value: Any, path: str) -> _WrongShapeError:
    kinds = {bool: "boolean", int: "number", float: "number", str: "string", list: "array", dict: "object"}
    return _WrongShapeError(f"Not expecting a JSON {kinds.get(type(value), 'null')} for field '{path}'")

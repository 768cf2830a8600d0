"""From a request's body to a call: the JSON mapping of Mesos' message `mesos.agent.Call`.

The schema below is data: a member is a kind of scalar, a message (a dict), or a list of either; `!` marks those that
must be there. As in Mesos, a null is as if it were not there, unknown members are ignored, and a value of another kind
is refused. Containers and resources stay as they are for those who know more of them.
"""

import json
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


_TEXT, _BOOL, _ANY = _Kind((str,)), _Kind((bool,)), _Kind((dict,))
_UINT32, _INT32 = _Kind((int,), 0, 2**32 - 1), _Kind((int,), -(2**31), 2**31 - 1)
_UINT64, _INT64 = _Kind((int,), 0, 2**64 - 1), _Kind((int,), -(2**63), 2**63 - 1)

_DURATION = {"nanoseconds!": _INT64}
_ID = {"value!": _TEXT, "parent": _ANY}
_CONTAINER = {"container_id!": _ID}
_KILL = {"container_id!": _ID, "signal": _INT32}
_VARIABLE = {"name!": _TEXT, "value": _TEXT, "type": _TEXT, "secret": _ANY}
_URI = {"value!": _TEXT, "executable": _BOOL, "extract": _BOOL, "cache": _BOOL, "output_file": _TEXT}
_COMMAND = {
    "uris": [_URI],
    "environment": {"variables": [_VARIABLE]},
    "shell": _BOOL,
    "value": _TEXT,
    "arguments": [_TEXT],
    "user": _TEXT,
}
_ARGUMENTS: dict[str, Any] = {
    "GET_METRICS": {"timeout": _DURATION},
    "SET_LOGGING_LEVEL": {"level!": _UINT32, "duration!": _DURATION},
    "LIST_FILES": {"path!": _TEXT},
    "READ_FILE": {"path!": _TEXT, "offset!": _UINT64, "length": _UINT64},
    "GET_CONTAINERS": {"show_nested": _BOOL, "show_standalone": _BOOL},
    "LAUNCH_CONTAINER": {"container_id!": _ID, "command": _COMMAND, "resources": [_ANY], "container": _ANY},
    "WAIT_CONTAINER": _CONTAINER,
    "KILL_CONTAINER": _KILL,
    "REMOVE_CONTAINER": _CONTAINER,
    "WAIT_NESTED_CONTAINER": _CONTAINER,
    "KILL_NESTED_CONTAINER": _KILL,
    "REMOVE_NESTED_CONTAINER": _CONTAINER,
    "ATTACH_CONTAINER_OUTPUT": _CONTAINER,
}
_OPTIONAL = {"GET_CONTAINERS"}  # whose argument need not be there
_WITHOUT = {
    "GET_HEALTH", "GET_FLAGS", "GET_VERSION", "GET_LOGGING_LEVEL", "GET_STATE", "GET_FRAMEWORKS", "GET_EXECUTORS",
    "GET_TASKS", "GET_AGENT", "GET_OPERATIONS", "GET_RESOURCE_PROVIDERS",
}  # fmt: skip
NOT_HERE = {
    "UNKNOWN", "LAUNCH_NESTED_CONTAINER", "LAUNCH_NESTED_CONTAINER_SESSION", "ATTACH_CONTAINER_INPUT", "PRUNE_IMAGES",
    "ADD_RESOURCE_PROVIDER_CONFIG", "UPDATE_RESOURCE_PROVIDER_CONFIG", "REMOVE_RESOURCE_PROVIDER_CONFIG",
    "MARK_RESOURCE_PROVIDER_GONE",
}  # fmt: skip
"""Calls that Mesos knows and this agent does not serve."""

_CALL: dict[str, Any] = {"type": _TEXT, **{name.lower(): schema for name, schema in _ARGUMENTS.items()}}


def read(text: str) -> Call:
    """The call that a body is.

    :raises ParseError: in Mesos' words.
    """
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
    try:
        call = _message(body, _CALL, "")
    except ParseError as error:
        raise ParseError(f"Failed to convert JSON into Call protobuf: {error}") from None
    kind = call.get("type")
    if kind in NOT_HERE or kind in _WITHOUT:
        return Call(kind, {})
    if kind not in _ARGUMENTS:
        raise _missing("type")
    if (member := kind.lower()) not in call and kind not in _OPTIONAL:
        raise _missing(member)
    return Call(kind, call.get(member, {}))


def _missing(member: str) -> ParseError:
    return ParseError(f"Failed to validate agent::Call: Expecting '{member}' to be present")


def _value(value: Any, schema: Any, path: str) -> Any:
    if isinstance(schema, list):
        if not isinstance(value, list):
            raise _not_expecting(value, path)
        return [_value(each, schema[0], path) for each in value]
    if isinstance(schema, dict):
        return _message(value, schema, path)
    if not isinstance(value, schema.types) or (isinstance(value, bool) and schema is not _BOOL):
        raise _not_expecting(value, path)
    if schema.types == (int,) and not schema.least <= value <= schema.most:
        raise ParseError(f"The number {value} is out of range for field '{path}'")
    return value


def _message(value: Any, schema: dict[str, Any], path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _not_expecting(value, path) if path else ParseError("Expecting a JSON object")
    given = {name: member for name, member in value.items() if member is not None}
    below = f"{path}." if path else ""
    required = [name[:-1] for name in schema if name.endswith("!")]
    if absent := [below + name for name in required if name not in given]:
        raise ParseError(f"Missing required fields: {', '.join(absent)}")
    known = {name.removesuffix("!"): kind for name, kind in schema.items()}
    return {name: _value(given[name], kind, below + name) for name, kind in known.items() if name in given}


def _not_expecting(value: Any, path: str) -> ParseError:
    kinds = {bool: "boolean", int: "number", float: "number", str: "string", list: "array", dict: "object"}
    return ParseError(f"Not expecting a JSON {kinds.get(type(value), 'null')} for field '{path}'")

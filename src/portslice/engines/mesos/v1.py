"""Messages as the JSON of Mesos' v1 APIs, where what was a slave is an agent.

protobuf's own mapping is another one: it writes 64-bit integers as texts and leaves out what has a default.
"""

import base64
import json
from typing import Any, TypeVar

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from portslice.errors import ParseError

_M = TypeVar("_M", bound=Message)

_OLD, _NEW = "slave", "agent"


def to_json(message: Message) -> dict[str, Any]:
    """What is set, and what has a default."""
    found: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        name = field.name.replace(_OLD, _NEW)
        if field.is_repeated:
            if len(value):
                found[name] = [_value(field, each) for each in value]
        elif message.HasField(field.name) or (field.has_default_value and not field.GetOptions().deprecated):
            found[name] = _value(field, value)
    return found


def check(message: Message) -> None:
    """Whether JSON can tell it: protobuf takes texts that are none, and numbers that JSON does not know. One such value
    would spoil the answers of all endpoints that tell of it.

    :raises ParseError: it cannot.
    """
    try:
        json.dumps(to_json(message), allow_nan=False)
    except (TypeError, ValueError):
        raise ParseError("not text, or not a number") from None


def from_json(kind: type[_M], content: Any) -> _M:
    """A message of JSON; what it does not know is passed over, as in Mesos.

    :raises ParseError: something has the wrong type, or a required field is missing.
    """
    message = kind()
    try:
        json_format.ParseDict(_old(content), message, ignore_unknown_fields=True)
    except (json_format.ParseError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ParseError(f"Failed to convert JSON into Call protobuf: {str(error)[:300]}") from None
    if not message.IsInitialized():
        missing = ", ".join(message.FindInitializationErrors()).replace(_OLD, _NEW)  # type: ignore[attr-defined]
        raise ParseError(f"Failed to convert JSON into Call protobuf: Missing required fields: {missing}")
    return message


def _value(field: Any, value: Any) -> Any:
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        return to_json(value)
    if field.type == FieldDescriptor.TYPE_ENUM:
        return field.enum_type.values_by_number[value].name.replace(_OLD.upper(), _NEW.upper())
    if field.type == FieldDescriptor.TYPE_BYTES:
        return base64.b64encode(value).decode()
    return value


def _old(content: Any) -> Any:
    """The same with the names of the messages."""
    if isinstance(content, dict):
        return {_OLD + "_id" if key == _NEW + "_id" else key: _old(value) for key, value in content.items()}
    return [_old(each) for each in content] if isinstance(content, list) else content

"""Messages as JSON of the v1 API: members as stout prints them, names without `slave`.

A member that is not set is there if it has a default, and an integer of 64 bits is a number; this is what
google.protobuf.json_format would do otherwise.
"""

import base64
from typing import Any

from google.protobuf.message import Message

_NAMES = {"slave_id": "agent_id"}
_VALUES = {"SOURCE_SLAVE": "SOURCE_AGENT", "REASON_SLAVE_RESTARTED": "REASON_AGENT_RESTARTED"}


def to_json(message: Message) -> dict[str, Any]:
    """The members in the order of the schema."""
    shown = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.is_repeated:
            if value:
                shown[field.name] = [_value(field, each) for each in value]
        elif message.HasField(field.name) or (field.has_default_value and not field.GetOptions().deprecated):
            shown[_NAMES.get(field.name, field.name)] = _value(field, value)
    return shown


def _value(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        return to_json(value)
    if field.enum_type is not None:
        name = field.enum_type.values_by_number[value].name
        return _VALUES.get(name, name)
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value

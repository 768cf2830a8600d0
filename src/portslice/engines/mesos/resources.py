"""What the agent has, as messages."""

from portslice.engines.mesos.schema.mesos_pb2 import Attribute, Resource, Value
from portslice.resources import Attributes, Ranges
from portslice.resources import Resource as Given


def resource(given: Given) -> Resource:
    """One of --resources. `ephemeral_ports` is told, too: a master shows it and never offers it."""
    message = Resource(name=given.name, type=Value.SCALAR, role=given.role)
    if isinstance(given.value, float):
        message.scalar.value = given.value
    elif isinstance(given.value, tuple):
        message.type = Value.RANGES
        message.ranges.CopyFrom(_ranges(given.value))
    else:
        message.type = Value.SET
        message.set.item.extend(sorted(given.value))
    return message


def attributes(given: Attributes) -> list[Attribute]:
    """Those of --attributes."""
    return [_attribute(name, value) for name, value in given.items()]


def _attribute(name: str, value: float | Ranges | str) -> Attribute:
    if isinstance(value, float):
        return Attribute(name=name, type=Value.SCALAR, scalar={"value": value})
    if isinstance(value, tuple):
        return Attribute(name=name, type=Value.RANGES, ranges=_ranges(value))
    return Attribute(name=name, type=Value.TEXT, text={"value": value})


def _ranges(pairs: Ranges) -> Value.Ranges:
    return Value.Ranges(range=[Value.Range(begin=begin, end=end) for begin, end in pairs])

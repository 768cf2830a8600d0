"""Mesos resources: the value of `--resources`, as text or as JSON.

    cpus:2;mem:1024;ports:[31000-32000];ephemeral_ports:[32768-57344];cpus(prod):4;bugs:{a,b}
    [{"name": "cpus", "type": "SCALAR", "scalar": {"value": 2}, "role": "prod"}]

A value is a scalar, a list of ranges or a set; in the text its form tells which. Scalars are fixed point with three
decimals. Ranges include both ends and hold any 64-bit number: whether they are ports is asked only by `ports()`.
Resources of the same name and role add up. Ranges that overlap in the text become one; in JSON they are refused.

Stricter than Mesos in two places where it silently reads something else than what was meant: `[31000,31010]` is not a
range, and nothing may follow the parenthesis of a role.

Inside this module a ValueError is a fault of form, which gets its context (which resource, text or JSON) where it is
caught; a ParseError is a well-formed value that cannot be a resource, and its message is final.
"""

import json
import math
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

from .errors import ParseError
from .ports import MAX_PORT, PortRange, PortSet
from .units import INT64_MAX, UINT64_MAX, parse_unsigned

Ranges: TypeAlias = tuple[tuple[int, int], ...]
Value: TypeAlias = float | Ranges | frozenset[str]
Attributes: TypeAlias = dict[str, float | Ranges | str]


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource (Mesos `Resource`): a scalar, ascending inclusive ranges, or a set, reserved for a role."""

    name: str
    value: Value
    role: str = "*"

    def __post_init__(self) -> None:
        if not self.name:
            raise ParseError("Empty resource name")
        if not self.role:
            raise ParseError("Empty role name")

    def __str__(self) -> str:
        role = "" if self.role == "*" else f"({self.role})"
        return f"{self.name}{role}:{format_value(self.value)}"


@dataclass(frozen=True, slots=True)
class Resources:
    """An immutable collection with at most one resource for each name and role, in the order of first mention."""

    items: tuple[Resource, ...] = ()

    @classmethod
    def parse(cls, text: str, default_role: str = "*") -> Self:
        """Read the text form, or a JSON array. What names no role belongs to `default_role`.

        Raises ParseError with the texts of Mesos.
        """
        is_json = text.lstrip().startswith("[")  # No resource name can begin so.
        return cls(tuple(_merge(_read_json(text, default_role) if is_json else _read_text(text, default_role))))

    def scalar(self, name: str) -> float | None:
        """The sum of the scalars of this name over all roles; None if there are none."""
        values = [r.value for r in self.items if r.name == name and isinstance(r.value, float)]
        return round(math.fsum(values), 3) if values else None

    def ranges(self, name: str) -> Ranges | None:
        """The union of the ranges of this name over all roles; None if there are none."""
        values = [r.value for r in self.items if r.name == name and isinstance(r.value, tuple)]
        return _coalesce(pair for ranges in values for pair in ranges) if values else None

    def ports(self, name: str) -> PortSet | None:
        """The ranges of this name as ports; None if there are none.

        Raises ParseError `Invalid ports resource '<ranges>': Range is out of bounds` (for `ephemeral_ports`:
        `Invalid ephemeral ports resource …`).
        """
        ranges = self.ranges(name)
        if ranges is None:
            return None
        if any(end > MAX_PORT for _, end in ranges):
            kind = name.replace("_", " ")
            raise ParseError(f"Invalid {kind} resource '{format_value(ranges)}': Range is out of bounds")
        return PortSet(PortRange(begin, end) for begin, end in ranges)

    def __iter__(self) -> Iterator[Resource]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __str__(self) -> str:
        """The text of Mesos: `cpus:2; cpus(prod):4; ports:[31000-32000]`. It parses back to the same resources."""
        return "; ".join(map(str, self.items))


# Values: from what was read to what a resource holds.


def _scalar(value: float) -> float:
    if math.isinf(value) or abs(value) > INT64_MAX / 1000:
        raise ValueError("Infinite values not supported")
    if math.isnan(value):
        raise ValueError("NaN not supported")
    if 0 < abs(value) < sys.float_info.min:
        raise ValueError("Subnormal values not supported")
    thousandths = math.floor(value * 1000 + 0.5)
    if thousandths <= 0:
        raise ParseError("Invalid scalar resource: value <= 0")
    return thousandths / 1000


def _ranges(pairs: list[tuple[int, int]]) -> Ranges:
    if any(begin > end for begin, end in pairs):
        raise ParseError("Invalid ranges resource: begin > end")
    return _coalesce(pairs)


def _set(elements: list[str]) -> frozenset[str]:
    if len(elements) != len(set(elements)):
        raise ParseError("Invalid set resource: duplicated elements")
    return frozenset(elements)


def _coalesce(pairs: Iterable[tuple[int, int]]) -> Ranges:
    merged: list[tuple[int, int]] = []
    for begin, end in sorted(pairs):
        if merged and begin <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    return tuple(merged)


def _merge(resources: Iterable[Resource]) -> Iterable[Resource]:
    merged: dict[tuple[str, str], Resource] = {}
    types: dict[str, type] = {}
    for new in resources:
        if types.setdefault(new.name, type(new.value)) is not type(new.value):
            raise ParseError(f"Resources with the same name ('{new.name}') but different types are not allowed")
        old = merged.setdefault((new.name, new.role), new)
        if old is not new:
            merged[new.name, new.role] = Resource(new.name, _add(old.value, new.value), new.role)
    return merged.values()


def _add(left: Value, right: Value) -> Value:
    if isinstance(left, float) and isinstance(right, float):
        return round(left + right, 3)
    if isinstance(left, tuple) and isinstance(right, tuple):
        return _coalesce(left + right)
    if isinstance(left, frozenset) and isinstance(right, frozenset):
        return left | right
    raise TypeError("values of different types")


def format_value(value: Value) -> str:
    """Mesos' text of a value: 2, [31000-31005, 31007-31010], {a, b}."""
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    if isinstance(value, tuple):
        return f"[{', '.join(f'{begin}-{end}' for begin, end in value)}]"
    return f"{{{', '.join(sorted(value))}}}"


# The text form.


def _read_text(text: str, default_role: str) -> Iterator[Resource]:
    for token in text.split(";"):
        if token.strip():
            yield _read_resource(token, default_role)


def _read_resource(token: str, default_role: str) -> Resource:
    parts = [part for part in token.split(":") if part]
    if len(parts) != 2:
        raise ParseError(f"Bad value for resources, missing or extra ':' in {token}")
    match = re.fullmatch(r"([^()]*)(?:\(([^()]*)\))?", parts[0].strip())
    if match is None:
        raise ParseError(f"Bad value for resources, mismatched parentheses in {token}")
    name = match[1].strip()
    role = default_role if match[2] is None else match[2].strip()
    try:
        value = _read_value(parts[1])
    except ValueError as error:
        raise ParseError(f"Failed to parse resource {name} value {parts[1]} error {error}") from None
    if value is None:
        raise ParseError(f"Bad type for resource {name} value {parts[1]} type TEXT")
    return Resource(name, value, role)


def _read_value(text: str) -> Value | None:
    """Read a value; None if it is free text, which no resource can hold."""
    text = "".join(text.split())
    if not text:
        raise ValueError("Expecting non-empty string")
    if not all(_brackets_match(text, pair) for pair in ("{}", "[]", "()")):
        raise ValueError("Mismatched brackets")
    for opening in "[{":
        if opening in text[1:]:
            raise ValueError(f"Unexpected '{opening}' found")
    if text.startswith("["):
        return _ranges([_read_range(item) for item in text.strip("[]").split(",") if item])
    if text.startswith("{"):
        return _set([item for item in text.strip("{}").split(",") if item])
    if re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|[+-]?(inf(inity)?|nan)", text.lower()):
        return _scalar(float(text))
    return None


def _brackets_match(text: str, pair: str) -> bool:
    depth = 0
    for char in text:
        depth += (char == pair[0]) - (char == pair[1])
        if depth < 0:
            return False
    return depth == 0


def _read_range(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([^-]+)-([^-]+)", text)
    if match is None:
        raise ValueError('Expecting one or more "ranges"')
    return _read_bound(match[1]), _read_bound(match[2])


def _read_bound(text: str) -> int:
    try:
        return parse_unsigned(text)
    except ParseError:
        raise ValueError(f"Expecting non-negative integers in '{text}'") from None


# The JSON form: the JSON mapping of the message `Resource`. Members that mean nothing here are ignored, as in Mesos.


def _read_json(text: str, default_role: str) -> list[Resource]:
    try:
        return [_json_resource(item, default_role) for item in json.loads(text)]
    except ValueError as error:
        raise ParseError(f"Some JSON resources were not formatted properly: {error}") from None


def _json_resource(item: Any, default_role: str) -> Resource:
    name = _member(item, "name", str)
    role = _member(item, "role", str) if "role" in item else default_role
    if item.get("reservations"):  # The newer form; the last reservation is the one in force.
        role = _member(_member(item, "reservations", list)[-1], "role", str)
    return Resource(name, _json_value(item), role)


def _json_value(item: Any) -> Value:
    kind = _member(item, "type", str)
    if kind == "SCALAR":
        return _scalar(_member(_member(item, "scalar", dict), "value", float))
    if kind == "RANGES":
        pairs = [(_json_bound(r, "begin"), _json_bound(r, "end")) for r in _json_list(item, "ranges", "range")]
        ranges = _ranges(pairs)
        if sum(end - begin + 1 for begin, end in pairs) != sum(end - begin + 1 for begin, end in ranges):
            raise ParseError("Invalid ranges resource: overlapping ranges")
        return ranges
    if kind == "SET":
        elements = _json_list(item, "set", "item")
        if not all(isinstance(element, str) for element in elements):
            raise ValueError("'item' holds something else than texts")
        return _set(elements)
    raise ValueError(f"'{kind}' is not a type of resource")


def _json_list(item: Any, message: str, field: str) -> list[Any]:
    # A repeated field without elements may be left out.
    inner = _member(item, message, dict)
    return _member(inner, field, list) if field in inner else []


def _json_bound(item: Any, field: str) -> int:
    bound: int = _member(item, field, int)
    if not 0 <= bound <= UINT64_MAX:
        raise ValueError(f"'{field}' is not a 64-bit unsigned integer")
    return bound


def _member(item: Any, field: str, kind: type) -> Any:
    value = item.get(field) if isinstance(item, dict) else None
    if kind is float and type(value) is int and abs(value) <= UINT64_MAX:  # JSON does not tell 2 from 2.0.
        value = float(value)
    if type(value) is not kind:
        raise ValueError(f"'{field}' is missing or not of the right type")
    return value


# Attributes: the value of `--attributes`, in the spelling of resources.


def parse_attributes(text: str) -> Attributes:
    """Read `name:value;name:value`, by name; a value is a scalar, ranges or free text. The last of a name stands.

    Raises ParseError with the texts of Mesos.
    """
    attributes: Attributes = {}
    for token in filter(str.strip, text.split(";")):
        name, colon, value = (part.strip() for part in token.partition(":"))
        if not (colon and name and value):
            raise ParseError(f"Invalid attribute key:value pair '{token}'")
        attributes[name] = _attribute(token, value)
    return attributes


def _attribute(token: str, value: str) -> float | Ranges | str:
    if value.startswith("{"):
        raise ParseError(f"Invalid attribute key:value pair '{token}': a set is no attribute")
    try:
        if value.startswith("["):
            read = _read_value(value)
            return read if isinstance(read, tuple) else value
        return float(value) if re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?", value.lower()) else value
    except ValueError as error:
        raise ParseError(f"Invalid attribute key:value pair '{token}': {error}") from None

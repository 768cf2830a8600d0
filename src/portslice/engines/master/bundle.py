"""Amounts of resources that can be added, taken away and compared.

A scalar is a whole number of thousandths, as in Mesos, so that nothing is lost by adding; ranges are ports. Sets are
shown with an agent and never offered.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from portslice.engines.mesos.schema.mesos_pb2 import Resource, Value
from portslice.errors import ParseError
from portslice.ports import PortRange, PortSet

Key = tuple[str, str]
"""Name and the role that it is reserved for; `*`: nobody's."""
Amount = int | PortSet

ANYBODY = "*"
_NEVER_OFFERED = ("ephemeral_ports",)


@dataclass(frozen=True)
class Bundle:
    """Resources; none of no amount."""

    amounts: Mapping[Key, Amount] = field(default_factory=dict)

    @classmethod
    def of(cls, resources: Iterable[Resource]) -> "Bundle":
        """From messages.

        :raises ParseError: a range is none or beyond 65535, or a scalar is no amount.
        """
        whole = Bundle()
        for each in resources:
            key = each.name, each.role or ANYBODY
            if each.type == Value.SCALAR:
                if not 0 <= each.scalar.value < 1e15:
                    raise ParseError(f"Invalid scalar resource '{each.name}'")
                whole += Bundle({key: round(each.scalar.value * 1000)})
            elif each.type == Value.RANGES and each.name not in _NEVER_OFFERED:
                ranges = [PortRange(one.begin, one.end) for one in each.ranges.range]
                ports = PortSet(ranges)
                if len(ports) != sum(map(len, ranges)):
                    raise ParseError(f"Invalid ranges resource '{each.name}': overlapping ranges")
                whole += Bundle({key: ports})
        return whole

    def messages(self, allocation_role: str | None = None) -> list[Resource]:
        """As messages; with the role that they are allocated to."""
        found = []
        for (name, role), amount in sorted(self.amounts.items(), key=lambda item: item[0]):
            message = Resource(name=name, role=role, type=Value.SCALAR)
            if isinstance(amount, int):
                message.scalar.value = amount / 1000
            else:
                message.type = Value.RANGES
                for each in amount.ranges:
                    message.ranges.range.add(begin=each.begin, end=each.end)
            if allocation_role is not None:
                message.allocation_info.role = allocation_role
            found.append(message)
        return found

    def scalar(self, name: str) -> float:
        """The sum over all roles."""
        return sum(a for (n, _), a in self.amounts.items() if n == name and isinstance(a, int)) / 1000

    def scalars(self) -> Iterator[tuple[str, float]]:
        """All names of scalars, with their sums."""
        names = dict.fromkeys(name for (name, _), amount in self.amounts.items() if isinstance(amount, int))
        return ((name, self.scalar(name)) for name in names)

    def ranges(self, name: str) -> PortSet:
        """The union over all roles."""
        found = (a for (n, _), a in self.amounts.items() if n == name and isinstance(a, PortSet))
        return PortSet(each for ports in found for each in ports.ranges)

    def open_to(self, role: str) -> "Bundle":
        """The part that a role may have: its own, and nobody's."""
        return Bundle({key: amount for key, amount in self.amounts.items() if key[1] in (ANYBODY, role)})

    def __add__(self, other: "Bundle") -> "Bundle":
        total = dict(self.amounts)
        for key, amount in other.amounts.items():
            mine = total.get(key)
            if isinstance(amount, int):
                total[key] = amount + (mine if isinstance(mine, int) else 0)
            else:
                total[key] = (mine | amount) if isinstance(mine, PortSet) else amount
        return Bundle(_some(total))

    def __sub__(self, other: "Bundle") -> "Bundle":
        """What is left; never less than nothing."""
        left = dict(self.amounts)
        for key, amount in other.amounts.items():
            mine = left.get(key)
            if isinstance(mine, int) and isinstance(amount, int):
                left[key] = max(mine - amount, 0)
            elif isinstance(mine, PortSet) and isinstance(amount, PortSet):
                left[key] = mine - amount
        return Bundle(_some(left))

    def __le__(self, other: "Bundle") -> bool:
        """Whether all of it is in the other one."""
        return not (self - other).amounts

    def __str__(self) -> str:
        return "; ".join(
            f"{name}{'' if role == ANYBODY else f'({role})'}:{amount / 1000:g}"
            if isinstance(amount, int)
            else f"{name}{'' if role == ANYBODY else f'({role})'}:{amount}"
            for (name, role), amount in self.amounts.items()
        )


def _some(amounts: Mapping[Key, Amount]) -> dict[Key, Amount]:
    return {key: amount for key, amount in amounts.items() if (amount if isinstance(amount, int) else len(amount))}

"""The 65,536 ports as one line, and who has which."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from portslice.agent.prerequisites import Ranges
from portslice.cli.glyphs import Style
from portslice.ports import MAX_PORT, PortRange, PortSet

CELLS = 64
_PORTS = (MAX_PORT + 1) // CELLS
_RESET = "\x1b[0m"


@dataclass(frozen=True)
class _Mark:
    """What stands for a port in a cell.

    :param colour: SGR parameters (ECMA-48).
    """

    unicode: str
    ascii: str
    colour: str


_HOST = _Mark("░", "h", "33")
_ASSIGNED = _Mark("▓", "a", "32")
_EPHEMERAL = _Mark("█", "e", "36")
_CONFLICT = _Mark("✗", "X", "31;1")
_NOBODY = _Mark("·", ".", "2")


def picture(ranges: Ranges, style: Style | None = None) -> str:
    """The line, its scale, and a legend. A cell shows who has most of its ports; one port in conflict is enough."""
    style = style or Style.of(sys.stdout)
    layers = (
        (_HOST, "the host's own ephemeral ports", PortSet((ranges.host,))),
        (_ASSIGNED, "assigned ports of containers", ranges.assigned),
        (_EPHEMERAL, "ephemeral blocks of containers", ranges.ephemeral),
    )
    line = "".join(_shown(_cell(at, [(mark, ports) for mark, _, ports in layers]), style) for at in range(CELLS))
    legend = [(mark, name, str(ports)[1:-1] or "none", len(ports)) for mark, name, ports in layers]
    if conflicts := ranges.conflicts():
        legend.append((_CONFLICT, "in conflict", str(conflicts)[1:-1], len(conflicts)))
    width = max(len(name) for _, name, _, _ in legend)
    return "\n".join(
        [line, _scale(), ""]
        + [f"{_shown(mark, style)} {name.ljust(width)}  {ports} ({count})" for mark, name, ports, count in legend]
    )


def _shown(mark: _Mark, style: Style) -> str:
    text = mark.unicode if style.unicode else mark.ascii
    return f"\x1b[{mark.colour}m{text}{_RESET}" if style.colour else text


def _cell(at: int, layers: Sequence[tuple[_Mark, PortSet]]) -> _Mark:
    cell = PortSet((PortRange(at * _PORTS, (at + 1) * _PORTS - 1),))
    here = [(mark, ports & cell) for mark, ports in layers]
    if any(not a.isdisjoint(b) for i, (_, a) in enumerate(here) for _, b in here[i + 1 :]):
        return _CONFLICT
    mark, ports = max(here, key=lambda each: len(each[1]))
    return mark if ports else _NOBODY


def _scale() -> str:
    """The first port of every sixteenth cell, and the last port."""
    marks = "".join(str(at * _PORTS).ljust(16) for at in range(0, CELLS, 16))
    return marks[: CELLS - len(str(MAX_PORT))] + str(MAX_PORT)

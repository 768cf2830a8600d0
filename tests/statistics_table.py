"""The tables of docs/statistics.md, for the tests: which field, from where, on which version of cgroups."""

import itertools
import re
from pathlib import Path
from typing import Any, NamedTuple

_DOCUMENT = Path(__file__).parents[1] / "docs/statistics.md"
_SERVED, _NOT_SERVED = 8, 3  # columns


class Row(NamedTuple):
    """:param numbers: each field that the row tells of, as a path (`a[].b`), with its number; None: beyond Mesos."""

    numbers: dict[str, int | None]
    cells: list[str]

    @property
    def type(self) -> str:
        return self.cells[2]

    def on(self, version: int) -> bool:
        """Whether it is served on this version of cgroups."""
        return self.cells[3 + version] != "absent"


def served() -> list[Row]:
    """The rows of what is served."""
    return _rows(_SERVED)


def not_served() -> list[Row]:
    """The rows of what is not, which only have names, numbers and a reason."""
    return _rows(_NOT_SERVED)


def leaves(value: Any, path: str = "") -> dict[str, set[str]]:
    """The fields that hold values, as the table writes them, with the types that they have in this JSON."""
    if isinstance(value, dict):
        found: dict[str, set[str]] = {}
        for name, member in value.items():
            shown = "REASON" if path == "net_drops" else name
            for field, types in leaves(member, f"{path}.{shown}" if path else shown).items():
                found.setdefault(field, set()).update(types)
        return found
    if isinstance(value, list):
        found = {}
        for member in value:
            for field, types in leaves(member, f"{path}[]").items():
                found.setdefault(field, set()).update(types)
        return found
    return {path: {{int: "integer", float: "double", str: "text"}[type(value)]}}


def expanded(pattern: str) -> list[str]:
    """What a shell makes of braces: `a{b,c}` is ab and ac."""
    parts = re.split(r"\{(.*?)\}", pattern)  # every other one is a list
    choices = [part.split(",") if index % 2 else [part] for index, part in enumerate(parts)]
    return ["".join(chosen) for chosen in itertools.product(*choices)]


def _rows(columns: int) -> list[Row]:
    lines = re.findall(r"^\| (`.*) \|$", _DOCUMENT.read_text(), re.M)
    found = [re.split(r" *\| *", line) for line in lines]
    return [Row(_numbers(*cells[:2]), cells) for cells in found if len(cells) == columns]


def _numbers(names: str, numbers: str) -> dict[str, int | None]:
    fields = [field for pattern in re.findall("`([^`]*)`", names) for field in expanded(pattern)]
    found = [None if number == "+" else int(number) for number in numbers.split(", ")]
    return dict(zip(fields, found * len(fields) if len(found) == 1 else found, strict=True))

"""What the keys of `portslice top` do: sorting, filtering, moving, pausing. Pure; the screen reads keys."""

from collections.abc import Sequence
from dataclasses import dataclass

from portslice.cli.top.model import COLUMNS, Row

INTERVALS = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
TABLE, DETAILS, HELP = "table", "details", "help"
_SORTS = {"P": "cpu", "M": "mem", "N": "name", "T": "tx", "R": "rx"}


@dataclass
class Controls:
    """What is shown, and how.

    :param selected: id of the container that the cursor stays on; None: the first row, whichever it is.
    :param offset: of the first row, or the first line of a page, that is seen.
    :param typing: keys go into the filter.
    """

    sort: str = "tx"
    reverse: bool = False
    interval: float = 2.0
    filter: str = ""
    typing: bool = False
    paused: bool = False
    page: str = TABLE
    selected: str | None = None
    offset: int = 0
    line: int = 0
    quit: bool = False

    def press(self, key: str, rows: Sequence[Row], height: int) -> None:
        """:param rows: as they are shown.
        :param height: how many of them are seen.
        """
        if self.typing:
            self._type(key)
        elif self.page != TABLE:
            self._page(key, height)
        else:
            self._table(key, rows, height)

    def index(self, rows: Sequence[Row]) -> int:
        """Where the cursor is."""
        return next((at for at, row in enumerate(rows) if row.id == self.selected), 0)

    def scroll(self, rows: Sequence[Row], height: int) -> int:
        """The first row to be seen, so that the cursor is, and the screen is full where there are rows for it."""
        at = self.index(rows)
        lowest, highest = max(at - height + 1, 0), min(at, max(len(rows) - height, 0))
        self.offset = min(max(self.offset, lowest), max(highest, lowest))
        return self.offset

    def _type(self, key: str) -> None:
        if key == "enter":
            self.typing = False
        elif key == "escape":
            self.typing, self.filter = False, ""
        elif key == "backspace":
            self.filter = self.filter[:-1]
        elif len(key) == 1:
            self.filter += key

    def _page(self, key: str, height: int) -> None:
        if key in ("escape", "enter", "q", "h", "?"):
            self.page, self.line = TABLE, 0
            return
        step = {"up": -1, "down": 1, "pageup": -height, "pagedown": height, "home": -self.line}.get(key, 0)
        self.line = max(self.line + step, 0)
        self._common(key)

    def _table(self, key: str, rows: Sequence[Row], height: int) -> None:
        moves = {"up": -1, "down": 1, "pageup": -height, "pagedown": height, "end": len(rows)}
        if key == "home":
            self.selected = None
        elif key in moves and rows:
            self.selected = rows[min(max(self.index(rows) + moves[key], 0), len(rows) - 1)].id
        elif key in ("<", ">", "left", "right"):
            names = [column.name for column in COLUMNS]
            self._sort_by(names[(names.index(self.sort) + (1 if key in (">", "right") else -1)) % len(names)])
        elif key in _SORTS:
            self._sort_by(_SORTS[key])
        elif key == "r":
            self.reverse = not self.reverse
        elif key == "/":
            self.typing = True
        elif key == "escape":
            self.filter, self.selected = "", None
        elif key == "enter" and rows:
            self.page, self.selected = DETAILS, rows[self.index(rows)].id
        elif key in ("h", "?"):
            self.page = HELP
        elif key == "q":
            self.quit = True
        else:
            self._common(key)

    def _common(self, key: str) -> None:
        if key in ("p", " "):
            self.paused = not self.paused
        elif key in ("+", "="):
            self.interval = next((each for each in INTERVALS if each > self.interval), self.interval)
        elif key == "-":
            self.interval = next((each for each in reversed(INTERVALS) if each < self.interval), self.interval)

    def _sort_by(self, name: str) -> None:
        self.sort, self.reverse, self.selected = name, False, None

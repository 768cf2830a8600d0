"""What a benchmark says: progress on standard error, then tables on standard output, and all figures as JSON."""

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.figures import Spread, ratios
from portslice.cli.table import table

_began = time.monotonic()


def progress(text: str) -> None:
    """One line about what happens next."""
    print(f"[{time.monotonic() - _began:5.0f}s] {text}", file=sys.stderr, flush=True)


def milliseconds(spread: Spread) -> tuple[str, str]:
    """Two cells of a table: the median, and the quartiles, of seconds."""
    return f"{spread.median * 1000:.1f}", f"{spread.low * 1000:.1f}-{spread.high * 1000:.1f}"


@dataclass
class Report:
    """The tables of one benchmark, and the figures behind them."""

    title: str
    figures: dict[str, Any] = field(default_factory=dict)
    _parts: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        """A sentence."""
        self._parts.append(text)

    def table(self, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Columns."""
        self._parts.append(table(header, rows))

    def compare(self, name: str, found: Mapping[str, Sequence[float]], base: str, again: str, unit: str) -> None:
        """What was measured in turns, as ratios to `base`; `again` is `base` once more, and so the noise."""
        spreads = {each: Spread.of(values) for each, values in found.items()}
        relations = ratios(found, base)
        noise = relations[again]
        rows = []
        for each, spread in spreads.items():
            ratio = relations.get(each)
            verdict = "" if ratio is None or each == again else _verdict(ratio, noise)
            rows.append(
                (each, f"{spread.median:.2f}", f"{spread.low:.2f}-{spread.high:.2f}")
                + (("1", "", "") if ratio is None else (f"{ratio.median:.3f}", f"{ratio.low:.3f}-{ratio.high:.3f}"))
                + ((verdict,) if ratio is not None else ())
            )
        self.table((name, unit, "quartiles", f"of {base}", "quartiles", ""), rows)
        self.figures[name] = {
            "unit": unit,
            "medians": {each: spread._asdict() for each, spread in spreads.items()},
            f"ratio_to_{base}": {each: ratio._asdict() for each, ratio in relations.items()},
        }

    def text(self) -> str:
        """All of it."""
        return "\n\n".join([f"## {self.title}", *self._parts])


def _verdict(ratio: Spread, noise: Spread) -> str:
    return "below the noise" if noise.contains(ratio.median) else "above the noise"

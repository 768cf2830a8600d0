"""Plain tables, and what stands in them."""

from collections.abc import Iterable, Sequence


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Columns as wide as their widest cell; numbers to the right."""
    cells = [list(header), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    columns = range(len(header))
    numeric = [all(row[column][:1].isdigit() or row[column] == "-" for row in cells[1:]) for column in columns]
    lines = []
    for row in cells:
        padded = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        )
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def ports(ranges: Iterable[Sequence[int]]) -> str:
    """31000-31004,31010"""
    return ",".join(str(begin) if begin == end else f"{begin}-{end}" for begin, end in ranges) or "-"


def age(secs: float) -> str:
    """12s, 3m, 5h, 2d"""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if secs >= size:
            return f"{int(secs // size)}{unit}"
    return f"{int(secs)}s"

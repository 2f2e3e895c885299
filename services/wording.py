"""How facts are said in text, on a terminal and in a message alike: ages, times, tables in columns. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

#: Characters of a cell in a plain table.
_CELL = 100


def aligned(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> list[str]:
    """A table as lines of text: columns two blanks apart, cells on one line, at most 100 characters but for the last."""
    last = len(columns) - 1
    cells = [list(columns)] + [
        [_one_line(cell, None if place == last else _CELL) for place, cell in enumerate(row)] for row in rows
    ]
    widths = [max(len(row[place]) for row in cells) for place in range(len(columns))]
    lines = []
    for row in cells:
        parts = [
            cell.rjust(width) if name in right else cell.ljust(width)
            for cell, width, name in zip(row, widths, columns, strict=True)
        ]
        lines.append("  ".join(parts).rstrip())
    return lines


def _one_line(text: str, limit: int | None) -> str:
    line = " ".join(text.split("\n")).replace("\t", " ")
    return line if limit is None or len(line) <= limit else f"{line[: limit - 1]}…"


def age(seconds: float | None) -> str:
    """Seconds as a person says them: ``240 ms``, ``4.2 s``, ``12 s``, ``3 min``, ``2.5 h``, ``4 d``."""
    if seconds is None:
        return "never"
    if seconds < 0:
        return f"-{age(-seconds)}"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    if seconds < 172_800:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86_400:.0f} d"


def moment(at: datetime) -> str:
    """A time as lists show it: UTC, to the millisecond."""
    return f"{at:%Y-%m-%d %H:%M:%S}.{at.microsecond // 1000:03d}"


def clipped(text: str, limit: int) -> str:
    """The beginning of a text on one line, with an ellipsis if it goes on."""
    return _one_line(text, limit)

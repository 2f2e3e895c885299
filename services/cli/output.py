"""How results are printed: JSON for programs, tables with colour on a terminal, aligned plain text elsewhere.

Colour is never the only carrier of a meaning. ``NO_COLOR`` and ``TERM=dumb`` turn it off.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any, TextIO

import msgspec

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34", "cyan": "36"}
#: Characters of a cell in a plain table.
_CELL = 100


def is_terminal(stream: TextIO) -> bool:
    """Whether a person looks at the stream."""
    return stream.isatty()


def colours(stream: TextIO) -> bool:
    """Whether the stream takes colour."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, style: str, stream: TextIO | None = None) -> str:
    """The text in a style (``bold``, ``dim`` or a colour), if the stream (stdout by default) takes it."""
    stream = stream if stream is not None else sys.stdout
    return f"\x1b[{_CODES[style]}m{text}\x1b[0m" if text and colours(stream) else text


def json(value: Any) -> None:
    """Print a value as one JSON document: on one line, or indented on a terminal."""
    encoded = msgspec.json.encode(value)
    if is_terminal(sys.stdout):
        encoded = msgspec.json.format(encoded, indent=2)
    print(encoded.decode())


def note(text: str) -> None:
    """Tell the person something that is not the result: on stderr."""
    print(text, file=sys.stderr)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """Print rows under their column names.

    Args:
        columns: names, as shown.
        rows: cells, as many as columns.
        right: names of the columns that are aligned to the right.
    """
    if not is_terminal(sys.stdout):
        print("\n".join(aligned(columns, rows, right=right)))
        return
    from rich.console import Console  # noqa: PLC0415 (a tenth of a second that no script has to pay)
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in columns:
        drawn.add_column(name, justify="right" if name in right else "left", overflow="fold", no_wrap=name in right)
    for row in rows:
        drawn.add_row(*(Text(cell) for cell in row))
    Console(no_color=not colours(sys.stdout), highlight=False).print(drawn)


def aligned(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> list[str]:
    """A table as lines of text: columns two blanks apart, cells on one line, at most 100 characters but for the last. Pure."""
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
    """Seconds as a person says them: ``240 ms``, ``4.2 s``, ``12 s``, ``3 min``, ``2.5 h``, ``4 d``. Pure."""
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
    """A time as lists show it: UTC, to the millisecond. Pure."""
    return f"{at:%Y-%m-%d %H:%M:%S}.{at.microsecond // 1000:03d}"


def clipped(text: str, limit: int) -> str:
    """The beginning of a text on one line, with an ellipsis if it goes on. Pure."""
    return _one_line(text, limit)

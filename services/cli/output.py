"""How results are printed: JSON for programs, tables with colour on a terminal, aligned plain text elsewhere.

Colour is never the only carrier of a meaning. ``NO_COLOR`` and ``TERM=dumb`` turn it off.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, TextIO

import msgspec

from services.wording import age, aligned, clipped, moment

__all__ = ["age", "aligned", "clipped", "colours", "facts", "is_terminal", "json", "moment", "note", "paint", "table"]

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34", "cyan": "36"}


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


def facts(known: Iterable[tuple[str, Any]], margin: int) -> None:
    """Print what is known of one thing, one fact a line: its name, and what it is.

    Args:
        known: names and values; a moment is shown to the second, several values with commas between them.
        margin: characters that a name takes up.
    """
    for name, value in known:
        shown = f"{value:%Y-%m-%d %H:%M:%S}" if isinstance(value, datetime) else value
        shown = ", ".join(map(str, shown)) if isinstance(shown, tuple) else shown
        print(f"{paint(name.ljust(margin), 'dim')} {shown}")


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

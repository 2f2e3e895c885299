"""Rows as comma-separated values with one line feed after each (RFC 4180 but for its line ends, which no terminal wants)."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence

_END = "\r\n"


class _Lines:
    """Takes rows as the writer writes them, one at a time."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, line: str) -> None:
        """One row, with the standard's end of line."""
        self.lines.append(line.removesuffix(_END))


def separated(rows: Iterable[Sequence[object]]) -> str:
    """The rows as text. What holds a line feed or a carriage return is quoted: readers take both for the end of a row.

    The writer quotes the characters that it ends its own lines with, and no others.
    """
    into = _Lines()
    csv.writer(into, lineterminator=_END).writerows(rows)
    return "".join(f"{line}\n" for line in into.lines)

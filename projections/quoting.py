"""A text as SQL has it, where a statement takes no parameters: file names, above all."""

from __future__ import annotations


def quoted(value: object) -> str:
    """A value's text as a string of SQL."""
    return "'" + str(value).replace("'", "''") + "'"

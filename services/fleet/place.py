"""Where in a TOML text each key stands: ``tomllib`` keeps no positions.

Only for texts that ``tomllib`` has read without an error; the scanner finds its way by the same grammar, and does not
check it. A place is a line from 1; a path is a tuple of keys, with numbers for the items of arrays.
"""

from __future__ import annotations

import re
import tomllib

Path = tuple[str | int, ...]

_KEY = re.compile(r"\s*(\"(?:[^\"\\]|\\.)*\"|'[^']*'|[A-Za-z0-9_-]+)\s*")
#: Longest first: a triple quote is no empty string followed by a quote.
_STRING = re.compile(r'"""(?:[^\\]|\\.)*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:[^"\\]|\\.)*"|\'[^\']*\'', re.DOTALL)
_SCALAR = re.compile(r"[^,\]}#\r\n]*")
_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")


def places(text: str) -> dict[Path, int]:
    """Line of each key, table and array item, by its path."""
    return _Scanner(text).run()


def line_of(found: dict[Path, int], path: Path) -> int:
    """Line of a path, or of the nearest table around it; 1 for none."""
    while path and path not in found:
        path = path[:-1]
    return found.get(path, 1)


class _Scanner:
    """Walks through the text once."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._line = 1
        self._counted = 0
        self._found: dict[Path, int] = {}
        #: Number of tables so far of each array of tables.
        self._arrays: dict[Path, int] = {}

    def run(self) -> dict[Path, int]:
        table: Path = ()
        while self._skip():
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)
        return self._found

    def _skip(self) -> bool:
        """Go past blanks and comments: whether anything is left."""
        blank = _BLANK.match(self._text, self._at)
        assert blank is not None
        self._at = blank.end()
        return self._at < len(self._text)

    def _note(self, path: Path, at: int) -> None:
        self._line += self._text.count("\n", self._counted, at)
        self._counted = at
        # A table that is opened again, or by a dotted key, stays where it was first named.
        for length in range(1, len(path) + 1):
            self._found.setdefault(path[:length], self._line)

    def _key(self) -> tuple[Path, int]:
        """A dotted key, and where it begins."""
        parts: list[str] = []
        self._skip()
        begin = self._at
        while (match := _KEY.match(self._text, self._at)) is not None:
            word = match.group(1)
            parts.append(tomllib.loads(f"k = {word}")["k"] if word[0] in "\"'" else word)
            self._at = match.end()
            if self._text[self._at : self._at + 1] != ".":
                break
            self._at += 1
        return tuple(parts), begin

    def _header(self) -> Path:
        many = self._text.startswith("[[", self._at)
        self._at += 2 if many else 1
        key, begin = self._key()
        self._at += 2 if many else 1
        path: Path = ()
        for place, part in enumerate(key):
            path = (*path, part)
            if many and place == len(key) - 1:
                self._note(path, begin)
                self._arrays[path] = self._arrays.get(path, -1) + 1
            if path in self._arrays:
                path = (*path, self._arrays[path])
        self._note(path, begin)
        # A table that was named before only as part of another has its own line here.
        self._found[path] = self._line
        return path

    def _pair(self, table: Path) -> None:
        key, begin = self._key()
        path = table + key
        self._note(path, begin)
        self._at += 1  # the sign =
        self._value(path)

    def _value(self, path: Path) -> None:
        self._skip()
        opening = self._text[self._at]
        if opening == "{":
            self._items("}", path)
        elif opening == "[":
            self._items("]", path)
        else:
            pattern = _STRING if opening in "\"'" else _SCALAR
            match = pattern.match(self._text, self._at)
            assert match is not None
            self._at = match.end()

    def _items(self, closing: str, path: Path) -> None:
        """Pairs of an inline table, or items of an array."""
        self._at += 1
        number = 0
        while self._skip() and self._text[self._at] != closing:
            if self._text[self._at] == ",":
                self._at += 1
            elif closing == "}":
                self._pair(path)
            else:
                self._note((*path, number), self._at)
                self._value((*path, number))
                number += 1
        self._at += 1

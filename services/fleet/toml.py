"""Tables as TOML text: what ``tomllib`` reads back as the same tables. Pure.

Only what JSON can say is written, and of that no ``null``, which TOML has not. Texts of several lines keep their lines, so
that a person can edit them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from bus import errors

#: What a text may not hold as it is.
_ESCAPED = re.compile(r'[\x00-\x08\x0b-\x1f\x7f"\\]')
_SHORT = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\r": "\\r"}
_BARE = re.compile(r"[A-Za-z0-9_-]+")


class NotToml(errors.BusError):
    """A value that TOML cannot say."""


def dumps(tables: Mapping[str, Any]) -> str:
    """Tables as TOML.

    Raises:
        NotToml: a value is null, no finite number, or nothing of JSON's.
    """
    return "\n".join(_table(tables, ())).strip("\n") + "\n"


def _table(table: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    plain = {key: value for key, value in table.items() if not (isinstance(value, dict) and value)}
    inner = {key: value for key, value in table.items() if key not in plain}
    if path and (plain or not inner):
        yield ""
        yield f"[{'.'.join(map(_key, path))}]"
    for key, value in plain.items():
        yield f"{_key(key)} = {_value(value, (*path, key))}"
    for key, value in inner.items():
        yield from _table(value, (*path, key))


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _one_line(key)


def _value(value: Any, path: tuple[str, ...]) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return _lines(value) if "\n" in value else _one_line(value)
        case int():
            return str(value)
        case float() if math.isfinite(value):
            text = msgspec.json.encode(value).decode()
            return text if any(mark in text for mark in ".eE") else f"{text}.0"
        case list() | tuple():
            return f"[{', '.join(_value(item, path) for item in value)}]"
        case dict():
            return (
                "{ " + ", ".join(f"{_key(k)} = {_value(v, (*path, k))}" for k, v in value.items()) + " }"
                if value
                else "{}"
            )
        case _:
            raise NotToml(f"expected a value that TOML can say at {'.'.join(path)}, got: {value!r}")


def _one_line(text: str) -> str:
    return '"' + _escaped(text).replace("\n", "\\n").replace("\t", "\\t") + '"'


def _lines(text: str) -> str:
    return '"""\n' + _escaped(text) + '"""'


def _escaped(text: str) -> str:
    return _ESCAPED.sub(lambda found: _SHORT.get(found[0]) or f"\\u{ord(found[0]):04x}", text)

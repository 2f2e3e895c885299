"""One value of the registry, read and checked: what a fleet file's checks refuse is refused in a bucket as well.

A value that was put by hand is held to the same rules as the table that it stands for, but for the names of other roles:
keys come one by one, and in no order.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, TypeVar

import msgspec

from bus import errors
from services.fleet import checks
from services.fleet.file import faults_of
from services.fleet.reading import PROMPT_LIMIT, Problem

T = TypeVar("T")

#: Settings that name roles, which are other keys.
_NAMES_ROLES = ("asks", "triage")
#: Bytes of a prompt's text as JSON: an event of its change must hold it.
_ENCODED_LIMIT = 900 * 1024


class BadValue(errors.BusError):
    """A value of the registry that cannot be used."""

    def __init__(self, key: str, sentence: str) -> None:
        self.key, self.sentence = key, sentence
        super().__init__(f"{key}: {sentence}")


def text(key: str, value: bytes) -> str:
    """A prompt's text.

    Raises:
        BadValue: it is empty, too large, or no UTF-8.
    """
    _check_size(key, value)
    try:
        found = value.decode()
    except UnicodeDecodeError as exc:
        line = value.count(b"\n", 0, exc.start) + 1
        raise BadValue(key, f"line {line}: expected UTF-8, got: byte {value[exc.start]:#04x}") from exc
    if not found:
        raise BadValue(key, "expected a text, got: nothing")
    encoded = len(msgspec.json.encode(found))
    if encoded > _ENCODED_LIMIT:
        raise BadValue(key, f"expected a prompt of at most {_ENCODED_LIMIT:,} bytes as JSON, got: {encoded:,}")
    return found


def _check_size(key: str, value: bytes) -> None:
    if len(value) > PROMPT_LIMIT:
        remedy = "pass the bulk as input, or as an artifact"
        raise BadValue(key, f"expected at most {PROMPT_LIMIT:,} bytes, got: {len(value):,}; {remedy}")


def read(key: str, value: bytes, kind: type[T], prompts: Collection[str] = ()) -> T:
    """A value as the type that belongs to its key.

    Args:
        key: of the registry.
        value: JSON.
        kind: a Struct of the fleet file, or any other type of the registry.
        prompts: names that a role may name as its prompt.

    Raises:
        BadValue: it is none; the sentence says all that is wrong, with the line where that is known.
    """
    _check_size(key, value)
    known = checks.Known({}, set(prompts))
    try:
        found = msgspec.json.decode(value, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise BadValue(key, _why(value, kind, known, exc)) from exc
    problems = list(_faults(found, known, ()))
    if problems:
        raise BadValue(key, "; ".join(map(str, problems)))
    return found


def _why(value: bytes, kind: Any, known: checks.Known, exc: Exception) -> str:
    """What is wrong with a value that could not be decoded, as the fleet file's reader says it."""
    try:
        raw = msgspec.json.decode(value)
    except msgspec.DecodeError as broken:
        return f"expected JSON, got: {_with_line(str(broken), value)}"
    except (UnicodeDecodeError, RecursionError) as broken:
        return f"expected JSON, got: {broken}"
    if not isinstance(raw, dict) or not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        return str(exc)
    problems = faults_of(kind, raw, known)
    return "; ".join(map(str, problems)) or str(exc)


def _with_line(message: str, value: bytes) -> str:
    """Msgspec tells the byte; people look for a line."""
    place = message.rpartition("byte ")[2].rstrip(")")
    if not place.isdecimal():
        return message
    line = value.count(b"\n", 0, int(place)) + 1
    return f"line {line}: {message}"


def _faults(value: Any, known: checks.Known, path: tuple[str | int, ...]) -> Iterator[Problem]:
    """What the checks of the fleet file find in a value and in the tables inside it."""
    if isinstance(value, msgspec.Struct):
        values = {name: getattr(value, name) for name in value.__struct_fields__}
        check = checks.CHECKS.get(type(value))
        if check is not None:
            found: list[Problem] = []
            seen = {name: its for name, its in values.items() if name not in _NAMES_ROLES}

            def wrong(below: tuple[str | int, ...], sentence: str) -> None:
                found.append(Problem(0, ".".join(map(str, (*path, *below))), sentence))

            check(seen, known, wrong)
            yield from found
        for name, inner in values.items():
            yield from _faults(inner, known, (*path, name))
    elif isinstance(value, tuple):
        for place, inner in enumerate(value):
            yield from _faults(inner, known, (*path, place))
    elif isinstance(value, dict):
        for name, inner in value.items():
            if isinstance(inner, msgspec.Struct):
                yield from _faults(inner, known, (*path, name))

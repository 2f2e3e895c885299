"""Old shapes of events, read as if they had been written today.

An upcaster turns the data of one version into the next, as plain JSON values. The chain of a type runs from version 1 to
the version written today without a gap; :func:`check` proves it, and every process calls it before it reads anything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from bus import errors, events

Upcaster = Callable[[dict[str, Any]], dict[str, Any]]

#: CloudEvents type -> version that is written today. A type that is not named is at version 1.
CURRENT: dict[str, int] = {}

#: (CloudEvents type, version) -> what makes the next version of it.
UPCASTERS: dict[tuple[str, int], Upcaster] = {}

_decoders = {type_: msgspec.json.Decoder(struct) for type_, struct in events.CATALOGUE.items()}


def check(current: dict[str, int] | None = None, upcasters: dict[tuple[str, int], Upcaster] | None = None) -> None:
    """Prove that every chain is whole.

    Raises:
        ValueError: a type is unknown, a step is missing, or a step leads past the present version.
    """
    current = CURRENT if current is None else current
    upcasters = UPCASTERS if upcasters is None else upcasters
    for type_ in {*current, *(type_ for type_, _ in upcasters)}:
        if type_ not in events.CATALOGUE:
            raise ValueError(f"upcasters name an unknown event type: {type_!r}")
        newest = current.get(type_, 1)
        have = sorted(version for t, version in upcasters if t == type_)
        want = list(range(1, newest))
        if have != want:
            raise ValueError(f"expected upcasters of {type_} from versions {want}, got: {have}")


def read(type_: str, version: int, raw: msgspec.Raw | bytes, where: str) -> Any:
    """The data of an event as today's Struct.

    Raises:
        BadEvent: an unknown type, a version from the future, or data that does not fit the Struct.
    """
    decoder = _decoders.get(type_)
    if decoder is None:
        raise errors.BadEvent(where, f"unknown event type {type_!r}{errors.did_you_mean(type_, _decoders)}")
    newest = CURRENT.get(type_, 1)
    try:
        if version == newest:
            return decoder.decode(raw)
        if not 1 <= version < newest:
            raise errors.BadEvent(where, f"expected {type_} of version {newest} or older, got: {version}")
        return decoder.decode(_lift(type_, version, newest, raw, where))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise errors.BadEvent(where, f"data of {type_}: {exc}") from exc


def _lift(type_: str, version: int, newest: int, raw: msgspec.Raw | bytes, where: str) -> bytes:
    """Old data as JSON of the newest version. As text and not as objects, because a ``Raw`` field is filled from text only."""
    data = msgspec.json.decode(raw)
    for step in range(version, newest):
        try:
            data = UPCASTERS[type_, step](data)
        except (LookupError, TypeError, ValueError, AttributeError) as exc:
            # Data that never fitted its own version: rubbish like any other.
            raise errors.BadEvent(where, f"data of {type_}, read from version {step}: {exc!r}") from exc
    return msgspec.json.encode(data)

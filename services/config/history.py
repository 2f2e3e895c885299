"""Every revision of the settings, from the registry's events in CONTROL: who put what and why, and how it all stood then."""

from __future__ import annotations

from datetime import datetime

import msgspec

from bus import errors
from bus.events import registry as ev
from bus.events.topology import Change
from bus.store import CONTROL
from services.config import tables
from services.config.tables import Tables
from services.daemon import Bus


class Revision(msgspec.Struct, frozen=True, kw_only=True):
    """One value of one key."""

    revision: int
    key: str
    at: datetime
    #: As it lay in the bucket; None: it was taken out.
    value: bytes | None
    who: str = ""
    why: str = ""
    operation: str = ""
    #: Why it did not take effect; empty if it did.
    refused: str = ""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """What one revision changed, setting by setting."""

    revision: int
    key: str
    at: datetime
    who: str
    why: str
    operation: str
    changes: tuple[Change, ...]
    refused: str = ""


async def revisions(bus: Bus, key: str = "") -> list[Revision]:
    """The recorded revisions in their order, of all keys or of one."""
    found: list[Revision] = []
    name = key.replace(".", "_") or "*"
    async for record in bus.store.read(CONTROL, f"ctl.registry.{name}.*"):
        revision = _revision(record.data, record.stored_at)
        if revision is not None and (not key or revision.key == key):
            found.append(revision)
    return sorted(found, key=lambda one: one.revision)


def _revision(event: ev.RegistryEvent | None, at: datetime) -> Revision | None:
    match event:
        case ev.Changed():
            raw = bytes(event.value)
            text = event.key.startswith("prompts.")
            value = msgspec.json.decode(raw, type=str).encode() if text else raw
            return Revision(
                revision=event.revision, key=event.key, at=at, value=value, who=event.who, why=event.why,
                operation=event.operation,
            )  # fmt: skip
        case ev.Removed():
            return Revision(
                revision=event.revision, key=event.key, at=at, value=None, who=event.who, why=event.why,
                operation=event.operation,
            )  # fmt: skip
        case ev.Refused() if event.revision:
            return Revision(revision=event.revision, key=event.key, at=at, value=None, refused=event.sentence)
        case _:
            return None


def values_at(known: list[Revision], revision: int) -> dict[str, bytes]:
    """The values that were in effect at a revision. Pure."""
    found: dict[str, bytes] = {}
    for one in known:
        if one.revision > revision:
            break
        if one.refused:
            continue
        if one.value is None:
            found.pop(one.key, None)
        else:
            found[one.key] = one.value
    return found


def tables_at(known: list[Revision], revision: int) -> Tables:
    """The settings that were in effect at a revision. Pure.

    Raises:
        UnknownName: no revision was recorded up to it.
    """
    if not known or revision < known[0].revision:
        some = [str(one.revision) for one in known[-12:]]
        raise errors.UnknownName("revision", str(revision), some)
    return tables.of_values(values_at(known, revision))


def steps(known: list[Revision]) -> list[Step]:
    """What each revision changed, in their order. Pure."""
    found: list[Step] = []
    before: dict[str, bytes] = {}
    for one in known:
        old = {one.key: before[one.key]} if one.key in before else {}
        new = {one.key: one.value} if one.value is not None else {}
        changed: tuple[Change, ...] = ()
        if not one.refused:
            changed = tables.differences(_tables(old), _tables(new))
            before.pop(one.key, None)
            before |= new
        found.append(
            Step(
                revision=one.revision, key=one.key, at=one.at, who=one.who, why=one.why, operation=one.operation,
                changes=changed, refused=one.refused,
            )
        )  # fmt: skip
    return found


def _tables(values: dict[str, bytes]) -> Tables:
    """The tables of one key; what a fleet file does not stand for has none."""
    return tables.of_values(values)


def value_of(known: list[Revision], key: str, revision: int) -> bytes:
    """The value that a key had at a revision.

    Raises:
        UnknownName: it had none then.
    """
    found = values_at([one for one in known if one.key == key], revision).get(key)
    if found is None:
        had = [str(one.revision) for one in known if one.key == key and one.value is not None]
        raise errors.UnknownName(f"revision of {key}", str(revision), had[-12:])
    return found

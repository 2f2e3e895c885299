"""Changing the settings in effect: validated as a whole, written as a whole, and only over what was seen.

The fence is the revision of the whole bucket: whoever changes any key in between makes the write fail, and nothing is half
done.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from bus import errors
from bus.events.topology import Change
from services.config import tables
from services.config.tables import Tables
from services.daemon import Bus
from services.fleet.entries import changes, entries, provenance
from services.fleet.file import from_tables
from services.fleet.registry import Registry
from services.ops.operation import No


class Present(msgspec.Struct, frozen=True, kw_only=True):
    """The settings in effect at a moment."""

    #: Of the bucket `registry`.
    revision: int
    #: Registry values by key: of each the newest that is good.
    values: dict[str, bytes]

    @property
    def tables(self) -> Tables:
        """The same as the tables of a fleet file."""
        return tables.of_values(self.values)


async def read(bus: Bus) -> Present:
    """The settings in effect now."""
    bucket = bus.bucket("registry")
    # The revision is asked for first: what comes in between makes a write fail, and never pass.
    revision = await bucket.revision()
    registry = Registry(bucket)
    await registry.load()
    return Present(revision=revision, values=registry.values)


def checked(wanted: Tables) -> dict[str, bytes]:
    """Registry values for tables.

    Raises:
        FleetFileError: they describe no fleet; every fault is named.
    """
    fleet = from_tables(wanted, "the settings")
    return entries(fleet, {name: prompt.text for name, prompt in fleet.prompts.items()})


class Edit(msgspec.Struct, frozen=True, kw_only=True):
    """Settings to be put over those that were seen."""

    seen: Present
    values: dict[str, bytes]
    fields: tuple[Change, ...]


def prepare(seen: Present, wanted: Tables) -> Edit:
    """What has to be written to bring the settings to `wanted`. Pure.

    Raises:
        FleetFileError: they describe no fleet.
    """
    values = checked(wanted)
    return Edit(seen=seen, values=values, fields=tables.differences(seen.tables, tables.of_values(values)))


class ChangeSettings:
    """The action: new values for some settings."""

    limit_s = 30.0

    def __init__(self, bus: Bus, name: str, change: Edit, who: str, why: str) -> None:
        """`name` is what it is called: ``config``, ``rollback``."""
        self._bus = bus
        self._change = change
        self._who, self._why = who, why
        self.name = name
        self.target = _target([field.field for field in change.fields])
        #: The write itself is fenced.
        self.lock = ""

    @property
    def policy(self) -> str:
        """The limits of guards and the caps among the changed settings."""
        return ", ".join(tables.policies(self._change.fields))

    async def check(self) -> No | None:
        """Not what is needed before there is a bus, and not over settings that have changed since."""
        early = tables.unreachable(self._change.fields)
        if early:
            reason = f"expected settings that are read from the bus, got: {', '.join(early)}, which is read before there is one"
            return No(f"{reason}; change it in the fleet file, then `systems down` and `systems up`")
        return await stale(self._bus, self._change.seen.revision)

    async def carry_out(self, id_: str) -> dict[str, Any]:
        """Write all of it, or nothing."""
        revision = await write(self._bus, self._change, provenance(self._who, self._why, id_))
        return {
            "revision": revision,
            "over": self._change.seen.revision,
            "changes": self._change.fields,
            "at_next_start": tables.late(self._change.fields),
        }


async def stale(bus: Bus, revision: int) -> No | None:
    """Why settings that were seen at a revision may not be changed any more; None if nothing has changed since."""
    now = await bus.bucket("registry").revision()
    if now == revision:
        return None
    reason = f"expected the settings to be at revision {revision}, got: {now}: somebody has changed them since"
    return No(reason, f"systems config diff {revision} {now}")


async def write(bus: Bus, change: Edit, headers: Mapping[str, str]) -> int:
    """Write a change under its fence: the new revision.

    Raises:
        Conflict: the settings have changed since they were seen; nothing was written.
    """
    seen = {key: value for key, value in change.seen.values.items() if tables.is_setting(key)}
    writes = changes(seen, change.values)
    try:
        return await bus.bucket("registry").put_all(writes, expect_last=change.seen.revision, headers=headers)
    except errors.SequenceConflict as exc:
        no = await stale(bus, change.seen.revision)
        raise errors.Conflict(no.reason if no is not None else str(exc)) from exc


def _target(fields: list[str]) -> str:
    shown = ", ".join(fields[:3])
    return shown + (f" and {len(fields) - 3} more" if len(fields) > 3 else "")

"""Where the fleet is not as it is declared to be: the bus, the fleet file, what daemons run with, and refused values.

`systems drift` asks :func:`look`; the panel asks :func:`line`, which looks at the settings alone. A sweep looks at
the bus by itself. What cannot be looked at from here (a fleet file on another machine) is said to be unknown, and is no
difference.
"""

from __future__ import annotations

import platform
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from bus import errors
from bus.events.moment import Moment
from bus.events.topology import Change
from bus.liveness import Heartbeat
from bus.plan import Step
from services.config import tables
from services.daemon import Bus
from services.declaration import compare
from services.fleet.entries import entries
from services.fleet.file import LoadedFleet, load
from services.fleet.registry import Registry
from services.ops.reload import standing_fault

#: Seconds that a daemon has to say that it runs with a new revision.
_TAKEN_S = 2.0


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """A value, or a fleet file, that is not in effect."""

    key: str
    revision: int
    sentence: str
    kept: int


class ConfigLine(msgspec.Struct, frozen=True, kw_only=True):
    """How the settings stand."""

    #: Revision in effect, and since when.
    revision: int
    since: Moment | None
    #: The fleet file that was taken last; empty for none.
    file: str = ""
    #: What differs between that file as it lies on the disk and what is in effect; None: it cannot be looked at from here.
    file_changes: tuple[Change, ...] | None = None
    #: What is wrong with the file, if it cannot be used.
    file_fault: str = ""
    #: Daemons that run with an older revision, as ``name (revision 12)``.
    behind: tuple[str, ...] = ()
    #: The launcher runs its daemons by settings that have changed since it started.
    at_next_start: bool = False
    refused: tuple[Refusal, ...] = ()


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is not as declared."""

    #: Of streams, buckets and consumers.
    steps: tuple[Step, ...]
    config: ConfigLine

    @property
    def empty(self) -> bool:
        """Nothing differs."""
        config = self.config
        return not (
            self.steps
            or config.file_changes
            or config.file_fault
            or config.behind
            or config.at_next_start
            or config.refused
        )


async def look(bus: Bus) -> Drift:
    """Look at everything."""
    _, difference = await compare(bus, None, None)
    registry = Registry(bus.bucket("registry"))
    await registry.load()
    return Drift(steps=difference.steps, config=await line(bus, registry, await bus.liveness.all()))


async def line(bus: Bus, registry: Registry, beats: list[Heartbeat]) -> ConfigLine:
    """How the settings stand.

    Args:
        bus: where.
        registry: as it is now.
        beats: of the daemons.
    """
    info = await bus.connection.api("STREAM.INFO.KV_registry")
    revision = int(info["state"]["last_seq"])
    since = msgspec.convert(info["state"]["last_ts"], datetime) if revision else None
    behind, late = _behind(beats, revision, since)
    file = registry.settings.file
    changes: tuple[Change, ...] | None = None
    fault = await standing_fault(bus)
    if file is not None and file.host == (platform.node() or "localhost"):
        changes, found = _of_file(Path(file.path), registry)
        fault = found or fault
    return ConfigLine(
        revision=revision,
        since=since,
        file=file.path if file is not None else "",
        file_changes=changes,
        file_fault=fault,
        behind=behind,
        at_next_start=late,
        refused=tuple(
            Refusal(key=key, revision=it.revision, sentence=it.sentence, kept=it.kept)
            for key, it in sorted(registry.refused.items())
        ),
    )


def _behind(beats: list[Heartbeat], revision: int, since: datetime | None) -> tuple[tuple[str, ...], bool]:
    """Daemons that beat after a change and do not run with it; and whether the launcher is one of them. Pure."""
    if since is None:
        return (), False
    told = [
        beat for beat in beats if beat.at > since + timedelta(seconds=_TAKEN_S) and 0 < beat.config_revision < revision
    ]
    names = tuple(f"{b.instance} (revision {b.config_revision})" for b in told if b.daemon != "launcher")
    return names, any(beat.daemon == "launcher" for beat in told)


def _of_file(path: Path, registry: Registry) -> tuple[tuple[Change, ...] | None, str]:
    """What differs between the file on the disk and what is in effect; or what is wrong with the file."""
    try:
        loaded = load(path)
    except errors.BusError as exc:
        return None, str(exc)
    return against_file(registry.values, loaded), ""


def against_file(values: dict[str, bytes], loaded: LoadedFleet) -> tuple[Change, ...]:
    """What differs between a fleet file and the settings in effect: before is the file's. Pure."""
    wanted = entries(loaded.fleet, loaded.prompts)
    projects = {key for key in wanted if key.startswith("projects.")}
    # Projects and prompts that the file does not know of are somebody else's.
    known = {
        key: value
        for key, value in values.items()
        if key in wanted or (key.startswith("roles.") and f"projects.{key.split('.')[1]}" in projects)
    }
    return tables.differences(tables.of_values(wanted), tables.of_values(known))

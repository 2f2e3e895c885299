"""Taking the fleet file while the fleet runs: checked as a whole, written as a whole, and heard of from those who run it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from bus.bucket import Write
from bus.events import registry as ev
from bus.store import CONTROL
from services.config import tables
from services.daemon import Bus
from services.declaration import Difference, carry_out, compare, exactly, of_file, present_values
from services.fleet import entries as registered
from services.fleet.entries import FILE_KEY
from services.fleet.file import FleetFileError, LoadedFleet, load
from services.ops.operation import No
from services.warden.journal import control_id

#: Seconds that daemons have to say that they run with the new revision; what is in effect does not depend on it.
_TAKEN_S = 2.0
_LOOK_S = 0.02
_STANDING = f"ctl.registry.{control_id(FILE_KEY)}.*"


class ReloadFleet:
    """Projects, roles, prompts and settings of a fleet file, put into the registry."""

    name = "reload"
    policy = ""
    lock = "the registry"
    limit_s = 60.0

    def __init__(self, bus: Bus, file: Path, *, who: str, why: str, exact: bool = False) -> None:
        """With `exact` also what others have set since, and what the file never knew of, is made as it says."""
        self._bus = bus
        self._file = file
        self._who, self._why = who, why
        self.target = str(file)
        self._exact = exact
        self._loaded: LoadedFleet | None = None

    async def check(self) -> No | None:
        """The file is good; that it is not is also said where the panel finds it."""
        try:
            self._loaded = load(self._file)
        except FleetFileError as exc:
            event = ev.Refused(key=FILE_KEY, revision=0, sentence=str(exc), kept=await self._kept())
            await self._bus.store.append(self._bus.author.control(control_id(FILE_KEY), event))
            return No(str(exc))
        return None

    async def _kept(self) -> int:
        entry = await self._bus.bucket("registry").get(FILE_KEY)
        return entry.revision if entry is not None else 0

    async def carry_out(self, id_: str) -> dict[str, Any]:
        """Put what differs."""
        loaded = self._loaded
        assert loaded is not None  # checked before
        bucket = self._bus.bucket("registry")
        headers = registered.provenance(self._who, self._why or f"fleet file {loaded.path}", id_)
        present = await present_values(self._bus)
        wanted = (exactly if self._exact else of_file)(present, loaded)
        changed = await registered.publish(bucket, wanted, headers)
        if not changed and await standing_fault(self._bus):
            # The file is what it was before its fault: its key says that it is good again.
            await bucket.put_all(
                [Write(FILE_KEY, present[FILE_KEY])], expect_last=await bucket.revision(), headers=headers
            )
        revision = await bucket.revision()
        taken = await taken_up(self._bus, revision)
        await self._tidy(wanted)
        before, after = (tables.of_values(_good(values)) for values in (present, wanted))
        fields = tables.differences(before, after)
        return {
            "revision": revision,
            "keys": changed,
            "changes": len(fields),
            "at_next_start": tables.late(fields),
            "taken_up_after_s": taken,
        }

    async def _tidy(self, wanted: dict[str, bytes]) -> None:
        """Remove the consumers of roles that are gone; one that work waits on stays, for a person to see in `systems drift`."""
        topology, difference = await compare(self._bus, wanted, None)
        steps = tuple(step for step in difference.steps if step.action == "delete" and not step.destructive)
        await carry_out(self._bus, topology, Difference(steps=steps, registry=()))


def _good(values: dict[str, bytes]) -> dict[str, bytes]:
    """What can be shown as tables; a value that somebody has damaged is left out."""
    prompts = {key.partition(".")[2] for key in values if key.startswith("prompts.")}
    return {key: value for key, value in values.items() if not registered.fault(key, value, prompts)}


async def standing_fault(bus: Bus) -> str:
    """What is wrong with the fleet file that was to be taken last; empty if it was good."""
    last = await bus.store.last(CONTROL, _STANDING)
    return last.data.sentence if last is not None and isinstance(last.data, ev.Refused) else ""


async def taken_up(bus: Bus, revision: int) -> dict[str, float | None]:
    """Seconds until each daemon said that it runs with a revision; None for one that did not say so in time."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    found: dict[str, float | None] = {}
    while True:
        beats = [beat for beat in await bus.liveness.all() if beat.daemon in ("agent_runner", "warden")]
        for beat in beats:
            if beat.config_revision >= revision and found.get(beat.instance) is None:
                found[beat.instance] = round(loop.time() - begun, 3)
        waiting = [beat.instance for beat in beats if beat.instance not in found]
        if not waiting:
            return found
        if loop.time() - begun > _TAKEN_S:
            return found | dict.fromkeys(waiting)
        await asyncio.sleep(_LOOK_S)

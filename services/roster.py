"""Who should be there: the daemons that beat, and those whose last word in CONTROL was not that they have ended."""

from __future__ import annotations

from collections.abc import Iterable

from bus.events import daemon as ev
from bus.liveness import Heartbeat
from bus.server import EmbeddedServer
from bus.store import CONTROL
from services.daemon import Bus, control_id


async def silent(bus: Bus, beats: Iterable[Heartbeat]) -> dict[str, ev.DaemonEvent]:
    """Seats without a heartbeat whose daemon was not asked to stop, with the last that is known of it.

    The server itself is none of them: it has just answered.
    """
    beating = {control_id(beat.instance, beat.host) for beat in beats}
    info = await bus.connection.api(f"STREAM.INFO.{CONTROL}", {"subjects_filter": "ctl.daemon.>"})
    seats = {subject.split(".")[2] for subject in info["state"].get("subjects") or {}}
    found: dict[str, ev.DaemonEvent] = {}
    for seat in sorted(seats - beating):
        last = await bus.store.last(CONTROL, f"ctl.daemon.{seat}.*")
        if last is None or last.data is None or isinstance(last.data, ev.Stopped):
            continue
        if isinstance(last.data, ev.Started) and last.data.daemon == EmbeddedServer.name:
            continue
        found[seat] = last.data
    if any(isinstance(last, ev.Started) for last in found.values()):
        # It may have begun to beat after the beats were read: a daemon that comes up is not one that is gone.
        beating = {beat.boot_id for beat in await bus.liveness.all()}
        found = {
            s: last for s, last in found.items() if not isinstance(last, ev.Started) or last.boot_id not in beating
        }
    return found


async def unaccounted(bus: Bus, beats: Iterable[Heartbeat]) -> dict[str, str]:
    """Daemons that do not beat and are not known to have ended, boot id -> instance name: they may still be at work."""
    return {
        last.boot_id: seat.rpartition("_")[0]
        for seat, last in (await silent(bus, beats)).items()
        if isinstance(last, ev.Started)
    }

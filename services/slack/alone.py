"""One mirror at a time: on a bus with several launchers the oldest shows what happens, and the others stand by.

Two that read one consumer would each see half of it, and set it back under the other one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from bus import errors
from bus.liveness import Heartbeat
from services.daemon import Daemon, Evidence

log = structlog.get_logger()

#: Seconds between two looks.
_LOOK_S = 1.0


def before(own: Heartbeat, beats: Sequence[Heartbeat]) -> Heartbeat | None:
    """Who goes first: another mirror in another seat that has started earlier; None for nobody. Pure.

    One in the same seat is an earlier life of this one, whose heartbeat has not expired.
    """
    others = [beat for beat in beats if beat.daemon == own.daemon and beat.seat != own.seat]
    earlier = [beat for beat in others if (beat.started_at, beat.boot_id) < (own.started_at, own.boot_id)]
    return min(earlier, key=lambda beat: (beat.started_at, beat.boot_id), default=None)


async def turn(running: Daemon) -> None:
    """Wait until nobody goes first. The daemon must beat by now."""
    waits_for = ""
    while True:
        try:
            first = before(running.heartbeat(), await running.bus.liveness.all())
        except errors.BusError as exc:
            log.warning("slack_turn_unread", error=str(exc))
        else:
            if first is None:
                return
            heard = running.bus.author.now()
            running.evidence = lambda heard=heard: Evidence(last_empty_at=heard)  # type: ignore[misc]
            if first.boot_id != waits_for:
                waits_for = first.boot_id
                log.info("slack_stands_by", shown_by=f"{first.instance}@{first.host}", pid=first.pid)
        await asyncio.sleep(_LOOK_S)

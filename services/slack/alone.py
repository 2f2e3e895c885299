"""One mirror at a time: on a bus with several launchers the oldest shows what happens, and the others stand by.

Two that read one consumer would each see half of it, and set it back under the other one.
"""

from __future__ import annotations

import asyncio

import structlog

from bus import errors
from bus.liveness import before
from services.daemon import Daemon, Evidence

log = structlog.get_logger()

#: Seconds between two looks.
_LOOK_S = 1.0


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

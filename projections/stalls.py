"""What of a projector stands still, since when and why: said once on the bus when it begins and when it is over."""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog

from bus import errors
from bus.author import Author
from bus.events import projection as ev
from bus.store import Store

log = structlog.get_logger()

#: What may stand still.
READING, PUBLISHING = "reading", "publishing"
#: Bytes that must fit on the disk before a full one is tried again, and seconds between two looks.
_PROBE, _LOOK_S = 4 * 1024 * 1024, 1.0


class Stalls:
    """Of one projector, which `seat` names on the bus."""

    def __init__(self, store: Store, author: Author, seat: str) -> None:
        self._store = store
        self._author = author
        self._seat = seat
        #: What stands still -> (why, loop time since when).
        self._known: dict[str, tuple[str, float]] = {}

    def __bool__(self) -> bool:
        """Whether anything does."""
        return bool(self._known)

    @property
    def why(self) -> str:
        """What is in the way; empty for nothing."""
        return "; ".join(why for why, _ in self._known.values())

    async def begin(self, what: str, why: str) -> None:
        """Something stands still; what is in the way may change meanwhile."""
        known = self._known.get(what)
        self._known[what] = (why, known[1] if known is not None else asyncio.get_running_loop().time())
        if known is None:
            log.error("projector_stalled", what=what, why=why)
            await self._say(ev.Stalled(what=what, why=why))

    async def end(self, what: str) -> None:
        """It goes on, if it stood still."""
        known = self._known.pop(what, None)
        if known is not None:
            stalled_s = round(asyncio.get_running_loop().time() - known[1], 3)
            log.info("projector_resumed", what=what, stalled_s=stalled_s)
            await self._say(ev.Resumed(what=what, stalled_s=stalled_s))

    async def _say(self, event: ev.Stalled | ev.Resumed) -> None:
        try:
            await self._store.append(self._author.control(self._seat, event))
        except errors.BusError as exc:
            log.warning("projection_event_unwritten", error=str(exc))


async def room(folder: Path) -> None:
    """Wait until the disk takes something again."""
    while not await asyncio.to_thread(_has_room, folder):
        await asyncio.sleep(_LOOK_S)


def _has_room(folder: Path) -> bool:
    probe = folder / ".room"
    try:
        probe.write_bytes(bytes(_PROBE))
    except OSError:
        return False
    finally:
        probe.unlink(missing_ok=True)
    return True

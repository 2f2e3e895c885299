"""What was spent before the log's first message, read from the archive: for an account that lost its checkpoint after a trim.

A trim keeps what the caps of its time need. A cap that was set later over a longer window, as a month's where there was a
day's, needs more than the log still holds; the archive has it. Where the archive is not on this machine, or is damaged, the
account says so instead of counting less in silence.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from bus.spend import Calendar
from bus.spend.windows import KINDS
from bus.store import INVOCATIONS, Recorded

if TYPE_CHECKING:
    from projections.archive.reader import Archived

log = structlog.get_logger()

#: Events that say anything about spend.
_EVENTS = ("claimed", "completed", "failed", "swept", "released", "cancelled", "dead_lettered")
#: A claim counts in the windows of its own time: the end of one from just before a window belongs to the one before.
_MARGIN = timedelta(hours=1)


class Past:
    """Records to be read once, and then why they are not all."""

    def __init__(self, archived: Archived | None, first: int, since: datetime, problem: str) -> None:
        self._archived, self._first, self._since = archived, first, since
        #: Why it is not all; empty for nothing.
        self.problem = problem

    async def records(self) -> AsyncIterator[Recorded]:
        """In order. A damaged file ends it, and is the problem then."""
        if self._archived is None:
            return
        from projections.archive import reader  # noqa: PLC0415 (Arrow costs memory that only this needs)

        batches = reader.batches(self._archived, first=self._first, since=self._since, events=_EVENTS)
        try:
            while (batch := await asyncio.to_thread(next, batches, None)) is not None:
                for record in batch:
                    yield record
        except reader.Unreadable as exc:
            self.problem = str(exc)


def since(calendar: Calendar, now: datetime) -> datetime:
    """When the longest window began that may count now."""
    return min(calendar.span(kind, now).start for kind in KINDS) - _MARGIN


async def spend(archive: Path, created: str, first: int, since: datetime) -> Past:
    """What the archive has of a stream before its present first sequence, since a moment."""
    if not archive.is_dir():
        problem = (
            f"expected the archive of what was trimmed in {archive}, got: no such folder; earlier spend does not count"
        )
        return Past(None, first, since, problem)
    from projections.archive import reader  # noqa: PLC0415 (Arrow costs memory that only this needs)

    found = await asyncio.to_thread(reader.before, archive, INVOCATIONS, created, first, since)
    log.info("spend_recalled", files=len(found.segments), since=since.isoformat(), before=first)
    return Past(found, first, since, found.problem)

"""Copies of the archive's files in a store: made and proven one by one. A store that is away is asked again, ever more rarely."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import structlog

from bus.author import Author
from projections.archive import register
from projections.archive import store as stores
from projections.archive.manifest import Fault
from projections.archive.segment import Step
from projections.database import Database

log = structlog.get_logger()

#: Seconds until a store that was away is asked again, doubled up to the second.
_AWAY_S, _AWAY_MAX_S = 5.0, 300.0


class Copies:
    """What goes from one folder to one store."""

    def __init__(self, root: Path, access: stores.Access | None, author: Author, step: Step) -> None:
        """Make it; without `access` nothing goes anywhere."""
        self._root = root
        self._access = access
        self._author = author
        self._step = step
        self._away_s = _AWAY_S
        self._away_until = 0.0
        #: Why the store cannot be used now; empty for no reason.
        self.away = ""

    async def make(
        self, database: Database, entries: Sequence[register.Entry], report: Callable[[Fault], Awaitable[None]]
    ) -> None:
        """Copy what has no proven copy yet, unless the store was away a moment ago.

        Raises:
            PrimaryError: see :mod:`projections.faults`.
        """
        access, loop = self._access, asyncio.get_running_loop()
        if access is None or loop.time() < self._away_until:
            return
        try:
            target = stores.open_store(access)
            for entry in entries:
                if entry.copied_to != target.url and not entry.problem:
                    await self._copy(database, target, entry, report)
        except (stores.StoreAway, stores.BadStore) as exc:
            if not self.away:
                log.warning("archive_store_away", store=access.url, error=str(exc), again_s=self._away_s)
            self.away = str(exc)
            self._away_until = loop.time() + self._away_s
            self._away_s = min(_AWAY_MAX_S, 2 * self._away_s)
            return
        if self.away:
            log.info("archive_store_back", store=access.url)
        self.away, self._away_s = "", _AWAY_S

    async def _copy(
        self,
        database: Database,
        target: stores.Store,
        entry: register.Entry,
        report: Callable[[Fault], Awaitable[None]],
    ) -> None:
        one = entry.segment
        self._step("copy")
        found = await asyncio.to_thread(stores.keep, target, self._root, one)
        if found is not None:
            await report(found)
            raise stores.StoreAway(target.url, found.sentence)
        self._step("copied")
        at = self._author.now()
        await database.run(lambda con: register.copied(con, one, target.url, at))
        log.info("segment_copied", segment=str(one), store=target.url)

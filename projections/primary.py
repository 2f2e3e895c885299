"""Which primary file is written to, which one is asked, and the change from one to the next.

New tables are made in ``primary.next.duckdb``, beside what is there: at a fleet's first start, for another version of the
tables, after damage, and for a stream that was made anew. Until they have caught up, the published copy is the last one of
the former tables, and queries are answered from those if they can still be read. Then the next file takes the primary's
name. A process that dies in between goes on where it was: everything it needs to know is in the next file itself.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import duckdb
import msgspec
import structlog

from projections import faults
from projections.database import VERSION, Database, Made, Settings, remove, wal

log = structlog.get_logger()

#: Seconds that a query waits for a file that is being opened.
_PATIENCE_S = 5.0
#: How a damaged file, and one of another history, are named when they are set aside.
BROKEN, FORMER = "broken", "former"


class Files(msgspec.Struct, frozen=True):
    """Where the files are."""

    #: Private to the projector.
    folder: Path
    #: The copy for everybody.
    published: Path

    @property
    def primary(self) -> Path:
        """The tables."""
        return self.folder / "primary.duckdb"

    @property
    def next(self) -> Path:
        """Tables that are being made."""
        return self.folder / "primary.next.duckdb"


class Primary:
    """The primary file, whichever it is."""

    def __init__(self, files: Files, settings: Settings, now: Callable[[], datetime]) -> None:
        self._files = files
        self._settings = settings
        self._now = now
        #: What is written to.
        self.database = Database(files.primary, settings)
        #: Former tables that queries are answered from while others are made.
        self._former: Database | None = None
        #: It was read as a whole by this process, and found good.
        self._checked = False
        self._open = threading.Event()
        #: The tables are still to catch up for the first time.
        self.building = False

    @property
    def ready(self) -> bool:
        """There are tables that have caught up once, and they are open."""
        return self._open.is_set() and not self.building

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A session for queries: :meth:`projections.database.Database.cursor`.

        In a thread of its own it waits some seconds for a file that is just being opened; on the event loop it does not.

        Raises:
            PrimaryUnready: nothing that is whole can be asked yet.
        """
        if not _on_loop():
            self._open.wait(_PATIENCE_S)
        if self.building and self._former is None:
            raise faults.PrimaryUnready(
                "expected tables that hold all that happened, got: they are being made from archive and streams; "
                "ask again when `systems status` says that they follow"
            )
        return (self._former or self.database).cursor()

    async def open(self) -> None:
        """Open what is there, and begin anew beside what cannot be gone on with.

        Raises:
            PrimaryLocked, NoRoom: see :mod:`projections.faults`.
        """
        await self.close()
        await self._find()
        self._open.set()

    async def _find(self) -> None:
        if await self._go_on():
            return
        if not self._files.primary.exists():
            await self._begin("", "")
            return
        database = Database(self._files.primary, self._settings)
        try:
            await database.open(Made(made_at=self._now()), check=not self._checked)
        except faults.PrimaryDamaged as exc:
            await database.end()
            await self._begin(str(exc), BROKEN)
            return
        except BaseException:
            await database.end()
            raise
        self._checked = True
        if database.made.version == VERSION:
            self.database, self.building = database, False
            return
        self._former = database
        await self._begin(f"expected tables of version {VERSION}, got: {database.made.version or 'none of ours'}", "")

    def doubt(self) -> None:
        """Damage was met: the next time that the file is opened all of it is read."""
        self._checked = False

    async def renew(self, why: str, aside: str = "") -> None:
        """Begin anew: nothing that the present tables hold goes into the new ones.

        Args:
            why: the reason, for the event.
            aside: under which word the present file is kept; empty to answer from it until the new one has caught up, and drop it.
        """
        if self.building:
            why, aside = self.database.made.why or why, self.database.made.aside
            await self.close()
            remove(self._files.next)
            await self._begin(why, aside, named=True)
        else:
            await self.close()
            await self._begin(why, aside)
            if not aside and self._files.primary.exists():
                await self._serve_former()
        self._open.set()

    async def switch(self) -> None:
        """Let the next file be the primary.

        Raises:
            Busy: a query is in the way; nothing has changed.
        """
        await self.database.checkpoint()
        made = self.database.made
        await self.close()
        if self._files.primary.exists():
            if made.aside:
                _rename(self._files.primary, self._files.folder / made.aside)
            else:
                remove(self._files.primary)
        _rename(self._files.next, self._files.primary)
        self.database = Database(self._files.primary, self._settings)
        await self.database.open(made, check=False)
        self.building = False
        self._open.set()
        log.info("tables_switched", version=made.version, why=made.why, aside=made.aside)

    async def close(self) -> None:
        """Close all files, after what is under way."""
        self._open.clear()
        if self._former is not None:
            await self._former.end()
            self._former = None
        await self.database.end()
        self.database = Database(self.database.file, self._settings)

    async def _go_on(self) -> bool:
        """Open the next file, if there is one that is good."""
        if not self._files.next.exists():
            return False
        database = Database(self._files.next, self._settings)
        try:
            await database.open(Made(made_at=self._now()))
        except faults.PrimaryDamaged as exc:
            log.warning("next_damaged", error=str(exc), action="making another")
            good = False
        except BaseException:
            await database.end()
            raise
        else:
            good = database.made.version == VERSION
        if not good:
            await database.end()
            remove(self._files.next)
            return False
        self.database, self.building = database, True
        if not database.made.aside and self._files.primary.exists():
            await self._serve_former()
        return True

    async def _serve_former(self) -> None:
        former = Database(self._files.primary, self._settings)
        try:
            await former.open(Made(made_at=self._now()), check=False)
        except faults.PrimaryError as exc:
            log.warning("former_unreadable", error=str(exc))
            await former.end()
        else:
            self._former = former

    async def _begin(self, why: str, aside: str, *, named: bool = False) -> None:
        now = self._now()
        name = aside if named or not aside else f"primary.{aside}-{now:%Y%m%dT%H%M%S}.duckdb"
        database = Database(self._files.next, self._settings)
        try:
            await database.open(Made(made_at=now, why=why, aside=name))
        except BaseException:
            await database.end()
            raise
        self.database, self.building = database, True
        if why:
            log.warning("tables_made_anew", why=why, aside=name)


def _on_loop() -> bool:
    """Whether the caller would hold up the event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _rename(file: Path, to: Path) -> None:
    """Give a closed file another name, with its write-ahead log, which goes first: without it the file is older, and not wrong."""
    if wal(file).exists():
        wal(file).replace(wal(to))
    else:
        wal(to).unlink(missing_ok=True)
    file.replace(to)

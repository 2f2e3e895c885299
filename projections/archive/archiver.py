"""The archiver: closes files, has copies made of them, and trims the stream. A task inside the projector.

Each step may be cut off by ``kill -9`` and done again: what was not finished is a leftover that the next start removes, what
was finished and not registered is registered by it. A full disk, a store that is away, a server that does not answer: nothing
is lost, nothing is trimmed, the reason is in :attr:`Archiver.problem`, and it is tried again.

Of all side effects that a projector could have these are the only ones: files of the archive, their copies, trims of
INVOCATIONS, and the events that say so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

import duckdb
import msgspec
import structlog

from bus import errors
from bus.author import Author
from bus.connection import Connection
from bus.events import archive as ev
from bus.gate import Gate
from bus.ids import key_id
from bus.store import CONTROL, INVOCATIONS, Store
from projections import positions
from projections.archive import closing, holds, manifest, mend, register, segment, trim
from projections.archive import store as stores
from projections.archive.copies import Copies
from projections.archive.manifest import Fault, Segment
from projections.archive.segment import Step
from projections.archive.trim import Decision, Facts
from projections.database import Database

log = structlog.get_logger()

T = TypeVar("T")
#: Seconds between two looks whether a file is to be closed or copied, and between two decisions about a trim.
_LOOK_S, _TRIM_S = 5.0, 60.0


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How to archive."""

    #: ``HOME/archive``.
    root: Path
    segment_rows: int = closing.SEGMENT_ROWS
    #: Seconds that messages stay in the stream at least.
    hot_s: float = 7 * 86_400.0
    #: Where copies go; None for the local folder alone.
    access: stores.Access | None = None


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """How the archiver is doing, for people and programs."""

    #: By stream: the last sequence that is archived.
    archived: dict[str, int]
    #: Where copies go; empty for nowhere.
    store: str
    #: Files that have no proven copy yet.
    uncopied: int
    #: Why something waits; empty for nothing.
    problem: str
    trim: Decision | None = None


class Archiver:
    """Looks, closes, copies, trims."""

    def __init__(
        self,
        settings: Settings,
        database: Callable[[], Database | None],
        *,
        connection: Connection,
        store: Store,
        author: Author,
        gate: Gate,
        publish: register.Publish,
        windows: Callable[[datetime], datetime | None] = lambda _now: None,
        step: Step = lambda _name: None,
    ) -> None:
        """Make it.

        Args:
            settings: see there.
            database: the projector's primary file; None while other tables are made.
            connection: to the bus.
            store: of the bus.
            author: who writes the events.
            gate: says when a freeze stands.
            publish: makes the public views anew.
            windows: when the longest window began that a cap on spend counts over, at a moment; None for no cap.
            step: see :data:`projections.archive.segment.Step`.
        """
        self.settings = settings
        self._open = database
        #: When the tables were made that folder and tables were brought together for.
        self._begun: datetime | None = None
        self._connection, self._store, self._author, self._gate = connection, store, author, gate
        self._publish = publish
        self._windows = windows
        self._step = step
        self._turn = asyncio.Lock()
        self._wake = asyncio.Event()
        self._copies = Copies(settings.root, settings.access, author, step)
        self._waits = ""
        self._trimmed_at = float("-inf")
        self._doubt = False
        #: Decision of the last look.
        self.decision: Decision | None = None

    @property
    def problem(self) -> str:
        """Why something waits; empty for nothing."""
        return self._waits or self._copies.away

    async def run(self) -> None:
        """For ever."""
        while True:
            await self.look()
            self._wake.clear()
            try:
                async with asyncio.timeout(_LOOK_S):
                    await self._wake.wait()
            except TimeoutError:
                continue

    @property
    def _database(self) -> Database:
        database = self._open()
        if database is None:
            raise errors.Conflict(
                "expected tables that have caught up, got: they are being made or opened; the archive waits for them"
            )
        return database

    async def _begin(self) -> None:
        """Bring folder and tables together after whatever ended the last process, or made other tables."""
        made = self._database.made.made_at
        if made == self._begun:
            return
        self.settings.root.mkdir(parents=True, exist_ok=True)
        await trim.resume(self.settings.root, connection=self._connection, store=self._store, author=self._author)
        known = await self._read(register.keys)
        inventory = await asyncio.to_thread(manifest.scan, self.settings.root, known=known)
        for path in inventory.leftovers:
            log.info("leftover_removed", file=str(path))
            path.unlink(missing_ok=True)
        for fault in inventory.faults:
            await self._report(fault)
        await self._survey()
        eras = await self._eras()
        current = [one for one in inventory.segments if eras.get(one.stream) == one.created]
        added = await self._database.run(lambda con: register.add(con, current, self._publish))
        log.info("archive_opened", files=len(known) + added, registered=added)
        self._begun = made

    async def look(self, *, at_once: bool = False, doubt: bool = False) -> None:
        """Do once whatever is due.

        Args:
            at_once: close files with all that is there, and decide about a trim, due or not.
            doubt: take the checksum of every file, and mend what can be mended.
        """
        async with self._turn:
            self._doubt = self._doubt or doubt
            try:
                await self._begin()
                loop_time = asyncio.get_running_loop().time()
                rarely = at_once or loop_time - self._trimmed_at >= _TRIM_S
                if rarely or self._doubt:
                    await self._survey()
                await self._close(at_once=at_once)
                await self._copies.make(self._database, await self._read(register.entries), self._report)
                if rarely:
                    self._trimmed_at = loop_time
                    await self._trim()
            except (errors.BusError, OSError, duckdb.Error) as exc:
                # A file that rotted in the middle is met by whoever reads it: the next look takes all checksums.
                self._doubt = self._doubt or isinstance(exc, duckdb.Error)
                if self._waits != str(exc):
                    log.warning("archiver_waits", error=str(exc), again_s=_LOOK_S)
                self._waits = str(exc)
            else:
                self._waits = ""

    async def _read(self, work: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        """Run something beside the connection that writes, in a thread of its own: it sees what is committed."""
        session = self._database.cursor()
        try:
            return await asyncio.to_thread(work, session)
        finally:
            session.close()

    async def _eras(self) -> dict[str, str]:
        """When each stream was made whose rows the tables hold: what the tables say counts, not what the server says now."""
        return {stream: position.era for stream, position in (await self._read(positions.read)).items()}

    async def _close(self, *, at_once: bool) -> None:
        now = self._author.now()
        # What comes while files are written at once waits for the next time.
        wanted = {rows.stream: rows.last for rows in await self._read(closing.waiting)} if at_once else {}
        eras = await self._eras()
        while True:
            closed = 0
            for rows in await self._read(closing.waiting):
                edges = await self._read(partial(closing.edges, rows=rows, limit=self.settings.segment_rows))
                last = closing.decide(rows, edges, now, wanted=wanted.get(rows.stream, 0))
                if last:
                    await self._write(rows.stream, eras[rows.stream], last)
                    closed += 1
            if not closed:
                return

    async def _write(self, stream: str, era: str, last: int) -> None:
        first = await self._read(partial(holds.reach, stream=stream, created=era)) + 1
        source = segment.source_of("hot.log", stream, first, last)
        for gap in await self._read(partial(segment.absences, source=source, first=first)):
            await closing.confirm(self._connection, self._store, stream, era, gap)
        made = await self._read(
            partial(
                segment.write,
                root=self.settings.root,
                stream=stream,
                created=era,
                first=first,
                last=last,
                step=self._step,
            )
        )
        self._step("register")
        await self._database.run(lambda con: register.add(con, [made], self._publish))
        self._step("registered")

    async def status(self) -> Status:
        """How it is doing.

        Raises:
            BusError: the tables or the server cannot be asked.
        """
        registered = await self._read(register.entries)
        eras = await self._eras()
        access = self.settings.access
        current = {
            stream: [e.segment for e in registered if (e.segment.stream, e.segment.created) == (stream, era)]
            for stream, era in eras.items()
        }
        return Status(
            archived={stream: manifest.reach(found) for stream, found in current.items()},
            store=access.url if access is not None else "",
            uncopied=sum(e.copied_to != access.url for e in registered) if access is not None else 0,
            problem=self.problem,
            trim=trim.decide(await self.facts()),
        )

    async def facts(self) -> Facts:
        """What a trim is decided from.

        Raises:
            BusError: the server does not answer.
        """
        info = await self._connection.api(f"STREAM.INFO.{INVOCATIONS}")
        state = info["state"]
        now = self._author.now()
        if state["last_seq"]:
            # Of two clocks the one that is behind counts: a wrong one only delays. A stream that never held anything has none.
            now = min(now, msgspec.convert(state["last_ts"], datetime))
        store = self.settings.access.url if self.settings.access is not None else ""
        window = self._windows(now)
        refused = "a freeze stands" if self._gate.closed else self._copies.away
        query = holds.Query(
            created=info["created"],
            now=now,
            hot_s=self.settings.hot_s,
            window=window,
            store=store,
            first=state["first_seq"],
        )
        found = await self._read(lambda con: holds.of_tables(con, self.settings.root, query))
        consumers = await holds.of_consumers(self._connection, INVOCATIONS)
        return Facts(
            created=info["created"],
            first=state["first_seq"],
            last=state["last_seq"],
            before=query.before,
            holds=(*found, *consumers),
            refused=refused,
        )

    async def _trim(self) -> None:
        facts = await self.facts()
        decision = self.decision = trim.decide(facts)
        if decision.count <= 0:
            return
        found = await self._prove(facts, decision)
        if found is not None:
            fault, broken = found
            await self._report(fault)
            await self.mend(broken)
            return  # proven at the next look
        # The tables must know by themselves what the stream forgets: which files are registered, and how far they are.
        await self._database.checkpoint()
        if self._gate.closed:
            return
        await trim.carry_out(
            facts,
            decision,
            stream=INVOCATIONS,
            root=self.settings.root,
            connection=self._connection,
            store=self._store,
            author=self._author,
            step=self._step,
        )

    async def _prove(self, facts: Facts, decision: Decision) -> tuple[Fault, Segment] | None:
        """Read again, here and in the store, every file that the stream is about to rely on.

        Raises:
            StoreAway: the store cannot be asked now.
        """
        access = self.settings.access
        for entry in await self._read(lambda con: register.entries(con, INVOCATIONS, facts.created)):
            one = entry.segment
            if one.last < facts.first or one.first > decision.up_to:
                continue
            found = await asyncio.to_thread(segment.check, self.settings.root, one)
            if found is None and access is not None:
                found = await asyncio.to_thread(stores.prove, stores.open_store(access), one)
            if found is not None:
                return found, one
        return None

    async def mend(self, broken: Segment) -> bool:
        """Make a damaged file again, or leave it out of the views: whether it is sound now.

        Raises:
            BusError: server or store do not answer.
        """
        info = await self._connection.api(f"STREAM.INFO.{broken.stream}")
        target = stores.open_store(self.settings.access) if self.settings.access is not None else None
        found = await mend.mend(
            self.settings.root,
            broken,
            created=info["created"],
            first=info["state"]["first_seq"],
            bus=self._store,
            target=target,
            now=self._author.now(),
        )
        if found.segment is None:
            problem = "the file is damaged, and neither a copy nor the stream has its messages"
            await self._database.run(lambda con: register.spoiled(con, [(broken, problem)], self._publish))
            return False
        made = found.segment
        await self._database.run(lambda con: register.spoiled(con, [(made, "")], self._publish))
        repaired = ev.Repaired(stream=made.stream, first=made.first, last=made.last, file=made.key, source=found.source)
        await self._store.append(self._author.control(made.stream, repaired))
        return True

    async def _survey(self) -> None:
        """Look whether each file is there in its full size (in doubt: with its checksum), leave out those that are not, and mend what can be mended."""
        look, self._doubt = (segment.check if self._doubt else segment.glance), False
        registered = await self._read(register.entries)
        found: list[tuple[Segment, Fault]] = []
        for entry in registered:
            fault = await asyncio.to_thread(look, self.settings.root, entry.segment)
            if fault is not None and not entry.problem:
                found.append((entry.segment, fault))
        if found:
            # First of all: while the views read a file that is gone, nobody can ask for the others.
            spoiled = [(one, fault.sentence) for one, fault in found]
            await self._database.run(lambda con: register.spoiled(con, spoiled, self._publish))
        for _, fault in found:
            await self._report(fault)
        for one in (*(one for one, _ in found), *(entry.segment for entry in registered if entry.problem)):
            await self.mend(one)

    async def _report(self, fault: Fault) -> None:
        """Say it once."""
        log.error("archive_damaged", stream=fault.stream, file=fault.where, problem=fault.sentence)
        event = self._author.control(
            fault.stream,
            ev.Damaged(
                stream=fault.stream, first=fault.first, last=fault.last, file=fault.where, problem=fault.sentence
            ),
            event_id=key_id("archive.damaged", f"{fault.where}/{fault.sentence}"),
        )
        last = await self._store.last(CONTROL, event.subject)
        if last is None or last.event is None or last.event.id != event.id:
            await self._store.append(event)

"""The projector: follows the event streams and keeps the tables in step with them. No side effects but its own tables.

::

    INVOCATIONS ─┐ Follower   decode                        one worker thread
    CONTROL      ├─────────> rows of the log ──> Buffer ──> one transaction a batch: rows and positions
    DEAD_LETTERS │                                              │ changed
    ADVISORIES  ─┘                                              └──> Snapshot: fleet.duckdb, at a pace

The slower the tables are, the more rows have come meanwhile and the larger is the next batch, which costs less for each row.

Where it stands is in the file, so an end at any moment repeats nothing and skips nothing. What is wrong with the file is met
in one way: everything is dropped, the file opened again or made anew, and the streams read on from what it says.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Protocol

import duckdb
import msgspec
import pyarrow as pa
import structlog

from bus import errors
from bus.author import Author
from bus.connection import Connection
from bus.events import projection as ev
from bus.follower import Follower
from bus.ids import key_id
from bus.store import Store
from projections import faults, reject, snapshot, stalls, streams
from projections.buffer import BATCH, CHUNK, Buffer
from projections.database import UNSETTLED, VERSION, Database, Settings
from projections.goal import Goal
from projections.log import STREAMS
from projections.partition import Partition
from projections.positions import Position
from projections.primary import FORMER, Files, Primary
from projections.snapshot import Pace
from projections.stalls import Stalls
from projections.standing import Lag, Snapshot, State, Status
from projections.streams import AnotherHistory

log = structlog.get_logger()

#: Seconds from the end of a transaction to the next one that does not fill a batch: a transaction costs the same for 1 event.
LINGER_S = 0.1
#: Messages that may be on their way from the server, and bytes that one pull brings.
CAPACITY = 20_000
PULL_BYTES = 16 * 1024 * 1024
#: Seconds until something that does not work is tried again, at first and at most.
_AGAIN_S, _AGAIN_MOST_S = 0.25, 5.0
#: Seconds without news after which new tables look again what they are to reach.
_LOOK_S = 1.0


class History(Protocol):
    """What was moved out of the streams and of the primary."""

    async def restore(self, database: Database) -> None:
        """Fill new tables with all that is archived, and set their positions."""
        ...

    async def tend(self, database: Database) -> None:
        """Move out what may be. Called between changes, before a copy is published."""
        ...


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How a projector works."""

    files: Files
    #: Names it on the bus: a subject token.
    seat: str
    settings: Settings = Settings()
    pace: Pace = Pace()
    linger_s: float = LINGER_S
    #: Bytes of rows that call for a checkpoint, copy or no copy.
    unsettled: int = UNSETTLED
    #: Which of several projectors this is.
    partition: Partition = Partition()


class _Renewed(Exception):
    """Somebody wants the tables made anew."""


class Projector:
    """Reads, applies, publishes."""

    def __init__(
        self, connection: Connection, store: Store, author: Author, options: Options, history: History | None = None
    ) -> None:
        self._connection = connection
        self._store = store
        self._author = author
        self._options = options
        self._history = history
        self.primary = Primary(options.files, options.settings, author.now)
        self._followers: dict[str, Follower] = {}
        #: When each stream was made.
        self._eras: dict[str, str] = {}
        self._buffer = Buffer(self._eras, options.partition)
        self._changed = asyncio.Event()
        #: A copy was begun and is not made.
        self._copying = False
        self._state = State.STARTING
        self._stalls = Stalls(store, author, options.seat)
        #: What new tables must reach; empty when they have.
        self._goal = Goal(connection)
        #: Set, and replaced by another, whenever rows were applied or the tables are other ones.
        self._moved = asyncio.Event()
        #: How far each stream is in the tables.
        self.positions: dict[str, Position] = {}
        #: Messages applied since the start.
        self.applied = 0
        self.published: Snapshot | None = None
        self._period_s = options.pace.least_s
        #: Why somebody wants the tables made anew; empty for nobody.
        self._renewal = ""
        self._asked = asyncio.Event()
        self._last_at: datetime | None = None

    async def run(self) -> None:
        """For ever.

        Raises:
            duckdb.Error: a statement of ours is wrong, whatever it is given.
        """
        pause = _AGAIN_S
        try:
            while True:
                before = self.applied
                try:
                    await self._cycle()
                except faults.NoRoom as exc:
                    await self._stalls.begin(stalls.READING, str(exc))
                    await stalls.room(self._options.files.folder)
                except (faults.PrimaryLocked, errors.ServerError) as exc:
                    await self._stalls.begin(stalls.READING, str(exc))
                    await asyncio.sleep(pause)
                except errors.BusUnreachable as exc:
                    log.warning("projector_waits", error=str(exc))
                    await asyncio.sleep(pause)
                except _Renewed as exc:
                    await self.primary.renew(str(exc))
                except AnotherHistory as exc:
                    await self.primary.renew(str(exc), FORMER)
                except faults.PrimaryDamaged as exc:
                    # Found while it was in use: the next look reads all of it.
                    log.error("primary_damaged", error=str(exc))
                    self.primary.doubt()
                except faults.PrimaryInvalidated as exc:
                    log.warning("primary_opened_again", error=str(exc))
                pause = _AGAIN_S if self.applied > before else min(_AGAIN_MOST_S, pause * 2)
        finally:
            await self.primary.close()

    def renew(self, why: str) -> None:
        """Have the tables made anew from archive and streams; the present ones answer until the new ones have caught up."""
        self._renewal = why
        self._asked.set()

    async def caught_up(self) -> None:
        """Wait until the tables hold all that the streams hold now: new ones that are made, or are to be made, are waited for.

        Raises:
            ServerError, Unanswered: the server does not say how far the streams go.
        """
        goal = Goal(self._connection)
        await goal.set()
        while self._asked.is_set() or not self.primary.ready or goal.missed(self.positions):
            moved = self._moved
            try:
                async with asyncio.timeout(_LOOK_S):
                    await moved.wait()
            except TimeoutError:
                await goal.look_again()

    async def _renewed(self) -> None:
        await self._asked.wait()
        self._asked.clear()
        raise _Renewed(self._renewal)

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A session for queries; see :meth:`projections.database.Database.cursor`."""
        return self.primary.cursor()

    @property
    def waiting(self) -> int:
        """Messages that were read and are not in the tables yet."""
        return self._buffer.count

    @property
    def last_answer_at(self) -> datetime | None:
        """When the server last said something on the stream on which it has been silent for longest."""
        answers = [follower.last_answer_at for follower in self._followers.values()]
        known = [answer for answer in answers if answer is not None]
        if len(known) < len(STREAMS):
            return None
        return self._author.now() - timedelta(seconds=asyncio.get_running_loop().time() - min(known))

    @property
    def last_message_at(self) -> datetime | None:
        """When rows were last applied."""
        return self._last_at

    async def status(self) -> Status:
        """How it stands, by what the server says now.

        Raises:
            ServerError, Unanswered: it does not say.
        """
        return Status(
            state=State.STALLED if self._stalls else self._state,
            problem=self._stalls.why,
            lags=await self._lags(),
            version=VERSION,
            published=self.published,
            period_s=self._period_s,
        )

    async def _lags(self) -> tuple[Lag, ...]:
        now = self._author.now()
        looks = (streams.lag(self._connection, stream, self.positions.get(stream), now) for stream in STREAMS)
        return tuple(await asyncio.gather(*looks))

    async def _cycle(self) -> None:
        """Open the file, and read and apply until something is wrong."""
        await self.primary.open()
        building = self.primary.building
        self._state = State.BUILDING if building else State.FOLLOWING
        if building and self._history is not None and not await self.primary.database.positions():
            await self._history.restore(self.primary.database)
        self.positions = {}
        found = await self.primary.database.positions()
        self._eras = {s: await streams.identify(self._connection, s, found.get(s)) for s in STREAMS}
        self.positions = found
        self._goal.clear()
        if building:
            await self._goal.set()
        self._buffer = Buffer(self._eras, self._options.partition)
        self._changed = asyncio.Event()
        self._changed.set()
        work = [self._write(), self._publish(), self._renewed(), *(self._read(stream) for stream in STREAMS)]
        tasks = [asyncio.create_task(each) for each in work]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._followers.clear()

    async def _read(self, stream: str) -> None:
        """Messages of one stream, from its position on."""
        position = self.positions.get(stream) or Position(0, 0, self._eras[stream])

        async def begin() -> None:
            at = self.positions.get(stream, position)
            await streams.identify(self._connection, stream, at)

        self._followers[stream] = follower = Follower(
            self._connection,
            stream,
            [],
            start=position.seq + 1,
            capacity=CAPACITY,
            max_bytes=max(PULL_BYTES, 2 * self._connection.nc.max_payload),
            on_begin=begin,
        )
        async for batch in follower.batches(CHUNK):
            await self._buffer.put(stream, batch)
            # What lies ready is taken without waiting: others have their turn in between.
            await asyncio.sleep(0)

    async def _write(self) -> None:
        """Apply what was read, one transaction after the other; readers and the decoder make the next one ready meanwhile."""
        loop = asyncio.get_running_loop()
        ended = float("-inf")
        while True:
            await self._reach()
            await self._buffer.wait(1, _LOOK_S if self._goal else None)
            if not self._buffer.count:
                await self._goal.look_again()
                continue
            await self._buffer.wait(BATCH, max(0.0, ended + self._options.linger_s - loop.time()))
            await self._apply(*await self._buffer.take())
            ended = loop.time()

    async def _apply(self, rows: pa.Table, positions: dict[str, Position]) -> None:
        """One transaction."""
        database = self.primary.database
        try:
            await database.apply(rows, positions)
        except duckdb.Error as exc:
            # Not the file: something in a row that no table can hold. It is found, rejected, and everything else applied.
            log.error("batch_refused", rows=rows.num_rows, error=str(exc))
            if isinstance(exc, duckdb.OutOfMemoryException):
                await (
                    database.checkpoint()
                )  # or rows that are still to be put into the file: smaller pieces fit beside none
            await reject.divide(database, rows, self._eras, exc)
        self.positions = self.positions | positions
        self.applied += rows.num_rows
        self._last_at = self._author.now()
        await self._stalls.end(stalls.READING)
        self._changed.set()
        self._move()
        await database.settle(self._options.unsettled)

    async def _reach(self) -> None:
        """Switch to new tables that have caught up."""
        if not self.primary.building or self._goal.missed(self.positions):
            return
        while True:
            try:
                await self.primary.switch()
            except faults.Busy:
                await asyncio.sleep(_AGAIN_S)
            else:
                break
        self._goal.clear()
        self._state = State.FOLLOWING
        self._changed.set()
        self._move()
        await self._tell()

    def _move(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()

    async def _tell(self) -> None:
        """Say once that the tables are new."""
        made = self.primary.database.made
        if not made.why or made.told:
            return
        took = (self._author.now() - made.made_at).total_seconds()
        event = ev.Rebuilt(why=made.why, aside=made.aside, version=made.version, took_s=round(max(0.0, took), 3))
        # The id is theirs: saying it again after a crash is saying it once.
        id_ = key_id("projection.rebuilt", f"{self._options.seat}/{made.made_at.isoformat()}")
        await self._store.append(self._author.control(self._options.seat, event, event_id=id_))
        await self.primary.database.told()

    async def finish(self) -> None:
        """Publish what is in the tables, at the end of the process: also after a copy that is under way, which would be broken off.

        Raises:
            PrimaryError: it cannot be done now; the next start does it.
        """
        if (self._changed.is_set() or self._copying) and self._state is State.FOLLOWING:
            await self._copy()

    async def _publish(self) -> None:
        """Copies for everybody, at the pace."""
        loop = asyncio.get_running_loop()
        after = float("-inf")
        while True:
            await self._changed.wait()
            await asyncio.sleep(max(0.0, after - loop.time()))
            self._changed.clear()
            if self.primary.building:
                continue
            began = loop.time()
            try:
                await self._copy()
            except faults.Busy:
                after = loop.time() + _AGAIN_S
                self._changed.set()
            except faults.NoRoomForCopy as exc:
                await self._stalls.begin(stalls.PUBLISHING, str(exc))
                after = loop.time() + self._options.pace.least_s
                self._changed.set()
            else:
                after = began + self._period_s
                await self._stalls.end(stalls.PUBLISHING)

    async def _copy(self) -> None:
        """Publish once."""
        self._copying = True
        database = self.primary.database
        if self._history is not None:
            await self._history.tend(database)
        self.published = await snapshot.publish(
            database,
            self._options.files.published,
            await self._lags(),
            host=self._options.seat,
            pause_s=self._period_s,
            now=self._author.now(),
        )
        self._copying = False
        self._period_s = self._options.pace.period(self.published.took_s)

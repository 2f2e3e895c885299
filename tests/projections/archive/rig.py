"""A log on a real server, its tables in a real primary file, and an archiver between them; the test says what happens when."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb

from bus import plan
from bus.author import Author
from bus.context import Context
from bus.events import invocation as ev
from bus.store import INVOCATIONS
from bus.subjects import Ref
from bus.topology import Topology, streams
from projections import history
from projections.archive import mend
from projections.archive.archiver import Archiver, Settings
from projections.archive.segment import Step
from projections.archive.store import Access
from projections.database import Database, Made
from projections.decode import decode
from projections.log import STREAMS
from projections.positions import Position
from services.daemon import Bus, open_bus


class Clock:
    """Time that a test sets."""

    def __init__(self) -> None:
        self.moment = datetime.now(UTC)

    def monotonic(self) -> float:
        """Real seconds: nobody sets those."""
        return time.monotonic()

    def now(self) -> datetime:
        """What it was set to."""
        return self.moment


class Rig:
    """One log, one primary."""

    def __init__(self, url: str, bus: Bus, home: Path, database: Database, clock: Clock) -> None:
        self.url = url
        self.bus = bus
        self.home = home
        self.root = home / "archive"
        self.database = database
        self.clock = clock
        self._made = 0

    async def begin(self, role: str = "coder", *, parent: str = "", root: str = "", id: str = "") -> Ref:
        """Request something."""
        self._made += 1
        ref = Ref("shop", role, id or self.bus.author.new_id())
        request = ev.Requested(parent=parent, root=root or ref.id, depth=1 if parent else 0)
        await self.bus.store.append(self.bus.author.invocation(ref, request, root=root))
        return ref

    async def claim(self, ref: Ref, holder: str = "boot", **more: Any) -> None:
        """Claim it."""
        claimed = ev.Claimed(holder=holder, runner="r", delivery=1, attempt=1, reply="", registry_revision=1, **more)
        await self.bus.store.append(self.bus.author.invocation(ref, claimed))

    async def end(self, ref: Ref, **more: Any) -> None:
        """Complete it."""
        completed = ev.Completed(
            holder="boot", delivery=1, duration_ms=5, usage=ev.Usage(input_tokens=3, output_tokens=2), **more
        )
        await self.bus.store.append(self.bus.author.invocation(ref, completed))

    async def work(self, count: int) -> list[Ref]:
        """So many invocations, from request to completion: three messages each."""
        refs = []
        for _ in range(count):
            ref = await self.begin()
            await self.claim(ref)
            await self.end(ref)
            refs.append(ref)
        return refs

    async def feed(self, *names: str) -> None:
        """Bring what is new in the streams into the tables, as the projector does."""
        await feed(self.bus, self.database, names or STREAMS)

    async def last(self) -> int:
        """Last sequence of INVOCATIONS."""
        info = await self.bus.connection.api(f"STREAM.INFO.{INVOCATIONS}")
        return int(info["state"]["last_seq"])

    async def first(self) -> int:
        """First sequence of INVOCATIONS."""
        info = await self.bus.connection.api(f"STREAM.INFO.{INVOCATIONS}")
        return int(info["state"]["first_seq"])

    def archiver(
        self,
        *,
        rows: int = 10,
        hot_s: float = 0.0,
        access: Access | None = None,
        windows: Callable[[datetime], datetime | None] = lambda _now: None,
        step: Step = lambda _name: None,
    ) -> Archiver:
        """An archiver over it."""
        return archiver(
            self.bus, self.database, self.home, rows=rows, hot_s=hot_s, access=access, windows=windows, step=step
        )

    async def sql(self, statement: str) -> list[tuple[Any, ...]]:
        """Ask the tables."""

        def work(connection: duckdb.DuckDBPyConnection) -> list[tuple[Any, ...]]:
            return connection.execute(statement).fetchall()

        return await self.database.run(work)


async def feed(bus: Bus, database: Database, names: tuple[str, ...]) -> None:
    """See :meth:`Rig.feed`."""
    for stream in names:
        before = (await database.positions()).get(stream)
        era = (await bus.connection.api(f"STREAM.INFO.{stream}"))["created"]
        start = before.seq + 1 if before else 1
        batch = [mend.delivery(message) async for message in bus.store.messages(stream, ">", start=start)]
        if batch:
            last = batch[-1]
            await database.apply(decode(stream, batch), {stream: Position(last.seq, last.stored_ns // 1000, era)})


def archiver(
    bus: Bus,
    database: Database,
    home: Path,
    *,
    rows: int = 10,
    hot_s: float = 0.0,
    access: Access | None = None,
    windows: Callable[[datetime], datetime | None] = lambda _now: None,
    step: Step = lambda _name: None,
) -> Archiver:
    """See :meth:`Rig.archiver`."""
    settings = Settings(root=home / "archive", segment_rows=rows, hot_s=hot_s, access=access)
    return Archiver(
        settings,
        lambda: database,
        connection=bus.connection,
        store=bus.store,
        author=bus.author,
        gate=bus.gate,
        publish=lambda connection: history.publish(connection, home),
        windows=windows,
        step=step,
    )


@asynccontextmanager
async def open_rig(url: str, home: Path) -> AsyncIterator[Rig]:
    """Everything, from the streams to the primary; the archiver's clock is ahead, so that all is old enough.

    By less than what a day is given to end in, so that it is the same day at any time of the day.
    """
    clock = Clock()
    clock.moment += timedelta(minutes=5)
    bus = await open_bus(Context(url=url), "test", Author("/test/rig", actor="tester", clock=clock))
    try:
        shape = Topology(streams=streams())
        await plan.apply(bus.connection, shape, await plan.plan(bus.connection, shape))
        rig = Rig(url, bus, home, await open_database(home), clock)
        try:
            yield rig
        finally:
            await rig.database.end()
    finally:
        await bus.close()


async def open_database(home: Path) -> Database:
    """The primary of a home, new or as it was left."""
    database = Database(home / "projections" / "primary.duckdb")
    await database.open(Made(made_at=datetime.now(UTC)))
    await database.run(lambda connection: history.publish(connection, home))
    return database

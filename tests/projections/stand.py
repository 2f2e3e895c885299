"""A projector inside the test's own process, on a real server with the bus's streams, and what it is compared with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import duckdb
import msgspec

from bus import envelope, plan
from bus.author import Author
from bus.context import Context
from bus.events import daemon as daemon_events
from bus.events import invocation as ev
from bus.ids import new_id
from bus.server import EmbeddedServer
from bus.subjects import Ref
from bus.topology import Topology, streams
from projections.primary import Files
from projections.projector import Options, Projector
from projections.snapshot import Pace
from services.daemon import Bus, open_bus

#: Seconds after which a test that waits fails.
LIMIT_S = 30.0
#: Copies as fast as they can be made: tests wait for them.
QUICK = Pace(least_s=0.05, share=1.0)
STREAMS = ("INVOCATIONS", "CONTROL", "DEAD_LETTERS", "ADVISORIES")


class Stand:
    """A server, a bus, and the folder of a projector."""

    def __init__(self, bus: Bus, home: Path) -> None:
        self.bus = bus
        self.files = Files(home / "projections", home / "fleet.duckdb")

    def projector(self, **more: Any) -> Projector:
        """A projector that does not run yet."""
        bus = self.bus
        given: dict[str, Any] = {"seat": "projector_here", "pace": QUICK} | more
        options = Options(files=self.files, **given)
        return Projector(bus.connection, bus.store, bus.author, options)

    @asynccontextmanager
    async def running(self, projector: Projector | None = None) -> AsyncIterator[Projector]:
        """A projector that runs until the end of the block. If it fails, so does the test."""
        made = projector or self.projector()
        task = asyncio.create_task(made.run())
        try:
            yield made
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def invocations(self, count: int) -> None:
        """So many whole lives of invocations: three events each, in the log when this returns."""
        bus = self.bus
        for n in range(count):
            ref = Ref("shop", "coder", new_id())
            life: Sequence[Any] = (
                ev.Requested(input=msgspec.Raw(b"%d" % n)),
                ev.Claimed(holder=new_id(), runner="r@h", delivery=1, attempt=1, reply="$JS.ACK"),
                ev.Completed(holder="h", delivery=1, output=msgspec.Raw(b"%d" % n), duration_ms=1.0),
            )
            for fact in life:
                event = bus.author.invocation(ref, fact)
                bus.connection.nc.send(event.subject, envelope.encode(event))
        await bus.connection.nc.flush()
        # The server stores what one connection sends in order: when this is stored, so is all before it.
        await bus.store.append(
            bus.author.control("a_b", daemon_events.Started(daemon="a", boot_id=new_id(), host="b", pid=1))
        )

    async def stored(self) -> list[tuple[str, int, bytes]]:
        """Every message of the streams, read plainly: (stream, sequence, body)."""
        found: list[tuple[str, int, bytes]] = []
        for stream in STREAMS:
            found.extend([(stream, m.seq, m.data) async for m in self.bus.store.messages(stream, ">")])
        return sorted(found)

    def published(self) -> duckdb.DuckDBPyConnection:
        """The published copy, opened as anybody would."""
        return duckdb.connect(str(self.files.published), read_only=True)

    def rows(self, projector: Projector) -> list[tuple[str, int, bytes]]:
        """What is in the log of a running projector, as :meth:`stored` has it."""
        with projector.cursor() as cursor:
            return cursor.execute("SELECT stream, seq, raw FROM hot.log ORDER BY ALL").fetchall()

    async def caught_up(self, projector: Projector) -> None:
        """Wait until everything that is stored is in the tables."""

        async def behind() -> int:
            return (await projector.status()).behind

        await until(lambda: projector.positions and not projector.primary.building)
        async with asyncio.timeout(LIMIT_S):
            while await behind():
                await asyncio.sleep(0.01)


@asynccontextmanager
async def open_stand(server: EmbeddedServer, home: Path) -> AsyncIterator[Stand]:
    """The streams on a server, and nobody who reads them."""
    bus = await open_bus(Context(url=server.url), "test", Author("/test/stand", actor="tester"))
    declared = Topology(streams=streams())
    await plan.apply(bus.connection, declared, await plan.plan(bus.connection, declared))
    try:
        yield Stand(bus, home)
    finally:
        await bus.close()


async def until(condition: Callable[[], Any]) -> None:
    """Wait until a condition holds that no event announces."""
    async with asyncio.timeout(LIMIT_S):
        while not condition():
            await asyncio.sleep(0.005)

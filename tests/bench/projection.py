"""The projector: events a second from the stream to tables, against the same reader without tables and a plain projector.

Both are processes of their own (:mod:`tests.bench.projecting`), and so is the server. Then how soon an event can be asked for,
and how fast the tables are made again from Parquet, of a projector in this process.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import duckdb
import msgspec
import nats

from bus import envelope
from bus.author import Author
from bus.events import invocation as ev
from bus.ids import new_id
from bus.store import INVOCATIONS
from bus.subjects import Ref
from projections import history, rebuild
from projections.archive import manifest, segment
from projections.database import VERSION, Database, Made
from projections.primary import Files
from projections.projector import Options, Projector
from services.app.parts import calm_collector, share_interpreter
from services.daemon import Bus
from tests.bench.projecting import Found, begin
from tests.bench.report import Row
from tests.bench.rig import Rig
from tests.bench.scale import Scale

#: Events that the plain projector gets: at its pace more would take minutes.
_PLAIN = 6_000
#: Events stored one by one for the freshness.
_SINGLE = 100
#: Events a second that come while a projector catches up.
_LIVE_PER_S = 2_000
_HOLDER = "01a20ba5-6af7-75eb-a9e4-fdff4d5047b9"
_USAGE = ev.Usage(input_tokens=4808, output_tokens=10, model="trace")


async def measure(rig: Rig, scale: Scale) -> list[Row]:
    """One after the other, on one stream."""
    calm_collector()
    share_interpreter()
    count = scale.events // 3 * 3  # whole lives
    await _publish(rig.bus, count)
    with tempfile.TemporaryDirectory(prefix="systems-bench-tables-") as folder:
        home = Path(folder)
        reader = count / median([(await begin("read", rig.server.url, count, home)).took_s for _ in range(3)])
        plain = await _plain(rig, home)
        applied = [await _projected(rig, count, home / f"run-{n}") for n in range(3)]
        ours = count / median([found.took_s for found in applied])
        memory = max(found.memory_mb for found in applied)
        late = await _under_load(rig, count, home / "late")
        async with _projector(rig.bus, home) as projector:
            await _applied(projector, count)
            fresh = await _freshness(rig.bus, projector)
            size = (home / "projections" / "primary.duckdb").stat().st_size
            again, everything, parquet = await _rebuilt(projector, home)
    return [
        Row(
            what="stream to tables",
            unit="events/s",
            ours=ours,
            floor=reader,
            ratios=(ours / reader,),
            target="ratio ≥ 0.6",
            met=ours / reader >= 0.6,
            note=f"the floor is the same reader without tables; {count:,} events",
        ),
        Row(what="stream to tables", unit="events/s", ours=ours, target="≥ 60,000/s", met=ours >= 60_000),
        Row(
            what="stream to tables, against fetch() and executemany",
            unit="events/s",
            ours=ours,
            floor=plain,
            ratios=(ours / plain,),
            target="ratio ≥ 5",
            met=ours / plain >= 5,
        ),
        Row(
            what=f"the same under {_LIVE_PER_S:,} new events/s, until nothing waits",
            unit="events/s",
            ours=count / late.caught_up_s,
            note="all that is new is applied as well, and not counted",
        ),
        Row(
            what="an event to the tables that are asked, p99",
            unit="ms",
            ours=sorted(fresh)[int(0.99 * len(fresh)) - 1] * 1e3,
            target="< 300 ms",
            met=sorted(fresh)[int(0.99 * len(fresh)) - 1] < 0.3,
            note=f"median {median(fresh) * 1e3:.0f} ms",
        ),
        Row(
            what="tables made again from Parquet: all of them",
            unit="events/s",
            ours=everything,
            target="≥ 500,000/s",
            met=everything >= 500_000,
        ),
        Row(
            what="tables made again from Parquet: events",
            unit="events/s",
            ours=again,
            target="≥ 1,000,000/s",
            met=again >= 1_000_000,
            note="checked by checksum; the view reads the files themselves",
        ),
        Row(what="projector memory, at most", unit="MB", ours=memory, target="< 500 MB", met=memory < 500),
        Row(what="disk for an event: primary, before it is archived", unit="B", ours=size / count),
        Row(what="disk for an event: archive", unit="B", ours=parquet / count),
    ]


async def _projected(rig: Rig, count: int, folder: Path) -> Found:
    folder.mkdir()
    return await begin("apply", rig.server.url, count, folder)


async def _under_load(rig: Rig, count: int, folder: Path) -> Found:
    """Catching up while events come."""

    async def load() -> None:
        while True:
            at = time.perf_counter()
            await _publish(rig.bus, _LIVE_PER_S // 10)
            await asyncio.sleep(max(0.0, at + 0.1 - time.perf_counter()))

    live = asyncio.create_task(load())
    try:
        return await _projected(rig, count, folder)
    finally:
        live.cancel()
        await asyncio.gather(live, return_exceptions=True)


async def _publish(bus: Bus, count: int) -> None:
    """Invocations that were asked for, claimed and completed."""
    author = Author("/bench/tables")
    for number in range(count // 3):
        ref = Ref("shop", f"role-{number % 20}", new_id())
        claimed = ev.Claimed(
            holder=_HOLDER,
            runner="agent_runner-1@vm",
            delivery=1,
            attempt=1,
            reply=f"$JS.ACK.INVOCATIONS.shop_coder.1.{number}.{number}.1764093600000000000.0",
            registry_revision=3,
        )
        done = ev.Completed(
            holder=_HOLDER, delivery=1, output=msgspec.Raw(b'{"output_tokens":10}'), duration_ms=12.5, usage=_USAGE
        )
        asked = ev.Requested(input=msgspec.Raw(b'{"input_tokens":4808,"output_tokens":10}'))
        for data in (asked, claimed, done):
            event = author.invocation(ref, data)
            bus.connection.nc.send(event.subject, envelope.encode(event))
        if number % 2_000 == 0:
            await bus.connection.nc.flush(60)
    await bus.connection.nc.flush(60)


async def _plain(rig: Rig, home: Path) -> float:
    """A projector as one writes it first: fetch() in a loop, and executemany."""
    client = await nats.connect(rig.server.url)
    try:
        subscription = await client.jetstream().pull_subscribe("inv.>", durable="plain", stream=INVOCATIONS)
        with closing(duckdb.connect(str(home / "plain.duckdb"))) as connection:
            connection.execute(
                "CREATE TABLE events (seq UBIGINT, subject VARCHAR, type VARCHAR, id VARCHAR, data VARCHAR)"
            )
            seen, begun = 0, time.perf_counter()
            while seen < _PLAIN:
                messages = await subscription.fetch(500, timeout=5)
                rows = []
                for message in messages:
                    event = msgspec.json.decode(message.data)
                    rows.append(
                        [
                            message.metadata.sequence.stream,
                            message.subject,
                            event["type"],
                            event["id"],
                            str(event["data"]),
                        ]
                    )
                connection.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?)", rows)
                for message in messages:
                    await message.ack()
                seen += len(messages)
            return seen / (time.perf_counter() - begun)
    finally:
        await client.close()


@asynccontextmanager
async def _projector(bus: Bus, home: Path) -> AsyncIterator[Projector]:
    files = Files(home / "projections", home / "fleet.duckdb")
    projector = Projector(bus.connection, bus.store, bus.author, Options(files=files, seat="bench"))
    task = asyncio.create_task(projector.run())
    try:
        yield projector
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _applied(projector: Projector, count: int) -> None:
    """Wait until all of them are in the tables, and the first copy is made."""
    while projector.applied < count or projector.primary.building or projector.published is None:
        await asyncio.sleep(0.05)


async def _freshness(bus: Bus, projector: Projector) -> list[float]:
    """Seconds from an event's acknowledged append to its being seen by a query."""
    taken: list[float] = []
    for _ in range(_SINGLE):
        await asyncio.sleep(0.05)
        event = bus.author.invocation(Ref("shop", "single", new_id()), ev.Requested())
        begun = time.perf_counter()
        await bus.store.append(event)
        while not await asyncio.to_thread(_there, projector, event.id):
            await asyncio.sleep(0.002)
        taken.append(time.perf_counter() - begun)
    return taken


def _there(projector: Projector, id_: str) -> bool:
    with closing(projector.cursor()) as session:
        return session.execute("SELECT 1 FROM hot.log WHERE id = ? AND role = 'single'", [id_]).fetchone() is not None


async def _rebuilt(projector: Projector, home: Path) -> tuple[float, float, int]:
    """Events a second of reading the archive's files and of folding them, and their bytes."""
    root = home / "archive"
    eras = await rebuild.eras_of(projector._connection)

    def write() -> tuple[float, int, int]:
        with closing(projector.cursor()) as session:
            ((last,),) = session.execute("SELECT max(seq) FROM hot.log WHERE stream = 'INVOCATIONS'").fetchall()
            for first in range(1, last + 1, 250_000):
                until = min(last, first + 249_999)
                segment.write(session, root, stream=INVOCATIONS, created=eras[INVOCATIONS], first=first, last=until)
        found = manifest.scan(root).segments
        begun = time.perf_counter()
        assert all(segment.check(root, one) is None for one in found)
        return time.perf_counter() - begun, last, sum(one.size for one in found)

    checked, count, size = await asyncio.to_thread(write)
    again = Database(home / "again" / "primary.duckdb")
    await again.open(Made(version=VERSION, made_at=datetime.now(UTC)))
    begun = time.perf_counter()
    await rebuild.Archived(home, projector._connection, history.Cold(home)).restore(again)
    folded = time.perf_counter() - begun
    await again.end()
    return count / checked, count / folded, size

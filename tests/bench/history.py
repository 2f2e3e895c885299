"""A long history: millions of events folded, archived and gone cold, and what is left of them in the primary. Opt-in: it takes minutes.

Then how long `v_health` takes over it, how large primary and copy are, and how long a copy takes of a primary that is far larger
than the projector lets it become. No server: this is DuckDB and the disk.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median

import duckdb
import msgspec
import pyarrow as pa

from bus import envelope
from bus.author import Author
from bus.events import invocation as ev
from bus.ids import new_id
from bus.store import INVOCATIONS
from bus.subjects import Ref
from bus.wire import Delivery
from projections import history, snapshot
from projections.archive import register, segment
from projections.archive.closing import SEGMENT_ROWS
from projections.database import Database, Made, transaction
from projections.decode import decode
from projections.positions import Position
from projections.standing import Snapshot
from tests.bench.report import Row
from tests.bench.rig import Rig
from tests.bench.scale import Scale

_BATCH = 24_000
_ERA = "2026-01-01T00:00:00Z"
#: Sizes of primaries that are copied; one that does not fit on the disk three times is left out.
_SIZES = {"1 GB": 10**9, "5 GB": 5 * 10**9}


async def measure(_rig: Rig, scale: Scale) -> list[Row]:
    """Grow, look, then grow beyond measure."""
    with tempfile.TemporaryDirectory(prefix="systems-bench-history-") as folder:
        home = Path(folder)
        database = Database(home / "projections" / "primary.duckdb")
        await database.open(Made(made_at=datetime.now(UTC)))
        rows: list[Row] = []
        begun = time.perf_counter()
        marks = sorted({min(1_000_000, scale.history), scale.history})
        at = 0
        for mark in marks:
            at = await _grow(database, home, at, mark)
            took = await asyncio.to_thread(_health, database)
            limit = 0.02 if mark <= 1_000_000 else 0.05
            rows.append(
                Row(
                    what=f"v_health over {mark:,} events, median",
                    unit="ms",
                    ours=took * 1e3,
                    target=f"< {limit * 1e3:.0f} ms",
                    met=took < limit,
                )
            )
        took = time.perf_counter() - begun
        rows.append(Row(what="decoded, folded, archived and gone cold", unit="events/s", ours=scale.history / took))
        copied = await _copy(database, home)
        rows.append(Row(what=f"primary after {scale.history:,} events", unit="MB", ours=copied.bytes / 1e6))
        rows.append(Row(what="… a copy of it", unit="ms", ours=copied.took_s * 1e3))
        for name, size in _SIZES.items():
            if scale.ballast and shutil.disk_usage(home).free > 3 * size:
                await database.run(partial(_swell, size=size))
                copied = await _copy(database, home)
                rows.append(
                    Row(
                        what=f"a copy of a primary of {name}",
                        unit="s",
                        ours=copied.took_s,
                        note="pause to the next: 20 times that",
                    )
                )
        await database.end()
        return rows


async def _grow(database: Database, home: Path, done: int, count: int) -> int:
    """Apply events up to so many, and move out what the projector would: sequences applied."""
    author, cold = Author("/bench/history"), history.Cold(home)
    while done < count:
        batch = _events(author, done, min(_BATCH, count - done))
        done += batch.num_rows
        await database.apply(batch, {INVOCATIONS: Position(done, 0, _ERA)})
        if done // SEGMENT_ROWS > (done - batch.num_rows) // SEGMENT_ROWS:
            await database.run(partial(_archive, home=home))
            await database.run(cold.move)
            # As each published copy begins: what no checkpoint has put into the file fills memory and spill.
            await database.checkpoint()
    return done


def _events(author: Author, done: int, count: int) -> pa.Table:
    """Whole lives of invocations, as the server would hand them out."""
    usage = ev.Usage(input_tokens=4808, output_tokens=10, model="trace")
    holder, now = new_id(), time.time_ns()
    found: list[Delivery] = []
    while len(found) < count:
        ref = Ref("shop", f"role-{len(found) % 20}", new_id())
        for data in (
            ev.Requested(input=msgspec.Raw(b'{"input_tokens":4808,"output_tokens":10}')),
            ev.Claimed(holder=holder, runner="agent_runner-1@vm", delivery=1, attempt=1, reply="$JS.ACK"),
            ev.Completed(holder=holder, delivery=1, duration_ms=12.5, usage=usage),
        ):
            event = author.invocation(ref, data)
            seq = done + len(found) + 1
            found.append(Delivery(event.subject, envelope.encode(event), "", seq, 1, seq, now, 0))
    return decode(INVOCATIONS, found[:count])


def _archive(connection: duckdb.DuckDBPyConnection, home: Path) -> None:
    rows = connection.execute("SELECT min(seq), max(seq) FROM hot.log").fetchall()
    first, last = rows[0]
    one = segment.write(connection, home / "archive", stream=INVOCATIONS, created=_ERA, first=first, last=last)
    register.add(connection, [one], lambda con: history.publish(con, home))


def _health(database: Database) -> float:
    taken: list[float] = []
    with closing(database.cursor()) as session:
        for _ in range(20):
            begun = time.perf_counter()
            session.execute("FROM v_health").fetchall()
            taken.append(time.perf_counter() - begun)
    return median(taken)


async def _copy(database: Database, home: Path) -> Snapshot:
    return await snapshot.publish(database, home / "fleet.duckdb", (), host="bench", pause_s=2.0, now=datetime.now(UTC))


def _swell(connection: duckdb.DuckDBPyConnection, size: int) -> None:
    """Rows that nothing compresses, until the file is as large as that."""
    file = connection.execute(
        "SELECT total_blocks * block_size FROM pragma_database_size() WHERE database_name = 'primary_file'"
    )
    ((have,),) = file.fetchall()
    with transaction(connection):
        connection.execute("CREATE TABLE IF NOT EXISTS ballast (a UHUGEINT)")
        connection.execute(
            f"INSERT INTO ballast SELECT md5_number(uuid()::VARCHAR) FROM range({max(0, size - int(have)) // 16})"  # noqa: S608 (a number)
        )

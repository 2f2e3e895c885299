"""A look back into a long history, against folding all of it up to the moment. Opt-in: it takes minutes.

Both read the same published file, each in a process of its own, whose peak of memory is taken too; the floor's copy says that
another version made it, so that nothing in it is taken over. At every moment thousands of invocations are under way.
No server: this is DuckDB and the disk.
"""

from __future__ import annotations

import asyncio
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

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
from projections.database import Database, Made
from projections.decode import decode
from projections.past import past
from projections.positions import Position
from tests.bench.report import Row
from tests.bench.rig import Rig
from tests.bench.scale import Scale

_BATCH = 24_000
_ERA = "2026-01-01T00:00:00Z"
#: Events of the history at most; their distance, so that it lasts a month.
_MOST, _START, _EVERY_US = 3_000_000, datetime(2026, 1, 1, tzinfo=UTC), 864_000
#: Invocations that wait for their claim, and that are in work; one of so many fails and waits until the end.
_WAIT, _WORK, _FAILS = 2_000, 500, 1_000
#: Parts of the history that lie behind the moment.
_MOMENTS = {"1 %": 0.01, "50 %": 0.5}


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """What a look back took."""

    #: Seconds until the tables were there, the processor's for them, and those of the first `v_health` over them.
    tables_s: float
    cpu_s: float
    health_s: float
    #: The process's largest resident memory, in bytes.
    peak: int
    #: Invocations at that moment, by their state: both ways must find the same.
    found: dict[str, int]


async def measure(_rig: Rig, scale: Scale) -> list[Row]:
    """Grow a history, then look back into it."""
    count = min(_MOST, scale.history)
    with tempfile.TemporaryDirectory(prefix="systems-bench-past-") as folder:
        file = await _grow(Path(folder), count)
        whole = Path(shutil.copy(file, file.with_name("whole.duckdb")))
        with duckdb.connect(str(whole)) as connection:
            connection.execute("UPDATE hot.made SET version = 'another'")
        rows: list[Row] = []
        for name, part in _MOMENTS.items():
            at = _START + timedelta(microseconds=int(count * (1 - part)) * _EVERY_US)
            ours, floor = [await _look(each, at) for each in (file, whole)]
            if ours.found != floor.found:
                raise AssertionError(f"expected the same invocations, got: {ours.found} and {floor.found}")
            what = f"a look back over {name} of {count:,} events"
            rows += [
                _row(what, "s", ours.tables_s, floor.tables_s),
                _row("  its processor time", "s", ours.cpu_s, floor.cpu_s),
                _row("  v_health then", "s", ours.health_s, floor.health_s),
                _row("  its memory", "MB", ours.peak / 1e6, floor.peak / 1e6),
            ]
        return rows


def _row(what: str, unit: str, ours: float, floor: float) -> Row:
    return Row(what=what, unit=unit, ours=ours, floor=floor, ratios=(ours / floor,))


async def _look(file: Path, at: datetime) -> Look:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __name__, str(file), at.isoformat(), stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    return msgspec.json.decode(said, type=Look)


async def _grow(home: Path, count: int) -> Path:
    """A published file of so many events, the older ones archived, the older ended work cold."""
    database = Database(home / "projections" / "primary.duckdb")
    await database.open(Made(made_at=datetime.now(UTC)))
    told, cold = _told(), history.Cold(home)
    archived = done = 0
    while done < count:
        batch = _batch(told, done, min(_BATCH, count - done))
        done += batch.num_rows
        await database.apply(batch, {INVOCATIONS: Position(done, 0, _ERA)})
        if done - archived >= SEGMENT_ROWS:
            await database.run(partial(_archive, home=home, first=archived + 1, last=done))
            await database.run(cold.move)
            await database.checkpoint()
            archived = done
    file = home / "fleet.duckdb"
    await snapshot.publish(database, file, (), host="bench", pause_s=2.0, now=datetime.now(UTC))
    await database.end()
    return file


def _archive(connection: duckdb.DuckDBPyConnection, home: Path, first: int, last: int) -> None:
    one = segment.write(connection, home / "archive", stream=INVOCATIONS, created=_ERA, first=first, last=last)
    register.add(connection, [one], lambda con: history.publish(con, home))


def _told() -> Iterator[tuple[str, bytes]]:
    """Subjects and bodies for ever: lives side by side, as a busy fleet has them."""
    author, holder = Author("/bench/past"), new_id()
    usage = ev.Usage(input_tokens=4808, output_tokens=10, model="trace")
    error = ev.Error(kind="exit_1", message="it broke", fingerprint="f" * 12)
    refs: list[Ref] = []

    def event(ref: Ref, data: Any) -> tuple[str, bytes]:
        made = author.invocation(ref, data)
        return made.subject, envelope.encode(made)

    while True:
        ref = Ref("shop", f"role-{len(refs) % 20}", new_id())
        refs.append(ref)
        yield event(ref, ev.Requested(root=ref.id, input=msgspec.Raw(b'{"input_tokens":4808,"output_tokens":10}')))
        if (claims := len(refs) - _WAIT) > 0:
            claim = ev.Claimed(holder=holder, runner="agent_runner-1@vm", delivery=1, attempt=1, reply="$JS.ACK")
            yield event(refs[claims - 1], claim)
        if (ends := claims - _WORK) > 0:
            ended = refs[ends - 1]
            if ends % _FAILS == 0:
                yield event(ended, ev.Failed(holder=holder, delivery=1, attempt=1, error=error, usage=usage))
            else:
                yield event(ended, ev.Completed(holder=holder, delivery=1, duration_ms=12.5, usage=usage))


def _batch(told: Iterator[tuple[str, bytes]], done: int, count: int) -> pa.Table:
    """The next events as the server would hand them out."""
    found: list[Delivery] = []
    for seq in range(done + 1, done + count + 1):
        subject, body = next(told)
        stored = int(_START.timestamp()) * 10**9 + seq * _EVERY_US * 1000
        found.append(Delivery(subject, body, "", seq, 1, seq, stored, 0))
    return decode(INVOCATIONS, found)


def main() -> int:
    """One look, in a process of its own: ``FILE MOMENT`` on the command line, what it took on stdout."""
    file, at = sys.argv[1:]
    begun, cpu = time.perf_counter(), time.process_time()
    with past(Path(file), datetime.fromisoformat(at)) as then:
        tables_s, cpu_s = time.perf_counter() - begun, time.process_time() - cpu
        begun = time.perf_counter()
        then.connection.execute("FROM v_health").fetchall()
        health_s = time.perf_counter() - begun
        states = then.connection.execute("SELECT state, count(*) FROM invocations GROUP BY state").fetchall()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    look = Look(tables_s=tables_s, cpu_s=cpu_s, health_s=health_s, peak=peak, found=dict(states))
    sys.stdout.buffer.write(msgspec.json.encode(look) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

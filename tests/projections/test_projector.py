"""The projector on a real server: fresh, complete, open to everybody, and never merging what is not one history."""

from __future__ import annotations

import asyncio
import shutil
import sys
import threading
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from bus.clock import SystemClock
from bus.server import EmbeddedServer
from bus.store import CONTROL, INVOCATIONS, Recorded
from projections import database, faults, fold, snapshot
from projections.projector import Projector
from projections.snapshot import Pace
from projections.standing import State
from tests.projections.stand import LIMIT_S, Stand, open_stand, until


@pytest.fixture
async def stand(server: EmbeddedServer, tmp_path: Path) -> AsyncIterator[Stand]:
    """The streams on a server, and a place for the files."""
    async with open_stand(server, tmp_path) as opened:
        yield opened


async def said(stand: Stand, name: str) -> list[Any]:
    """The events of this name that projectors have written."""
    return [record.data async for record in stand.bus.store.read(CONTROL, f"ctl.projection.*.{name}")]


async def when_said(stand: Stand, name: str) -> Any:
    """The first event of this name, waited for."""
    async with asyncio.timeout(LIMIT_S):
        while not (found := await said(stand, name)):
            await asyncio.sleep(0.01)
    return found[0]


async def test_every_message_is_a_row_and_the_copy_says_how_far_it_is(stand: Stand) -> None:
    """What the streams hold is in the tables, rubbish too; the published copy holds the same and names its sequences."""
    await stand.invocations(200)
    await stand.bus.publisher.publish("inv.shop.coder.x.requested", b"rubbish")
    async with stand.running() as projector:
        await stand.caught_up(projector)
        stored = await stand.stored()
        assert stand.rows(projector) == stored
        await until(stand.files.published.exists)
        async with asyncio.timeout(LIMIT_S):
            while True:
                with stand.published() as copy:
                    rows = copy.execute("SELECT stream, seq, raw FROM hot.log ORDER BY ALL").fetchall()
                    lags = copy.execute("SELECT stream, seq, head, behind FROM projection_lag ORDER BY ALL").fetchall()
                if rows == stored:
                    break
                await asyncio.sleep(0.02)
        newest = {stream: max((s for of, s, _ in stored if of == stream), default=0) for stream, *_ in lags}
        assert lags == [(stream, seq, seq, 0) for stream, seq in sorted(newest.items())]
        with projector.cursor() as cursor:
            assert cursor.execute("SELECT count(*) FROM hot.log WHERE problem IS NOT NULL").fetchall() == [(1,)]


async def test_rows_go_into_the_file_between_copies(stand: Stand) -> None:
    """However long no copy is due, what batches have written goes into the file, and not into memory and spill for ever."""
    most = 100_000
    projector = stand.projector(pace=Pace(least_s=3600), unsettled=most)
    async with stand.running(projector):
        await until(lambda: projector.published)
        before = stand.files.primary.stat().st_size
        await stand.invocations(300)
        await stand.caught_up(projector)
        await until(lambda: stand.files.primary.stat().st_size > before + most)
        assert projector.published is not None
        assert projector.published.number == 1


async def test_stream_and_tables_go_on_from_the_position(stand: Stand) -> None:
    """A projector that comes back applies what came meanwhile and nothing twice, and makes nothing anew."""
    await stand.invocations(20)
    async with stand.running() as projector:
        await stand.caught_up(projector)
        first = projector.applied
    await stand.invocations(10)
    async with stand.running() as projector:
        await stand.caught_up(projector)
        assert projector.applied == 31
        assert stand.rows(projector) == await stand.stored()
    assert first == 61
    assert await said(stand, "rebuilt") == []


async def test_copy_is_open_to_readers_and_writers_of_their_own(stand: Stand) -> None:
    """A reader keeps the copy that it opened; one that writes into its copy, and leaves its log behind, spoils no later one."""
    await stand.invocations(5)
    async with stand.running() as projector:
        await stand.caught_up(projector)
        await until(lambda: projector.published)
        with stand.published() as old:
            before = old.execute("SELECT number FROM snapshot").fetchall()
            # Left behind by somebody who opened the copy to write, and was killed.
            database.wal(stand.files.published).write_bytes(b"of another file")
            await stand.invocations(5)
            await stand.caught_up(projector)
            await until(lambda: projector.published is not None and projector.published.number > before[0][0])
            # Under another name: one process that opens a path twice is given the same database twice.
            other = shutil.copyfile(stand.files.published, stand.files.folder / "other.duckdb")
            with duckdb.connect(str(other), read_only=True) as new:
                assert new.execute("SELECT number FROM snapshot").fetchall() > before
            assert old.execute("SELECT number FROM snapshot").fetchall() == before


async def test_last_copy_waits_for_one_that_is_under_way(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """A projector that ends while it makes a copy ends with that copy made, and with all that it has applied in it."""
    begun, go, copy = threading.Event(), threading.Event(), snapshot._copy

    def slow(source: database.Database, target: Path) -> int:
        begun.set()
        go.wait(LIMIT_S)
        return copy(source, target)

    monkeypatch.setattr(snapshot, "_copy", slow)
    await stand.invocations(5)
    async with stand.running() as projector:
        await stand.caught_up(projector)
        await until(begun.is_set)
        ending = asyncio.create_task(projector.finish())
        await asyncio.sleep(0)
        assert not ending.done()
        go.set()
        await ending
        with stand.published() as published:
            assert published.execute("SELECT stream, seq, raw FROM hot.log ORDER BY ALL").fetchall() == stand.rows(
                projector
            )


async def test_primary_stays_locked_while_copies_are_made(stand: Stand) -> None:
    """After copies were published, another process is still refused the primary: two that write into it would ruin it."""
    async with stand.running() as projector:
        await stand.invocations(1)
        await until(lambda: projector.published is not None)
        await stand.invocations(1)
        await until(lambda: projector.published is not None and projector.published.number > 1)
        attempt = f"import duckdb; duckdb.connect({str(stand.files.primary)!r})"
        other = await asyncio.create_subprocess_exec(sys.executable, "-c", attempt, stderr=asyncio.subprocess.PIPE)
        _, err = await other.communicate()
        assert (other.returncode, b"Could not set lock" in err) == (1, True), err


@pytest.mark.slow
async def test_stream_that_was_made_anew_is_never_merged(stand: Stand) -> None:
    """A stream that is deleted and made anew under a running projector leaves nothing of the old one in the tables; one event says so."""
    await stand.invocations(30)
    async with stand.running() as projector:
        await stand.caught_up(projector)
        config = (await stand.bus.connection.api(f"STREAM.INFO.{INVOCATIONS}"))["config"]
        await stand.bus.connection.api(f"STREAM.DELETE.{INVOCATIONS}")
        await stand.bus.connection.api(f"STREAM.CREATE.{INVOCATIONS}", config)
        # As many as before: nothing but the time of its making tells the two apart.
        await stand.invocations(30)
        rebuilt = await when_said(stand, "rebuilt")
        assert "made anew" in rebuilt.why
        await stand.caught_up(projector)
        assert stand.rows(projector) == await stand.stored()
    with duckdb.connect(str(stand.files.folder / rebuilt.aside), read_only=True) as former:
        assert former.execute("SELECT count(*) FROM hot.log WHERE stream = 'INVOCATIONS'").fetchall() == [(90,)]
    assert len(await said(stand, "rebuilt")) == 1


@pytest.mark.slow
async def test_stream_that_went_back_is_never_merged(stand: Stand) -> None:
    """Tables that are ahead of their stream, or hold another message at their position, are made anew from the stream."""
    await stand.invocations(10)
    async with stand.running() as projector:
        await stand.caught_up(projector)
    for change in ("seq = seq + 1000", "stored_us = stored_us + 1"):
        with duckdb.connect(str(stand.files.primary)) as primary:
            primary.execute(f"UPDATE hot.positions SET {change} WHERE stream = 'INVOCATIONS'")  # noqa: S608
        async with stand.running() as projector:
            await stand.caught_up(projector)
            assert stand.rows(projector) == await stand.stored()
    whys = [rebuilt.why for rebuilt in await said(stand, "rebuilt")]
    assert ["reach sequence 1,030" in whys[0], "message 30" in whys[1]] == [True, True]


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["header", "block", "cut", "text"])
async def test_damaged_primary_is_set_aside_and_made_anew(stand: Stand, damage: str) -> None:
    """Damage anywhere in the file is found at the start; the tables come back from the streams, the file is kept, one event says so."""
    await stand.invocations(3000)
    async with stand.running() as projector:
        await stand.caught_up(projector)
    file = stand.files.primary
    with duckdb.connect(str(file)) as primary:
        used = "SELECT min(block_id) FROM pragma_storage_info('hot.log') WHERE column_name = 'raw' AND block_id >= 0"
        block = primary.execute(used).fetchall()[0][0]
    content = bytearray(file.read_bytes())
    match damage:
        case "header":
            content[:4096] = bytes(4096)
        case "block":
            # Three headers of 4 KiB, then blocks of 256 KiB.
            middle = 3 * 4096 + block * 262144 + 1000
            content[middle : middle + 64] = bytes(byte ^ 255 for byte in content[middle : middle + 64])
        case "cut":
            del content[len(content) // 2 :]
        case _:
            content[:] = b"hello " * 5000
    file.write_bytes(content)
    async with stand.running() as projector:
        rebuilt = await when_said(stand, "rebuilt")
        await stand.caught_up(projector)
        assert stand.rows(projector) == await stand.stored()
    assert "whole database" in rebuilt.why
    assert (stand.files.folder / rebuilt.aside).read_bytes()[: len(content)] == content
    assert len(await said(stand, "rebuilt")) == 1


@pytest.mark.slow
async def test_tables_that_are_being_made_answer_nobody(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """While tables are made and no former ones can be asked, questions are refused: half of what happened is no answer."""
    begun, go, apply = asyncio.Event(), asyncio.Event(), database.Database.apply

    async def slow(self: database.Database, *batch: Any) -> None:
        begun.set()
        await go.wait()
        await apply(self, *batch)

    monkeypatch.setattr(database.Database, "apply", slow)
    await stand.invocations(5)
    async with stand.running() as projector:
        await asyncio.wait_for(begun.wait(), LIMIT_S)
        with pytest.raises(faults.PrimaryUnready, match="are being made from archive and streams"):
            projector.cursor()
        go.set()
        await stand.caught_up(projector)
        assert stand.rows(projector) == await stand.stored()


async def test_other_version_is_made_beside_and_switched_to(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables of another version answer until the new ones hold as many sequences; then the new ones do, without a gap."""
    await stand.invocations(50)
    async with stand.running() as projector:
        await stand.caught_up(projector)
        await until(lambda: projector.published)
    with duckdb.connect(str(stand.files.primary)) as primary:
        primary.execute("UPDATE hot.made SET version = 'older'")
    apply, gate = fold.apply, asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(connection: duckdb.DuckDBPyConnection) -> None:
        asyncio.run_coroutine_threadsafe(gate.wait(), loop).result(LIMIT_S)
        apply(connection)

    monkeypatch.setattr(fold, "apply", slow)
    stored = await stand.stored()
    copied = stand.files.published.stat().st_mtime_ns
    async with stand.running() as projector:
        await until(lambda: projector.primary.building and projector.waiting == 0 and projector.positions == {})
        assert stand.rows(projector) == stored
        assert stand.files.published.stat().st_mtime_ns == copied
        gate.set()
        rebuilt = await when_said(stand, "rebuilt")
        await stand.caught_up(projector)
        assert stand.rows(projector) == await stand.stored()
        assert "version" in rebuilt.why
    assert not stand.files.next.exists()
    with duckdb.connect(str(stand.files.primary), read_only=True) as primary:
        assert primary.execute("SELECT version FROM hot.made").fetchall() == [(database.VERSION,)]


@pytest.mark.slow
async def test_file_that_is_open_elsewhere_is_waited_for(stand: Stand) -> None:
    """Another process on the primary file is named as what is in the way, and waited for."""
    await stand.invocations(5)
    async with stand.running() as projector:
        await stand.caught_up(projector)
    holder = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        f"import duckdb, sys; c = duckdb.connect({str(stand.files.primary)!r}); print('in', flush=True); sys.stdin.read()",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        await holder.stdout.readline()
        async with stand.running() as projector:
            stalled = await when_said(stand, "stalled")
            assert f"process {holder.pid} has it open" in stalled.why
            assert (await projector.status()).state is State.STALLED
            holder.stdin.close()
            await stand.invocations(5)
            await when_said(stand, "resumed")
            await stand.caught_up(projector)
            assert (await projector.status()).problem == ""
            assert stand.rows(projector) == await stand.stored()
    finally:
        if holder.returncode is None:
            holder.kill()
        await holder.wait()


async def test_row_that_no_table_holds_is_rejected_alone(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that makes the fold fail is kept as rejected with its bytes and the reason; all others are in the tables."""
    apply = fold.apply

    def choosy(connection: duckdb.DuckDBPyConnection) -> None:
        connection.execute(
            "SELECT error('no such thing') FROM batch WHERE seq = 77 AND stream = 'INVOCATIONS' AND problem IS NULL"
        )
        apply(connection)

    monkeypatch.setattr(fold, "apply", choosy)
    await stand.invocations(50)
    async with stand.running() as projector:
        await stand.caught_up(projector)
        assert stand.rows(projector) == await stand.stored()
        with projector.cursor() as cursor:
            bad = cursor.execute("SELECT seq, problem FROM hot.log WHERE problem IS NOT NULL").fetchall()
        assert [seq for seq, _ in bad] == [77]
        assert "no such thing" in bad[0][1]


async def test_batch_without_memory_is_applied_in_pieces(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the memory does not take a whole batch, smaller ones are applied, and no row is rejected for it."""
    apply = fold.apply

    def frugal(connection: duckdb.DuckDBPyConnection) -> None:
        if connection.execute("SELECT count(*) > 20 FROM batch").fetchall() == [(True,)]:
            raise duckdb.OutOfMemoryException("Out of Memory Error: no room for so many")
        apply(connection)

    monkeypatch.setattr(fold, "apply", frugal)
    await stand.invocations(50)
    async with stand.running() as projector:
        await stand.caught_up(projector)
        assert stand.rows(projector) == await stand.stored()
        with projector.cursor() as cursor:
            assert cursor.execute("SELECT count(*) FROM hot.log WHERE problem IS NOT NULL").fetchall() == [(0,)]


class _Backwards(SystemClock):
    """Wall time that jumps back by a day at each look."""

    def __init__(self) -> None:
        self._looks = 0

    def now(self) -> datetime:
        self._looks += 1
        return super().now() - timedelta(days=self._looks)


async def test_clock_that_goes_back_stops_nothing(stand: Stand) -> None:
    """With a wall clock that jumps back and back, copies are still published, counted upwards, and no lag is negative."""
    projector = stand.projector()
    projector._author.clock = _Backwards()
    async with stand.running(projector):
        numbers: list[int] = []
        for _ in range(3):
            await stand.invocations(2)
            await stand.caught_up(projector)
            await until(
                lambda: projector.published is not None and projector.published.number > max(numbers, default=0)
            )
            assert projector.published is not None
            numbers.append(projector.published.number)
        assert numbers == sorted(set(numbers))
        assert all(lag.seconds >= 0 and lag.behind >= 0 for lag in (await projector.status()).lags)


async def test_lag_counts_what_waits_and_its_age(stand: Stand) -> None:
    """A projector that applies nothing is behind by every message that is stored, and by the age of the oldest."""
    await stand.invocations(3)
    projector: Projector = stand.projector()
    first: Recorded = await anext(stand.bus.store.read(INVOCATIONS, "inv.>"))
    status = await projector.status()
    assert {lag.stream: lag.behind for lag in status.lags} == {
        "INVOCATIONS": 9,
        "CONTROL": 1,
        "DEAD_LETTERS": 0,
        "ADVISORIES": 0,
    }
    age = (stand.bus.author.now() - first.stored_at).total_seconds()
    assert 0 <= status.seconds <= age + 0.01
    # Nothing of what a stream no longer holds is waited for.
    await stand.bus.connection.api(f"STREAM.PURGE.{INVOCATIONS}")
    assert {lag.behind for lag in (await projector.status()).lags if lag.stream == INVOCATIONS} == {0}


async def test_queries_see_what_was_committed_while_batches_are_applied(stand: Stand) -> None:
    """A query that has begun sees the same rows to its end, while batches go on; a new one sees the new rows."""
    await stand.invocations(5)
    async with stand.running() as projector:
        await stand.caught_up(projector)
        with projector.cursor() as cursor:
            cursor.execute("BEGIN TRANSACTION READ ONLY")
            before = cursor.execute("SELECT count(*) FROM hot.log").fetchall()
            await stand.invocations(5)
            await stand.caught_up(projector)
            assert cursor.execute("SELECT count(*) FROM hot.log").fetchall() == before
            cursor.execute("ROLLBACK")
            assert cursor.execute("SELECT count(*) FROM hot.log").fetchall() > before

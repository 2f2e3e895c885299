"""A part on a server whose stream is trimmed: what it did not read comes from the archive's files, or it says that it cannot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import pytest

from bus.context import Context
from bus.server import EmbeddedServer
from bus.store import INVOCATIONS
from projections.partition import Partition
from projections.trimmed import HistoryGone
from services.app.part import Part, Place, open_part
from tests.projections.archive.rig import Rig, open_rig
from tests.projections.stand import LIMIT_S

pytestmark = pytest.mark.slow

#: What is folded from the events, whoever does so.
FOLDED = ("hot.invocations", "hot.claims", "spend", "invocations", "claims", "attempts")


@pytest.fixture
async def rig(server: EmbeddedServer, tmp_path: Path) -> AsyncIterator[Rig]:
    """A log, the tables of a single projector, and no archive yet."""
    async with open_rig(server.url, tmp_path / "home") as opened:
        yield opened


def place(rig: Rig, folder: Path, *, archive: bool = True) -> Place:
    """The part that has the project of the rig's work, of two."""
    number = Partition(0, 2).of_project("shop")
    return Place(
        partition=Partition(number, 2),
        folder=folder,
        archive=rig.root if archive else None,
        memory_mb=192,
        publish_s=0.05,
    )


@asynccontextmanager
async def running(rig: Rig, where: Place) -> AsyncIterator[Part]:
    """A part that runs until the end of the block, and publishes its last copy then."""
    async with open_part(Context(url=rig.url), where) as part:
        task = asyncio.create_task(part.run())
        try:
            await until(task, lambda: part.projector.positions and not part.projector.primary.building)
            yield part
            await part.projector.finish()
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def until(task: asyncio.Task[None], condition: Callable[[], Any]) -> None:
    """Wait until a condition holds that no event announces; a task that has failed fails the test."""
    async with asyncio.timeout(LIMIT_S):
        while not condition():
            if task.done():
                task.result()
            await asyncio.sleep(0.005)


async def caught_up(part: Part) -> None:
    """Wait until its tables hold all that is stored."""
    async with asyncio.timeout(LIMIT_S):
        await part.projector.caught_up()


async def trim(rig: Rig, up_to: int) -> None:
    """Archive everything, and let the stream begin behind a sequence."""
    await rig.feed()
    await rig.archiver(rows=4, hot_s=1e9).look(at_once=True)
    await rig.bus.connection.api(f"STREAM.PURGE.{INVOCATIONS}", {"seq": up_to + 1})


def rows(connection: duckdb.DuckDBPyConnection, name: str) -> list[str]:
    """All rows of a table, in an order that does not depend on how they came."""
    return sorted(map(repr, connection.execute(f"FROM {name}").fetchall()))


async def agrees(rig: Rig, where: Place) -> None:
    """The published copy has the rows of the single projector, and of the log what the stream still holds."""
    await rig.feed()
    first = await rig.first()
    with duckdb.connect(str(where.files.published), read_only=True) as part:
        for name in FOLDED:
            assert rows(part, name) == await rig.database.run(partial(rows, name=name)), name
        log = part.execute("SELECT seq FROM hot.log WHERE stream = 'INVOCATIONS' ORDER BY seq").fetchall()
        assert log == [(seq,) for seq in range(first, await rig.last() + 1)]
        assert part.execute("SELECT count(*) FROM archive_segments").fetchall() == [(0,)]


@pytest.mark.soak
async def test_part_of_a_trimmed_stream_begins_with_the_archive(rig: Rig, tmp_path: Path) -> None:
    """What had left the stream before the part began is in its tables, from the files; its log begins where the stream does."""
    await rig.work(4)
    # In the middle of a file, and of a life.
    await trim(rig, 7)
    where = place(rig, tmp_path / "parts")
    async with running(rig, where) as part:
        await rig.work(1)
        await caught_up(part)
    await agrees(rig, where)


@pytest.mark.soak
async def test_part_without_the_archive_says_what_it_lacks(rig: Rig, tmp_path: Path) -> None:
    """A part that cannot have the beginning publishes nothing, names the message and the remedy, and begins once it can."""
    await rig.work(2)
    await trim(rig, 4)
    lacking = place(rig, tmp_path / "parts", archive=False)
    with pytest.raises(HistoryGone, match=r"expected message 1 of INVOCATIONS, got: the stream begins at 5.*--archive"):
        async with running(rig, lacking):
            pass
    assert not lacking.files.published.exists()
    where = place(rig, tmp_path / "parts")
    async with running(rig, where) as part:
        await caught_up(part)
    await agrees(rig, where)


async def test_part_that_was_away_while_the_stream_was_trimmed_misses_nothing(rig: Rig, tmp_path: Path) -> None:
    """A reader that meets the gap stops before it, and goes on with the files; so does a part that is started behind it."""
    where = place(rig, tmp_path / "parts")
    await rig.work(1)
    async with running(rig, where) as part:
        await caught_up(part)
    await rig.work(2)
    await trim(rig, 6)
    async with open_part(Context(url=rig.url), where) as reader:
        # As one that was cut off from the server meanwhile: it knows what it has read, and nothing of the trim.
        reader._trimmed._part.reached.seq = 3
        await reader._follow()
        found = await reader.projector.primary.database.positions()
        assert (found[INVOCATIONS].seq, reader.projector.applied) == (6, 0)
        await reader.projector.primary.close()
    await rig.work(1)
    await trim(rig, 10)
    async with running(rig, where) as part:
        await caught_up(part)
    await agrees(rig, where)


@pytest.mark.soak
async def test_message_that_a_person_deleted_stops_no_part(rig: Rig, tmp_path: Path) -> None:
    """Sequences that are missing in the middle of the stream are told from those that were trimmed, and passed."""
    await rig.work(2)
    for seq in (2, 4):
        await rig.bus.connection.api(f"STREAM.MSG.DELETE.{INVOCATIONS}", {"seq": seq})
    where = place(rig, tmp_path / "parts", archive=False)
    async with running(rig, where) as part:
        await caught_up(part)
        assert part._trimmed._part.reached.absent == {(2, 2), (4, 4)}
    with duckdb.connect(str(where.files.published), read_only=True) as published:
        log = published.execute("SELECT seq FROM hot.log WHERE stream = 'INVOCATIONS' ORDER BY seq").fetchall()
        assert log == [(1,), (3,), (5,), (6,)]


@pytest.mark.soak
async def test_log_of_a_part_is_cut_with_the_stream(rig: Rig, tmp_path: Path) -> None:
    """Rows whose messages leave the stream while the part runs leave its log with the next copy, and no other table."""
    where = place(rig, tmp_path / "parts", archive=False)
    await rig.work(2)
    async with running(rig, where) as part:
        await caught_up(part)
        await trim(rig, 3)
        await rig.work(1)
        await caught_up(part)
    await agrees(rig, where)

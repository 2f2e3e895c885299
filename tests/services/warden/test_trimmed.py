"""The warden on a log whose beginning is in the archive: nothing that it enforces shrinks, nothing that is open vanishes."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bus import plan
from bus.events import invocation as ev
from bus.store import INVOCATIONS
from bus.subjects import Ref
from projections.database import Database
from services.fleet.spec import Cap, Role, TraceHandler, Window
from services.quota.lines import QuotaLine
from services.warden import journal
from services.warden.loops import Loops
from services.warden.sweeper import Sweeper
from tests.projections.archive.rig import Clock, archiver, feed, open_database
from tests.services.rig import Rig, until
from tests.services.warden.test_treasurer import lines

pytestmark = pytest.mark.slow


@pytest.fixture
async def database(rig: Rig) -> AsyncIterator[Database]:
    """The tables, which an archiver needs."""
    opened = await open_database(rig.home)
    yield opened
    await opened.end()


async def archive(rig: Rig, database: Database) -> int:
    """Archive everything, and trim what no open work needs; the first sequence that is left. Caps do not hold it."""
    await feed(rig.bus, database, (INVOCATIONS,))
    clock, real = Clock(), rig.bus.author.clock
    clock.moment = datetime.now(UTC) + timedelta(hours=1)
    rig.bus.author.clock = clock
    try:
        one = archiver(rig.bus, database, rig.home)
        await one.look(at_once=True)
        assert one.problem == ""
    finally:
        rig.bus.author.clock = real
    return int((await rig.connection.api(f"STREAM.INFO.{INVOCATIONS}"))["state"]["first_seq"])


async def spent(rig: Rig, tokens: int) -> Ref:
    """An invocation of shop/coder that was claimed and used so many tokens, as a runner writes it."""
    ref = Ref("shop", "coder", rig.bus.author.new_id())
    author, store = rig.bus.author, rig.bus.store
    await store.append(author.invocation(ref, ev.Requested(root=ref.id)))
    await store.append(author.invocation(ref, claimed("gone")))
    usage = ev.Usage(input_tokens=tokens)
    await store.append(author.invocation(ref, ev.Completed(holder="gone", delivery=1, usage=usage)))
    return ref


def claimed(holder: str) -> ev.Claimed:
    """A claim."""
    return ev.Claimed(holder=holder, runner="r", delivery=1, attempt=1, reply="")


async def used(rig: Rig) -> QuotaLine:
    """The cap's line once the log is folded."""
    async with asyncio.timeout(30):
        while True:
            (line,) = await lines(rig)
            if "being read" not in line.problem and "being made" not in line.problem:
                return line
            await asyncio.sleep(0.02)


async def capped(rig: Rig) -> None:
    """A monthly cap over shop/coder."""
    await rig.put("shop/coder", Role(handler=TraceHandler(), caps=(Cap(cap=1000, window=Window.MONTH),)))
    declared = journal.declared(rig.registry)
    await plan.apply(rig.connection, declared, await plan.plan(rig.connection, declared))


async def test_enforced_spend_is_whole_without_a_checkpoint(rig: Rig, database: Database) -> None:
    """A warden that lost its checkpoint, on a log that was trimmed below the cap's window, counts the month from the archive."""
    await capped(rig)
    for _ in range(3):
        await spent(rig, 100)
    assert await archive(rig, database) == 9
    await rig.warden()
    line = await used(rig)
    assert (line.used, line.problem) == (300, "")


async def test_spend_that_nobody_can_count_is_said(rig: Rig, database: Database) -> None:
    """Where the archive of the trimmed log is not there, the cap's line says that earlier spend does not count."""
    await capped(rig)
    await spent(rig, 100)
    await spent(rig, 100)
    await archive(rig, database)
    shutil.rmtree(rig.home / "archive")
    await rig.warden()
    line = await used(rig)
    assert "earlier spend does not count" in line.problem


async def test_open_work_is_found_without_a_checkpoint(rig: Rig, database: Database) -> None:
    """A claim of a dead holder from before and after a trim is swept by a warden that begins with nothing."""
    await rig.put("shop/coder", Role(handler=TraceHandler()))
    declared = journal.declared(rig.registry)
    await plan.apply(rig.connection, declared, await plan.plan(rig.connection, declared))
    await spent(rig, 1)
    ref = Ref("shop", "coder", rig.bus.author.new_id())
    await rig.bus.store.append(rig.bus.author.invocation(ref, ev.Requested(root=ref.id)))
    await rig.bus.store.append(rig.bus.author.invocation(ref, claimed("dead")))
    await spent(rig, 1)
    assert await archive(rig, database) == 4
    sweeper = Sweeper(rig.bus, rig.registry, rig.home)
    task = asyncio.create_task(sweeper.run())
    try:
        await until(lambda: sweeper.lag == 0)
        assert set(sweeper.work.open) == {ref.id}
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_checkpoint_from_before_the_trim_leaves_no_ghost(rig: Rig, database: Database, tmp_path: Path) -> None:
    """What a checkpoint holds as running, and what ended and was trimmed since, is not running for the next warden."""
    await rig.put("shop/coder", Role(handler=TraceHandler()))
    ref = Ref("shop", "coder", rig.bus.author.new_id())
    await rig.bus.store.append(rig.bus.author.invocation(ref, ev.Requested(root=ref.id)))
    await rig.bus.store.append(rig.bus.author.invocation(ref, claimed("alive")))
    folder = tmp_path / "run"
    folder.mkdir()
    before = Sweeper(rig.bus, rig.registry, folder)
    trees = Loops(rig.bus, rig.registry, folder)
    tasks = [asyncio.create_task(before._follow_log()), asyncio.create_task(trees._follow())]
    await until(lambda: before.work.position == 2 and trees.forest.position == 1)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    created = (await rig.connection.api(f"STREAM.INFO.{INVOCATIONS}"))["created"]
    before._save(created)
    trees._save(created)
    await rig.bus.store.append(rig.bus.author.invocation(ref, ev.Completed(holder="alive", delivery=1)))
    await spent(rig, 1)
    assert await archive(rig, database) == 6
    after = Sweeper(rig.bus, rig.registry, folder)
    grown = Loops(rig.bus, rig.registry, folder)
    tasks = [asyncio.create_task(after._follow_log()), asyncio.create_task(grown._follow())]
    try:
        await until(lambda: after.lag == 0 and after.work.position == 6 and grown._caught_up)
        assert (after.work.open, after.work.by_holder) == ({}, {})
        assert (grown.forest.trees, grown.forest.seeds) == ({}, {})
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_log_that_a_person_emptied_is_folded(rig: Rig) -> None:
    """A warden on a stream whose every message was purged by hand is ready, and does not wait for a message that will not come."""
    await capped(rig)
    await spent(rig, 100)
    await rig.connection.api(f"STREAM.PURGE.{INVOCATIONS}", {})
    await rig.warden()
    line = await used(rig)
    assert line.used == 0
    assert line.problem


async def test_trim_while_the_log_is_read_begins_the_fold_anew(rig: Rig, database: Database) -> None:
    """A fold that finds messages behind its position gone does not go on with what it holds, and ends with what is open."""
    await rig.put("shop/coder", Role(handler=TraceHandler()))
    ref = Ref("shop", "coder", rig.bus.author.new_id())
    await rig.bus.store.append(rig.bus.author.invocation(ref, ev.Requested(root=ref.id)))
    sweeper = Sweeper(rig.bus, rig.registry, rig.home)
    task = asyncio.create_task(sweeper._follow_log())
    try:
        await until(lambda: sweeper.work.position == 1)
        follower = sweeper._log
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await rig.bus.store.append(rig.bus.author.invocation(ref, ev.Cancelled()))
        await spent(rig, 1)
        assert await archive(rig, database) == 5
        # The follower makes a consumer again, as after a lost connection: what it had not read yet is gone.
        sweeper._log = follower
        task = asyncio.create_task(sweeper._follow_log())
        await until(lambda: sweeper.work.position == 5)
        assert sweeper.work.open == {}
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

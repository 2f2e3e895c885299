"""Tables made from the archive alone, while nothing runs, and a projector that goes on from there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bus.events import projection as ev
from bus.server import EmbeddedServer
from bus.store import CONTROL, INVOCATIONS
from projections import history, rebuild
from projections.primary import Files
from projections.projector import Projector
from tests.projections.archive.rig import Rig, open_rig
from tests.projections.stand import LIMIT_S, QUICK, Stand


@pytest.fixture
async def rig(server: EmbeddedServer, tmp_path: Path) -> AsyncIterator[Rig]:
    """A log, its tables, and no archive yet."""
    async with open_rig(server.url, tmp_path) as opened:
        yield opened


@pytest.mark.slow
async def test_projector_goes_on_from_tables_that_were_made_offline(rig: Rig) -> None:
    """What was trimmed comes from the archive, what came since from the stream, each once; the event says why."""
    await rig.work(5)
    await rig.feed()
    await rig.archiver(rows=4, hot_s=1e9).look(at_once=True)
    await rig.bus.connection.api(f"STREAM.PURGE.{INVOCATIONS}", {"seq": 12})
    await rig.work(1)
    await rig.database.close()
    files = Files(rig.home / "projections", rig.home / "fleet.duckdb")
    assert await rebuild.offline(files, rig.home, "ann: to see", rig.clock.now) == 15
    stand = Stand(rig.bus, rig.home)
    archived = rebuild.Archived(rig.home, rig.bus.connection, history.Cold(rig.home))
    options = stand.projector(pace=QUICK)._options
    projector = Projector(rig.bus.connection, rig.bus.store, rig.bus.author, options, archived)
    async with stand.running(projector), asyncio.timeout(LIMIT_S):
        while not projector.positions:
            await asyncio.sleep(0.01)
        await projector.caught_up()
        assert projector.applied < 15
        with projector.cursor() as cursor:
            found = cursor.execute("SELECT seq FROM events WHERE stream = 'INVOCATIONS' ORDER BY seq").fetchall()
            assert found == [(seq,) for seq in range(1, 19)]
            assert cursor.execute("SELECT count(*) FROM invocations WHERE state = 'completed'").fetchall() == [(6,)]
    said = [record.data async for record in rig.bus.store.read(CONTROL, "ctl.projection.*.rebuilt")]
    assert [event.why for event in said if isinstance(event, ev.Rebuilt)] == ["ann: to see"]

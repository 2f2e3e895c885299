"""Everything from a moment on, whether it is still in the stream or not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bus.server import EmbeddedServer
from bus.store import INVOCATIONS, Recorded
from services import archive
from tests.projections.archive.rig import Rig, open_rig

LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


@pytest.fixture
async def rig(server: EmbeddedServer, tmp_path: Path) -> AsyncIterator[Rig]:
    """A log, its tables, and no archive yet."""
    async with open_rig(server.url, tmp_path) as opened:
        yield opened


async def found(rig: Rig, moment: datetime, told: list[str]) -> list[Recorded]:
    """What there is since a moment."""
    return [record async for record in archive.since(rig.bus, rig.root, moment, told.append)]


async def test_what_has_left_the_stream_is_read_from_the_archive(rig: Rig) -> None:
    """Records of files and stream are those that the stream had, each once and in order, also where the two overlap."""
    await rig.work(5)
    told: list[str] = []
    whole = await found(rig, LONG_AGO, told)
    await rig.feed()
    await rig.archiver(rows=4, hot_s=1e9).look(at_once=True)
    await rig.bus.connection.api(f"STREAM.PURGE.{INVOCATIONS}", {"seq": 7})
    await rig.work(1)
    now = await found(rig, LONG_AGO, told)
    assert [(r.seq, r.event) for r in now[:15]] == [(r.seq, r.event) for r in whole]
    assert [r.seq for r in now] == list(range(1, 19))
    moment = whole[4].stored_at
    assert [r.seq for r in await found(rig, moment, told)] == [r.seq for r in now if r.stored_at >= moment]
    assert told == []


async def test_what_is_in_neither_is_told(rig: Rig) -> None:
    """Of records that were trimmed and are in no file it is said where they would have to be; the others come all the same."""
    await rig.work(2)
    await rig.bus.connection.api(f"STREAM.PURGE.{INVOCATIONS}", {"seq": 4})
    told: list[str] = []
    assert [r.seq for r in await found(rig, LONG_AGO, told)] == [4, 5, 6]
    assert "up to 3, where the stream begins" in told[0]

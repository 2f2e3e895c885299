"""The projector as a daemon: on the panel, in a freeze, and at its end."""

from __future__ import annotations

import asyncio

import duckdb
import msgspec
import pytest

from bus.events.freeze import Receipt, Stage
from bus.store import INVOCATIONS
from projections.archive.archiver import Status
from projections.standing import SUBJECT, State
from projections.streams import last
from services.app.projector import start_projector
from services.health.gather import gather
from services.health.panel import Panel
from services.projector import archiving
from tests.chaos.story import LIMIT_S
from tests.services.rig import Rig

pytestmark = pytest.mark.slow


async def panel(rig: Rig) -> Panel:
    """The panel, with the projector's evidence on it, which its second beat has, and its tables made."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            seen = await gather(rig.bus, rig.registry)
            line = next((d for d in seen.daemons if d.name == "projector"), None)
            if line is not None and line.handled and seen.tables is not None and seen.tables.state is State.FOLLOWING:
                return seen
            await asyncio.sleep(0.05)


async def test_panel_shows_the_projector_and_how_far_its_tables_are(rig: Rig) -> None:
    """A living projector has a line with evidence, and the panel one for its tables."""
    running = await rig._daemon("projector", "projector")
    await start_projector(running, memory_mb=128, publish_s=0.1)
    seen = await panel(rig)
    assert seen.tables is not None
    assert (seen.tables.state, seen.tables.problem, seen.tables.concern) == (State.FOLLOWING, "", "")
    assert {d.name: d.state.value for d in seen.daemons} == {"projector": "alive"}


async def test_projector_that_beats_and_does_not_answer_is_no_nominal_one(rig: Rig) -> None:
    """Of a projector that is alive and answers nobody, the panel says that it cannot see how far the tables are."""
    running = await rig._daemon("projector", "projector")
    await running.announce()
    silent = await gather(rig.bus, rig.registry)
    assert silent.tables is None
    assert any("the projector does not answer" in reason for reason in silent.reasons)


async def test_projector_gives_its_receipts(rig: Rig) -> None:
    """In a freeze the projector owes a receipt and gives it, and one for the thaw; its tables go on meanwhile."""
    await rig.warden()
    running = await rig._daemon("projector", "projector")
    await start_projector(running, memory_mb=128, publish_s=0.1)
    for value, stage in ((b"frozen", Stage.FREEZE), (b"clear", Stage.THAW)):
        await rig.bucket("flags").put("kill_switch", value)

        def given(wanted: Stage = stage) -> Receipt | None:
            receipts = [r.data for r in rig.control.records if isinstance(r.data, Receipt)]
            return next((r for r in receipts if r.instance == "projector" and r.stage is wanted), None)

        receipt = await rig.control.until(given)
        assert receipt.boot_id == running.boot_id
        if stage is Stage.FREEZE:
            # A flag that is cleared before the server refuses anything has frozen nothing, and thaws nothing.
            await rig.control.until(lambda: any(r.subject.endswith(".frozen") for r in rig.control.records))
    await rig.control.until(lambda: any(r.subject.endswith(".thawed") for r in rig.control.records))


async def test_copy_at_the_end_holds_all_that_was_applied(rig: Rig) -> None:
    """A projector that is asked to stop publishes what its pace had put off, and says on the bus that it stopped."""
    running = await rig._daemon("projector", "projector")
    # The first copy comes at once; the next one would come in an hour.
    await start_projector(running, memory_mb=128, publish_s=3600.0)
    tables = rig.home / "fleet.duckdb"
    async with asyncio.timeout(LIMIT_S):
        while not tables.exists():
            await asyncio.sleep(0.02)
    await rig.role("shop/coder", lambda value: value)
    asked = await rig.ask("shop/coder", 1)
    async with asyncio.timeout(LIMIT_S):
        while b'"behind":0' not in (await rig.connection.nc.request(SUBJECT, b"", timeout=2)).data.split(b"CONTROL")[0]:
            await asyncio.sleep(0.02)
    await rig.end(running)
    with duckdb.connect(str(tables), read_only=True) as copy:
        assert copy.execute("SELECT count(*) FROM hot.invocations WHERE id = ?", [asked.id]).fetchall() == [(1,)]
    await rig.control.until(
        lambda: any(r.subject == f"ctl.daemon.projector_{running.host}.stopped" for r in rig.control.records)
    )


async def test_archive_that_is_asked_at_once_waits_for_tables_that_are_made(rig: Rig) -> None:
    """What is asked of the archive while tables are made anew is answered when they have caught up, with all that was in the stream."""
    running = await rig._daemon("projector", "projector")
    await start_projector(running, memory_mb=128, publish_s=3600.0)
    await rig.role("shop/coder", lambda value: value)
    for number in range(3):
        await rig.ask("shop/coder", number)
    head = await last(rig.bus.connection, INVOCATIONS)
    # The first of the two is answered while the projector opens its tables for the first time.
    for before in (None, archiving.REBUILD):
        if before is not None:
            await rig.connection.nc.request(before, b"to see", timeout=LIMIT_S)
        answer = await rig.connection.nc.request(archiving.NOW, b"", timeout=LIMIT_S)
        assert answer.headers is None, answer.headers
        found = msgspec.json.decode(answer.data, type=Status)
        assert (found.problem, found.archived[INVOCATIONS]) == ("", head)

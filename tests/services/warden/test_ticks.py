"""Ticks of a real server become requests: each due time has one outcome, whatever happens to the warden."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from bus.events.invocation import Requested
from bus.events.schedule import Missed, MissReason
from bus.invocation import Cancel, Limits
from bus.subjects import Ref
from services.fleet.entries import role_key
from services.fleet.spec import Overlap, Schedule
from tests.services.rig import Rig

SECOND = Schedule(cron="@every 1s", overlap=Overlap.ALLOW)


async def echo(input: Any) -> Any:
    """A handler that gives back what it gets."""
    return input


async def for_ever(_input: Any) -> None:
    """A handler that ends only when it is told to."""
    await asyncio.Event().wait()


def asked(rig: Rig) -> list[Requested]:
    """Requests that a schedule made, in order."""
    return [r.data for r in rig.story.records if isinstance(r.data, Requested) and r.data.schedule]


def missed(rig: Rig) -> list[Missed]:
    """Due times that passed without a request, in order."""
    return [r.data for r in rig.control.records if isinstance(r.data, Missed)]


def outcomes(rig: Rig) -> list[datetime]:
    """Due times that have their outcome, sorted."""
    return sorted([due for r in asked(rig) if (due := r.due)] + [m.due for m in missed(rig)])


@pytest.mark.slow
async def test_ticks_have_one_outcome_each_over_a_restart(rig: Rig) -> None:
    """Due times before, during and after the warden's absence: each is asked or missed once, and none is left out."""
    await rig.role("shop/clock", echo, schedules={"steady": SECOND})
    first, _ = await rig.warden()
    await rig.story.until(lambda: len(asked(rig)) >= 2)
    await rig.end(first)
    away = len(outcomes(rig))
    await asyncio.sleep(2.5)
    assert len(outcomes(rig)) == away
    await rig.warden()
    await rig.story.until(lambda: len(asked(rig)) >= 4)
    dues = outcomes(rig)
    steps = {later - earlier for earlier, later in pairwise(dues)}
    assert steps == {timedelta(seconds=1)}
    assert {m.reason for m in missed(rig)} <= {MissReason.SUPERSEDED}
    assert all(r.due and r.schedule == "steady" for r in asked(rig))


@pytest.mark.slow
@pytest.mark.parametrize("overlap", [Overlap.ALLOW, Overlap.SKIP])
async def test_ticks_have_one_outcome_when_the_memory_of_it_is_lost(rig: Rig, overlap: Overlap) -> None:
    """A crash between an outcome and its memory, found by a warden that comes later: no due time gets a second outcome."""
    schedule = msgspec.structs.replace(SECOND, overlap=overlap)
    await rig.role("shop/clock", for_ever, schedules={"steady": schedule}, grace=0)
    await rig.runner()
    first, _ = await rig.warden()
    memory = rig.bucket("schedules")
    await rig.story.until(lambda: len(asked(rig)) >= 1)
    async with asyncio.timeout(30):
        while (before := await memory.get("shop.clock.steady")) is None:
            await asyncio.sleep(0.01)
    handled = len(outcomes(rig))
    story = rig.story if overlap is Overlap.ALLOW else rig.control
    await story.until(lambda: len(outcomes(rig)) > handled)
    await rig.end(first)
    await memory.put("shop.clock.steady", before.value)
    await asyncio.sleep(1.5)
    seen = len(outcomes(rig))
    await rig.warden()
    await story.until(lambda: len(outcomes(rig)) >= seen + 3)
    found = outcomes(rig)
    assert {later - earlier for earlier, later in pairwise(found)} == {timedelta(seconds=1)}
    assert len(asked(rig)) == 1 or overlap is Overlap.ALLOW


@pytest.mark.slow
async def test_ticks_found_too_late_are_missed_on_the_record(rig: Rig) -> None:
    """A due time older than catch_up is not run late: an event says that it was missed, and why."""
    await rig.role("shop/clock", echo, schedules={"steady": msgspec.structs.replace(SECOND, catch_up=0.9)})
    first, _ = await rig.warden()
    await rig.story.until(lambda: len(asked(rig)) >= 1)
    await rig.end(first)
    await asyncio.sleep(2.5)
    await rig.warden()
    await rig.control.until(lambda: any(m.reason is MissReason.TOO_LATE for m in missed(rig)))
    found = next(m for m in missed(rig) if m.reason is MissReason.TOO_LATE)
    assert (found.project, found.role, found.schedule) == ("shop", "clock", "steady")
    assert len(set(outcomes(rig))) == len(outcomes(rig))


async def test_ticks_are_skipped_while_the_last_one_runs(rig: Rig) -> None:
    """With overlap = skip a due time is missed while the one before it runs, and the event names that one."""
    await rig.role(
        "shop/clock", for_ever, schedules={"steady": msgspec.structs.replace(SECOND, overlap=Overlap.SKIP)}, grace=0
    )
    await rig.warden()
    await rig.runner()
    await rig.control.until(lambda: len(missed(rig)) >= 2)
    (request,) = asked(rig)
    assert {(m.reason, m.running) for m in missed(rig)} == {(MissReason.OVERLAP, request.root)}


async def test_ticks_cancel_the_previous_one(rig: Rig) -> None:
    """With overlap = cancel_previous each due time calls the one before it off, with the reason, and runs itself."""
    schedule = msgspec.structs.replace(SECOND, overlap=Overlap.CANCEL_PREVIOUS)
    await rig.role("shop/clock", for_ever, schedules={"steady": schedule}, grace=0)
    await rig.warden()
    await rig.runner()
    await rig.story.until(lambda: len(asked(rig)) >= 3)
    first, second, *_ = [request.root for request in asked(rig)]
    for id_ in (first, second):
        cancelled = await rig.story.event(id_, "cancelled")
        assert "cancel_previous" in cancelled.data.reason
    assert missed(rig) == []


async def test_ticks_of_a_delayed_request_come_on_time(rig: Rig) -> None:
    """A delayed request is scheduled, and requested at its time and not before; a cancelled one never is."""
    await rig.role("shop/coder", echo)
    await rig.warden()
    await rig.runner()
    due = rig.bus.author.now() + timedelta(seconds=3)
    on, off = await rig.ask("shop/coder", 1, due=due), await rig.ask("shop/coder", 2, due=due)
    await rig.bus.invocations.carry_out(Ref("shop", "coder", off.id), Cancel(), Limits())
    requested = await rig.story.event(on.id, "requested")
    assert requested.stored_at >= due
    await rig.story.event(on.id, "completed")
    assert rig.story.events[on.id] == ["scheduled", "requested", "claimed", "completed"]
    assert rig.story.events[off.id] == ["scheduled", "cancelled"]


async def test_ticks_end_with_their_role(rig: Rig) -> None:
    """A schedule whose role left the registry is taken off the server."""
    await rig.role("shop/clock", echo, schedules={"steady": SECOND})
    await rig.warden()
    await rig.story.until(lambda: asked(rig))
    await rig.bucket("registry").delete(role_key("shop", "clock"))
    async with asyncio.timeout(30):
        while await rig.bus.schedules.pattern("cron.shop.clock.steady") is not None:
            await asyncio.sleep(0.05)


async def test_ticks_go_on_beside_a_schedule_that_nobody_understands(rig: Rig) -> None:
    """A cron that was put into the registry by hand and means nothing stops neither the warden nor other schedules."""
    await rig.role("shop/clock", echo, schedules={"steady": SECOND})
    _, task = await rig.warden()
    await rig.story.until(lambda: asked(rig))
    for number, cron in enumerate(("every now and then", "99 * * * * *", "0 0 0 31 2 *")):
        value = {
            "handler": {"kind": "function", "target": "x:y"},
            "schedules": {"bad": {"cron": cron}, "zone": {"cron": "0 0 8 * * *", "time_zone": "Mars/Base"}},
        }
        await rig.bucket("registry").put(f"roles.shop.bad{number}", msgspec.json.encode(value))
    # Ticks for them, as a person could publish them.
    for name in ("shop.bad0.bad", "shop.bad1.zone", "shop.nobody.x"):
        await rig.connection.nc.publish(f"tick.cron.{name}", b"{}")
    for subject in (
        "tick.x",
        "tick.cron.a.b$.c",
        "tick.delayed.shop.coder.*",
        "tick.cron.a",
        "tick.delayed.shop.coder.x",
        "tick.delayed.a.b.c.d",
    ):
        await rig.connection.nc.publish(subject, b"rubbish")
    await rig.role("shop/late", echo, schedules={"also": SECOND})
    before = len(asked(rig))
    await rig.story.until(lambda: len([r for r in asked(rig) if r.schedule == "also"]) >= 2)
    assert len(asked(rig)) > before
    assert not task.done()

"""A runner in a freeze: what is in hand is neither lost nor counted against anybody."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest

from bus.events import invocation as ev
from bus.refusal import Reason, Refusal
from bus.store import CONTROL, Recorded
from bus.trips import RAMP
from services.fleet.spec import ExecHandler, OnFreeze, Role
from services.warden.stranded import LOST_AFTER_S
from tests.services.rig import Rig, until


async def freeze(rig: Rig) -> str:
    """Throw the switch and wait for the server layer: the freeze's id."""
    revision = await rig.bucket("flags").put("kill_switch", b"frozen")
    await rig.control.subject(lambda r: r.subject == f"ctl.freeze.r{revision}.frozen")
    return f"r{revision}"


async def thaw(rig: Rig, id_: str) -> Any:
    """Clear the switch and wait until all is released: the thawed event."""
    await rig.bucket("flags").put("kill_switch", b"clear")
    return (await rig.control.subject(lambda r: r.subject == f"ctl.freeze.{id_}.thawed")).data


async def test_result_of_a_freeze_is_spooled_and_settled_at_the_thaw(rig: Rig) -> None:
    """A handler that ends in a freeze writes nothing; its result lies on the disk and is in the log after the thaw."""
    finish = asyncio.Event()

    async def slow(input: Any) -> Any:
        await finish.wait()
        return {"got": input}

    await rig.role("shop/slow", slow)
    await rig.warden()
    await rig.runner()
    accepted = await rig.ask("shop/slow", 7)
    await rig.story.event(accepted.id, "claimed")
    id_ = await freeze(rig)
    finish.set()
    spool = rig.home / "spool"
    await until(lambda: spool.is_dir() and list(spool.glob(f"{accepted.id}.*.json")))
    assert not rig.story.of(accepted.id, "completed")
    thawed = await thaw(rig, id_)
    assert thawed.written == 0
    completed = await rig.story.event(accepted.id, "completed")
    assert bytes(completed.data.output) == b'{"got":7}'
    assert [r.subject.rpartition(".")[2] for r in rig.story.of(accepted.id)] == ["requested", "claimed", "completed"]
    await until(lambda: not list(spool.glob("*")))
    receipts = [r.data async for r in rig.bus.store.read(CONTROL, f"ctl.freeze.{id_}.receipt")]
    assert {(r.stage, r.held) for r in receipts if r.daemon == "agent_runner"} == {("freeze", 1), ("thaw", 1)}


async def test_handler_that_is_to_stop_is_put_back_at_the_thaw(rig: Rig) -> None:
    """With on_freeze = stop a handler is cut, and its work runs again after the thaw, at its first attempt."""
    begun = asyncio.Queue[int]()

    async def slow(input: Any) -> Any:
        begun.put_nowait(1)
        if begun.qsize() == 1:
            await asyncio.sleep(3600)
        return input

    await rig.role("shop/slow", slow, on_freeze=OnFreeze.STOP)
    await rig.warden()
    await rig.runner()
    accepted = await rig.ask("shop/slow", 7)
    await rig.story.event(accepted.id, "claimed")
    await until(lambda: begun.qsize() == 1)
    id_ = await freeze(rig)
    await thaw(rig, id_)
    released = await rig.story.event(accepted.id, "released")
    assert released.data.reason is ev.ReleaseReason.FREEZE
    await rig.story.event(accepted.id, "completed")
    assert [r.data.attempt for r in rig.story.of(accepted.id, "claimed")] == [1, 1]


async def test_handler_whose_asking_is_refused_by_a_freeze_is_not_blamed(rig: Rig) -> None:
    """A handler that fails because the freeze refuses what it asks goes back to the queue, and no error is counted."""
    go = asyncio.Event()

    async def asking(input: Any, ctx: Any) -> Any:
        if not go.is_set():
            await go.wait()
            await ctx.request("shop/echo", 1)
        return input

    async def echo(input: Any) -> Any:
        return input

    await rig.role("shop/echo", echo)
    await rig.role("shop/asking", asking)
    await rig.warden()
    await rig.runner()
    accepted = await rig.ask("shop/asking", 7)
    await rig.story.event(accepted.id, "claimed")
    id_ = await freeze(rig)
    go.set()
    await thaw(rig, id_)
    await rig.story.event(accepted.id, "completed")
    assert not rig.story.of(accepted.id, "failed")


async def test_later_boot_settles_what_an_earlier_one_spooled(rig: Rig) -> None:
    """A runner that ends in the freeze leaves its result in the spool; its successor writes it under the old claim."""
    finish = asyncio.Event()
    calls = 0

    async def slow(input: Any) -> Any:
        nonlocal calls
        calls += 1
        await finish.wait()
        return input

    await rig.role("shop/slow", slow, grace=0.2)
    await rig.warden()
    first, _ = await rig.runner()
    accepted = await rig.ask("shop/slow", 7)
    await rig.story.event(accepted.id, "claimed")
    id_ = await freeze(rig)
    finish.set()
    spool = rig.home / "spool"
    await until(lambda: spool.is_dir() and list(spool.glob(f"{accepted.id}.*.json")))
    await rig.end(first)
    assert list(spool.glob(f"{accepted.id}.*.json"))
    await rig.runner()
    await thaw(rig, id_)
    completed = await rig.story.event(accepted.id, "completed")
    assert completed.data.holder == first.boot_id
    assert calls == 1
    await until(lambda: not list(spool.glob("*")))


async def test_claim_of_a_holder_that_did_not_outlive_the_freeze_is_put_back(rig: Rig) -> None:
    """Work without a result whose runner ended in the freeze costs no attempt and no crash: it runs again after the thaw."""
    begun = 0

    async def slow(input: Any) -> Any:
        nonlocal begun
        begun += 1
        if begun == 1:
            await asyncio.sleep(3600)
        return input

    await rig.role("shop/slow", slow, grace=0.1)
    await rig.warden()
    first, _ = await rig.runner()
    accepted = await rig.ask("shop/slow", 7)
    await rig.story.event(accepted.id, "claimed")
    await until(lambda: begun == 1)
    id_ = await freeze(rig)
    await rig.end(first)
    await rig.runner()
    thawed = await thaw(rig, id_)
    assert thawed.put_back == 1
    await rig.story.event(accepted.id, "completed")
    assert [r.data.attempt for r in rig.story.of(accepted.id, "claimed")] == [1, 1]
    assert not rig.story.of(accepted.id, "swept")


async def test_nothing_is_claimed_in_a_freeze_and_everything_after_it(rig: Rig) -> None:
    """Requests that were waiting when the freeze came are neither claimed nor failed in it, and all completed after it."""

    async def echo(input: Any) -> Any:
        await asyncio.sleep(0.002)
        return input

    await rig.role("shop/echo", echo, concurrency=2)
    await rig.warden()
    await rig.runner()
    accepted = [await rig.ask("shop/echo", n) for n in range(200)]
    id_ = await freeze(rig)
    frozen = (await rig.control.subject(lambda r: r.subject == f"ctl.freeze.{id_}.frozen")).data
    assert (await rig.connection.api("STREAM.INFO.INVOCATIONS"))["state"]["last_seq"] == frozen.seq
    await thaw(rig, id_)
    for one in accepted:
        await rig.story.event(one.id, "completed")
    for one in accepted:
        assert len(rig.story.of(one.id, "claimed")) == 1


def seconds(claims: list[Recorded]) -> float:
    """From the first to the last of these claims."""
    at = [claim.stored_at for claim in claims]
    return (max(at) - min(at)).total_seconds()


async def test_ramp_releases_the_backlog_in_turns(rig: Rig) -> None:
    """After a thaw with a ramp claims take turns, also those of a backlog that fits into the runner's hand at once."""

    async def echo(input: Any) -> Any:
        return input

    await rig.role("shop/echo", echo)
    await rig.warden()
    accepted = [await rig.ask("shop/echo", n) for n in range(20)]
    id_ = await freeze(rig)
    await rig.runner()
    await rig.bucket("flags").put("kill_switch", b'{"mode":"clear","ramp":20}')
    claims = [await rig.story.event(one.id, "claimed") for one in accepted]
    assert seconds(claims) > (len(claims) - 2) / 20
    await rig.control.subject(lambda r: r.subject == f"ctl.freeze.{id_}.thawed")
    await until(lambda: rig.bus.gate.ramp is None)


async def test_ramp_that_is_halted_claims_no_more_and_goes_on_in_turns(rig: Rig) -> None:
    """A freeze in the middle of a ramp stops what is in hand as well; the next thaw's ramp holds for it from the first claim."""

    async def echo(input: Any) -> Any:
        return input

    await rig.role("shop/echo", echo)
    await rig.warden()
    accepted = [await rig.ask("shop/echo", n) for n in range(12)]
    await freeze(rig)
    await rig.runner()
    await rig.bucket("flags").put("kill_switch", b'{"mode":"clear","ramp":0.5}')
    await rig.story.event(accepted[0].id, "claimed")
    id_ = await freeze(rig)
    before = {one.id for one in accepted if rig.story.of(one.id, "claimed")}
    assert len(before) < 6
    await rig.bucket("flags").put("kill_switch", b'{"mode":"clear","ramp":10}')
    claims = [await rig.story.event(one.id, "claimed") for one in accepted if one.id not in before]
    assert seconds(claims) > (len(claims) - 2) / 10
    await rig.control.subject(lambda r: r.subject == f"ctl.freeze.{id_}.thawed")
    assert {(c.data.attempt, c.data.delivery) for c in claims} == {(1, 1)}


async def test_ramp_is_not_held_up_by_a_role_that_something_else_keeps_closed(rig: Rig) -> None:
    """A paused role's backlog does not keep the roles behind it, or the end of the thaw, waiting."""

    async def echo(input: Any) -> Any:
        return input

    await rig.role("shop/able", echo)
    await rig.role("shop/baker", echo)
    await rig.warden()
    await rig.runner()
    await rig.bus.trips.put("pause.shop.able", Refusal(reason=Reason.PAUSED, scope="shop/able"))
    await until(lambda: rig.bus.gate.trips)
    waits = await rig.ask("shop/able", 1)
    id_ = await freeze(rig)
    await rig.bucket("flags").put("kill_switch", b'{"mode":"clear","ramp":20}')
    await rig.control.subject(lambda r: r.subject == f"ctl.freeze.{id_}.thawed")
    await rig.bus.gate.opened()
    await rig.story.event((await rig.ask("shop/baker", 1)).id, "completed")
    assert not rig.story.of(waits.id, "claimed")


@pytest.mark.parametrize("thawed_first", [False, True])
async def test_child_that_a_freeze_refused_costs_no_attempt(rig: Rig, thawed_first: bool) -> None:
    """A child that ends with 75, as `systems gate` does, is put back if a freeze came while it ran, also one that is over."""
    script = "import os, sys, time\nwhile not os.path.exists(sys.argv[1]): time.sleep(0.01)\nsys.exit(int(open(sys.argv[1]).read()))"
    door = rig.home / "door"
    command = (sys.executable, "-c", script, str(door))
    await rig.declare("shop/child", Role(handler=ExecHandler(command=command), max_attempts=1))
    await rig.warden()
    await rig.runner()
    accepted = await rig.ask("shop/child")
    await rig.story.event(accepted.id, "claimed")
    id_ = await freeze(rig)
    await rig.control.subject(lambda r: r.subject == f"ctl.freeze.{id_}.receipt" and r.data.daemon == "agent_runner")
    if thawed_first:
        await thaw(rig, id_)
    door.write_text("75")
    if not thawed_first:
        await thaw(rig, id_)
    released = await rig.story.event(accepted.id, "released")
    assert released.data.reason is ev.ReleaseReason.FREEZE
    door.write_text("0")
    # It may have read the 75 once more: without a freeze that is an error like any other, which max_attempts forbids.
    second = await rig.story.event(accepted.id, "claimed", count=2)
    assert second.data.attempt == 1


@pytest.mark.soak
@pytest.mark.slow
async def test_work_that_waits_for_its_turn_is_not_taken_for_lost(rig: Rig) -> None:
    """What a runner holds without a claim, while other pulls wait, stays where it is for longer than a lost delivery would."""

    async def echo(input: Any) -> Any:
        return input

    await rig.role("shop/echo", echo)
    await rig.warden()
    await rig.runner()
    await rig.bus.trips.bucket.put(RAMP, b'{"per_second":0.15}')
    await until(lambda: rig.bus.gate.ramp is not None)
    accepted = [await rig.ask("shop/echo", n) for n in range(3)]
    second = await rig.story.until(
        lambda: (
            claims[1] if len(claims := [r for one in accepted for r in rig.story.of(one.id, "claimed")]) > 1 else None
        )
    )
    assert (
        second.stored_at - rig.story.of(accepted[2].id, "requested")[0].stored_at
    ).total_seconds() > LOST_AFTER_S + 2
    await rig.bus.trips.clear(RAMP)
    for one in accepted:
        await rig.story.event(one.id, "completed")
        assert not rig.story.of(one.id, "released")

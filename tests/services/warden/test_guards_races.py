"""The guards at bad moments: claims that changed hands, strangers' consumers, late heartbeats, letters that grow too long."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from bus import wire
from bus.events import deadletter
from bus.events import invocation as ev
from bus.invocation import Cancel, Claim, Limits, Sweep
from bus.liveness import Liveness
from bus.store import Recorded
from bus.subjects import Ref
from services.fleet.entries import role_key
from services.warden import sweeper as sweeper_module
from services.warden.graves import Graves, copy_of, fitting
from services.warden.sweeper import Sweeper
from tests.services.rig import Rig, until


def names(rig: Rig, id_: str) -> list[str]:
    """Names of an invocation's events, in order."""
    return rig.story.events.get(id_, [])


async def echo(input: Any) -> Any:
    """A handler that gives back what it gets."""
    return input


def claim_of(holder: str, delivery: int) -> Claim:
    """A claim whose delivery is nobody's."""
    return Claim(holder=holder, runner="r", delivery=delivery, reply="$JS.ACK.nowhere")


async def test_sweeper_spares_the_next_holder(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A claim that changed hands while the sweep of its dead holder waited for its turn is not taken from the living one."""
    await rig.role("shop/coder", echo)
    refs = [Ref("shop", "coder", (await rig.ask("shop/coder")).id) for _ in range(2)]
    for ref in refs:
        await rig.bus.invocations.carry_out(ref, claim_of("dead", 1), Limits())
    sweeper = Sweeper(rig.bus, rig.registry, rig.home)
    sweeper.holders.gone("dead", expired=False, now=0.0)
    carry_out = rig.bus.invocations.carry_out
    swept: asyncio.Queue[Ref] = asyncio.Queue()
    go = asyncio.Event()

    async def held_up(ref: Ref, command: Any, limits: Limits) -> Any:
        swept.put_nowait(ref)
        await go.wait()
        return await carry_out(ref, command, limits)

    async def folded(holder: str, count: int) -> None:
        async with asyncio.timeout(30):
            while len(sweeper.work.by_holder.get(holder, ())) != count:
                await asyncio.sleep(0.01)

    monkeypatch.setattr(sweeper_module, "_AT_ONCE", 1)
    monkeypatch.setattr(rig.bus.invocations, "carry_out", held_up)
    following = asyncio.create_task(sweeper._follow_log())
    await folded("dead", 2)
    sweeping = asyncio.create_task(sweeper.sweep())
    first = await asyncio.wait_for(swept.get(), 30)
    (second,) = set(refs) - {first}
    await carry_out(second, claim_of("alive", 2), Limits())
    await folded("alive", 1)
    go.set()
    await sweeping
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    state = await rig.bus.store.state(second)
    assert state is not None
    assert state.claim is not None
    assert state.claim.holder == "alive"


async def test_sweeper_counts_no_time_of_a_freeze_against_what_was_handed_out(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was handed out before a freeze ends has all of its time for a claim from then on; without a freeze it goes on."""
    await rig.role("shop/coder", lambda _input: None)
    accepted = await rig.ask("shop/coder")
    looks, seen = [0], asyncio.Queue[float]()
    frozen = [True]

    def still() -> bool:
        looks[0] += 1
        return frozen[0]

    sweeper = Sweeper(rig.bus, rig.registry, rig.home, still)

    async def scan() -> None:
        seen.put_nowait(sweeper.work.open[accepted.id].handed_at)
        sweeper.work.open[accepted.id].handed_at = 2.0

    monkeypatch.setattr(sweeper, "scan", scan)
    tasks = [asyncio.create_task(sweeper._follow_log())]
    try:
        await until(lambda: accepted.id in sweeper.work.open)
        sweeper.work.open[accepted.id].handed_at = 1.0
        tasks.append(asyncio.create_task(sweeper._scan_for_ever()))
        await until(lambda: looks[0])
        frozen[0] = False
        assert await asyncio.wait_for(seen.get(), 30) == 0.0
        assert await asyncio.wait_for(seen.get(), 30) == 2.0
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_warden_buries_nothing_for_a_strangers_consumer(rig: Rig) -> None:
    """What a person's own consumer on the log gives up on is still good work."""
    await rig.role("shop/coder", echo)
    await rig.warden()
    accepted = await rig.ask("shop/coder")
    config = {"durable_name": "curious", "ack_policy": "explicit", "max_deliver": 1, "ack_wait": 200_000_000}
    await rig.connection.api("CONSUMER.CREATE.INVOCATIONS.curious", {"stream_name": "INVOCATIONS", "config": config})
    inbox = rig.connection.nc.new_inbox()
    answers = await rig.connection.nc.subscribe(inbox)
    async with asyncio.timeout(30):
        while (await rig.connection.api("STREAM.INFO.ADVISORIES"))["state"]["messages"] == 0:
            # The advisory comes when somebody pulls after the only delivery has run out.
            pull = b'{"batch":1,"expires":300000000}'
            await rig.connection.nc.publish("$JS.API.CONSUMER.MSG.NEXT.INVOCATIONS.curious", pull, reply=inbox)
            await answers.next_msg(5)
    async with asyncio.timeout(30):
        while (await rig.connection.api("CONSUMER.INFO.ADVISORIES.warden_advisories"))["ack_floor"]["stream_seq"] < 1:
            await asyncio.sleep(0.02)
    assert names(rig, accepted.id) == ["requested"]


@pytest.mark.soak
async def test_warden_that_hears_of_heartbeats_late_sweeps_nobody(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is no knowledge: as long as the heartbeats have not been read, no holder counts as gone."""
    begun, go = asyncio.Event(), asyncio.Event()

    async def work(_input: Any) -> None:
        begun.set()
        await go.wait()

    await rig.role("shop/coder", work)
    await rig.runner()
    accepted = await rig.ask("shop/coder")
    await asyncio.wait_for(begun.wait(), 30)
    watch = Liveness.watch

    async def late(self: Liveness) -> Any:
        await asyncio.sleep(8)
        async for sign in watch(self):
            yield sign

    monkeypatch.setattr(Liveness, "watch", late)
    await rig.warden()
    await asyncio.sleep(9)
    go.set()
    await rig.story.ended(accepted.id)
    assert names(rig, accepted.id) == ["requested", "claimed", "completed"]


@pytest.mark.soak
async def test_warden_keeps_an_orphan_of_a_removed_role_from_running_twice(rig: Rig) -> None:
    """A role that must not run twice stays so when it is no longer registered: its orphan goes to a person."""
    await rig.role("shop/coder", echo, idempotent=False)
    accepted = await rig.ask("shop/coder")
    ref = Ref("shop", "coder", accepted.id)
    claim = Claim(holder="dead", runner="r", delivery=1, reply="$JS.ACK.nowhere")
    await rig.bus.invocations.carry_out(ref, claim, Limits())
    await rig.bucket("registry").delete(role_key("shop", "coder"))
    await rig.warden()
    await rig.story.event(accepted.id, "swept")
    assert await rig.story.ended(accepted.id, limit_s=3) == "dead_lettered"


def test_copy_of_a_long_suffering_letter_fits() -> None:
    """However often it was tried, its copy fits into one message, with its last attempt whole."""
    now = datetime.now(UTC)
    records = [Recorded(1, "s", now, None, ev.Requested())]
    error = ev.Error(kind="E", message="ä" * 2000, fingerprint="f" * 12, detail="ö" * 4000)
    for n in range(1, 1001):
        claimed = ev.Claimed(holder="h" * 36, runner="r", delivery=n, attempt=n, reply="x")
        failed = ev.Failed(holder="h", delivery=n, attempt=n, error=error)
        records += [Recorded(2 * n + i, "s", now, None, data) for i, data in enumerate((claimed, failed))]
    records.append(Recorded(3000, "s", now, None, ev.DeadLettered(reason=ev.DeathReason.ATTEMPTS_SPENT)))
    kept = copy_of(Ref("a", "b", "c"), records)
    assert kept is not None
    thin = fitting(kept)
    assert len(msgspec.json.encode(thin)) < 900_000
    assert thin.attempts[-1] == kept.attempts[-1]
    short = msgspec.structs.replace(kept, attempts=kept.attempts[:20])
    assert fitting(short) == short


async def test_graves_keep_no_copy_of_what_came_back_meanwhile(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person who cancels a dead letter just before its copy is written leaves no copy behind."""
    await rig.role("shop/coder", echo, idempotent=False)
    accepted = await rig.ask("shop/coder")
    ref = Ref("shop", "coder", accepted.id)
    limits = rig.registry.limits("shop", "coder")
    await rig.bus.invocations.carry_out(ref, claim_of("dead", 1), limits)
    await rig.bus.invocations.carry_out(ref, Sweep(holder="dead", reason=ev.SweepReason.HOLDER_GONE), limits)
    append = rig.bus.store.append

    async def after_the_person(event: Any, **more: Any) -> int:
        if isinstance(event.data, deadletter.Kept):
            await rig.bus.invocations.carry_out(ref, Cancel(), limits)
        return await append(event, **more)

    dead = await rig.story.event(accepted.id, "dead_lettered")
    monkeypatch.setattr(rig.bus.store, "append", after_the_person)
    await Graves(rig.bus).bury(delivered(dead))
    assert [r.seq async for r in rig.bus.store.read("DEAD_LETTERS", "dlq.>")] == []


def delivered(record: Recorded) -> wire.Delivery:
    """A record as the consumer hands it out."""
    return wire.Delivery(record.subject, b"", "", record.seq, 1, 1, 0, 0)

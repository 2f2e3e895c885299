"""The quota breaker, with a warden and runners on a real server."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from nats.errors import NoRespondersError

from bus import plan
from bus.events import invocation as ev
from bus.refusal import Reason
from bus.spend import BASE
from bus.store import CONTROL, Recorded
from bus.subjects import Ref
from services.fleet.entries import caps_key
from services.fleet.spec import Cap, Role, TraceHandler, Window
from services.quota import drift
from services.quota.lines import QuotaLine
from services.requests.requests import Ask, Asker
from services.warden import journal, treasurer
from tests.services.rig import Rig, until

DAY = Window.DAY


async def capped(rig: Rig, cap: float, path: str = "shop/coder", **settings: Any) -> None:
    """A role that uses exactly what its input says, under a cap."""
    settings.setdefault("concurrency", 8)
    await rig.put(path, Role(handler=TraceHandler(speed=1e6), caps=(Cap(cap=cap, window=DAY),), **settings))
    declared = journal.declared(rig.registry)
    await plan.apply(rig.connection, declared, await plan.plan(rig.connection, declared))


async def ask(rig: Rig, tokens: int) -> str:
    """Ask for work that uses so many tokens: its id."""
    return (await rig.ask("shop/coder", {"input_tokens": tokens, "output_tokens": 0})).id


async def told(rig: Rig, event: str, scope: str = "shop_coder") -> list[Recorded]:
    """The quota events of that name."""
    return [record async for record in rig.bus.store.read(CONTROL, f"ctl.quota.{scope}.{event}")]


async def lines(rig: Rig) -> list[QuotaLine]:
    """What `systems quota` shows."""
    async with asyncio.timeout(30):
        while True:
            try:
                answer = await rig.connection.nc.request("quota.status", b"", timeout=5)
                break
            except NoRespondersError:  # a warden that begins does not answer yet
                await asyncio.sleep(0.02)
    return msgspec.json.decode(answer.data, type=list[QuotaLine])


async def raised(rig: Rig, cap: float, window: str = "day") -> None:
    """A person sets another cap."""
    value = [
        {"unit": "tokens", "window": window, "cap": cap, "by": "ann", "reason": "test", "at": rig.bus.author.now()}
    ]
    await rig.bucket("registry").put(caps_key("shop_coder"), msgspec.json.encode(value))


async def test_cap_stops_work_at_or_under_it_and_a_raise_lets_it_go_on(rig: Rig) -> None:
    """Of twenty times ten tokens under a cap of 105 exactly ten are done; after a raise all, each at its first attempt."""
    await capped(rig, 105)
    await rig.warden()
    await rig.runner()
    ids = [await ask(rig, 10) for _ in range(20)]
    tripped = (await rig.control.subject(lambda r: r.subject == "ctl.quota.shop_coder.tripped")).data
    assert (tripped.used, tripped.cap, tripped.needed) == (100, 105, 10)
    async with asyncio.timeout(30):
        while not (await rig.connection.api("CONSUMER.INFO.INVOCATIONS.shop_coder")).get("paused"):
            await asyncio.sleep(0.01)
    await until(lambda: sum(bool(rig.story.of(id_, "completed")) for id_ in ids) >= 10)
    assert sum(bool(rig.story.of(id_, "completed")) for id_ in ids) == 10
    await raised(rig, 1000)
    for id_ in ids:
        await rig.story.event(id_, "completed")
    assert {r.data.attempt for id_ in ids for r in rig.story.of(id_, "claimed")} == {1}
    await until(lambda: not rig.bus.gate.trips)
    assert len(await told(rig, "tripped")) == 1


async def test_enforced_number_is_the_shown_one_and_that_of_the_log(rig: Rig) -> None:
    """After work has ended, the counter, `systems quota` and the sum over the log's completions are one number."""
    await capped(rig, 10_000)
    await rig.warden()
    await rig.runner()
    ids = [await ask(rig, n) for n in range(1, 41)]
    for id_ in ids:
        await rig.story.event(id_, "completed")
    logged = sum(r.data.usage.input_tokens for id_ in ids for r in rig.story.of(id_, "completed"))
    assert logged == sum(range(1, 41))

    async def agree() -> bool:
        shown = (await lines(rig))[0]
        return (shown.used, await rig.bus.counters.total(shown.key) - BASE) == (logged, logged)

    async with asyncio.timeout(30):
        while not await agree():
            await asyncio.sleep(0.02)


async def test_held_budget_makes_claims_wait_and_trips_nothing(rig: Rig) -> None:
    """Claims that do not fit beside what others hold wait for it to come back: all are done, and the cap never trips."""
    go = asyncio.Event()

    async def frugal(input: Any) -> Any:
        await go.wait()
        return input

    await rig.role("shop/frugal", frugal, caps=(Cap(cap=100, window=DAY),), max_tokens=60, concurrency=4)
    await rig.warden()
    await rig.runner()
    ids = [(await rig.ask("shop/frugal", n)).id for n in range(4)]
    await rig.story.subject(lambda r: r.subject.endswith(".claimed"))
    go.set()
    for id_ in ids:
        await rig.story.event(id_, "completed")
    assert not await told(rig, "tripped", "shop_frugal")


async def test_deleted_counter_is_rebuilt_and_reported(rig: Rig) -> None:
    """Work goes on after somebody has purged the counters, nothing spent is forgotten, and the repair is on record."""
    await capped(rig, 1000)
    await rig.warden()
    await rig.runner()
    await rig.story.event(await ask(rig, 300), "completed")
    await rig.connection.api("STREAM.PURGE.SPEND")
    await rig.story.event(await ask(rig, 20), "completed")
    repaired = (await rig.control.subject(lambda r: r.subject == "ctl.quota.shop_coder.repaired")).data
    assert (repaired.counter, repaired.log) == (None, 300)

    async with asyncio.timeout(30):
        while (await lines(rig))[0].used != 320:
            await asyncio.sleep(0.02)


async def test_trip_outlives_the_warden(rig: Rig) -> None:
    """A cap that has tripped stays so over a restart of the warden, which writes no second trip."""
    await capped(rig, 10)
    warden, _ = await rig.warden()
    await rig.runner()
    await ask(rig, 10)
    await rig.control.subject(lambda r: r.subject == "ctl.quota.shop_coder.tripped")
    await rig.end(warden)
    waiting = await ask(rig, 1)
    second, _ = await rig.warden()
    await until(lambda: second.bus.gate.trips)
    async with asyncio.timeout(30):
        while (await lines(rig))[0].problem or not (await lines(rig))[0].tripped:
            await asyncio.sleep(0.02)
    assert not rig.story.of(waiting, "claimed")
    assert len(await told(rig, "tripped")) == 1


async def test_steps_are_told_once(rig: Rig) -> None:
    """Half, three quarters and nine tenths of a cap are one event each."""
    await capped(rig, 100)
    await rig.warden()
    await rig.runner()
    for _ in range(9):
        await rig.story.event(await ask(rig, 10), "completed")
    await rig.control.subject(lambda r: r.subject.endswith(".stepped") and r.data.percent == 90)
    assert [record.data.percent for record in await told(rig, "stepped")] == [50, 75, 90]


async def test_claim_of_a_dead_holder_counts_in_full(rig: Rig) -> None:
    """Nobody knows what a holder that died has spent: its whole hold counts, marked as assumed."""
    stay = asyncio.Event()

    async def slow(input: Any) -> Any:
        await stay.wait()
        return input

    await rig.role("shop/slow", slow, caps=(Cap(cap=1000, window=DAY),), max_tokens=70)
    await rig.warden()
    first, _ = await rig.runner()
    accepted = await rig.ask("shop/slow", 1)
    await rig.story.event(accepted.id, "claimed")
    await rig.bus.liveness.end("agent_runner", first.boot_id)
    swept = (await rig.story.event(accepted.id, "swept")).data
    assert isinstance(swept, ev.Swept)
    assert swept.settled is not None
    assert (swept.settled.tokens, swept.settled.assumed) == (70, True)
    stay.set()


async def tree_capped(rig: Rig, cap: float) -> None:
    """A role whose cap counts each run tree by itself."""
    cap_ = Cap(cap=cap, window=Window.TREE)
    await rig.put("shop/coder", Role(handler=TraceHandler(speed=1e6), caps=(cap_,), concurrency=8))
    declared = journal.declared(rig.registry)
    await plan.apply(rig.connection, declared, await plan.plan(rig.connection, declared))


async def test_run_tree_stops_at_its_cap_and_goes_on_after_a_raise(rig: Rig) -> None:
    """A tree's cap stops that tree alone, names the scope that declares it, is shown, and is over when a person raises it."""
    await tree_capped(rig, 105)
    await rig.warden()
    await rig.runner()
    root = await ask(rig, 60)
    await rig.story.event(root, "completed")
    asker = Asker(ref=Ref("shop", "coder", root), root=root, depth=0, cause=root)
    child = msgspec.Raw(b'{"input_tokens":60,"output_tokens":0}')
    second = (await rig.requests.submit(Ask(role="shop/coder", input=child, asker=asker))).id
    tripped = (await rig.control.subject(lambda r: r.subject == f"ctl.quota.tree_{root}.tripped")).data
    assert (tripped.used, tripped.needed, tripped.cap, tripped.role) == (60, 60, 105, "shop/coder")
    await until(lambda: f"tree.{root}" in rig.bus.gate.trips)
    refusal = rig.bus.gate.trips[f"tree.{root}"]
    assert refusal.reason is Reason.CAPPED
    assert "systems quota raise shop/coder --to N --unit tokens --window tree" in refusal.command
    buried = (await rig.story.event(second, "dead_lettered")).data
    assert (buried.reason, buried.attempts, buried.crashes) == (ev.DeathReason.TREE_STOPPED, 0, 0)
    (line,) = await lines(rig)
    assert (line.scope, line.window, line.tree, line.used, line.cap, line.tripped) == (
        "shop/coder", "tree", root, 60, 105, True,
    )  # fmt: skip
    await rig.story.event(await ask(rig, 100), "completed")
    await raised(rig, 120, window="tree")
    reset = (await rig.control.subject(lambda r: r.subject == f"ctl.quota.tree_{root}.reset")).data
    assert reset.cap == 120
    await until(lambda: not rig.bus.gate.trips)
    third = (await rig.requests.submit(Ask(role="shop/coder", input=child, asker=asker))).id
    await rig.story.event(third, "completed")


async def test_counter_of_a_window_that_is_over_is_left_alone(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The account forgets what is over; its counter is neither emptied nor reported for that."""
    monkeypatch.setattr(drift, "LOWER_S", 0.2)
    monkeypatch.setattr(treasurer, "AUDIT_S", 0.0)
    await capped(rig, 1000)
    desk = treasurer.Treasurer(rig.bus, rig.registry, rig.home, rig.home / "archive")
    following = asyncio.create_task(desk._account.run())
    await desk._account.read.wait()
    await desk.look()
    (key,) = [line.key for line in desk.lines()]
    await rig.bus.counters.add(key, 300)
    later = rig.bus.author.now() + timedelta(days=1)
    monkeypatch.setattr(rig.bus.author, "now", lambda: later)
    for _ in range(2 * drift.LOWER_LOOKS):
        await desk.look()
    assert [line.key for line in desk.lines()] != [key]
    assert await rig.bus.counters.total(key) == BASE + 300
    assert not await told(rig, "repaired")
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


async def test_counter_that_somebody_lowered_is_raised_and_reported(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Budget that is taken off a counter by hand is put back at the next look, with both numbers on record."""
    monkeypatch.setattr(treasurer, "AUDIT_S", 0.0)
    await capped(rig, 1000)
    await rig.warden()
    await rig.runner()
    await rig.story.event(await ask(rig, 300), "completed")
    key = (await lines(rig))[0].key
    await rig.connection.nc.publish(f"spend.{key}", b"", headers={"Nats-Incr": "-200"})
    repaired = (await rig.control.subject(lambda r: r.subject == "ctl.quota.shop_coder.repaired")).data
    assert (repaired.counter, repaired.log) == (100, 300)
    assert await rig.bus.counters.total(key) == BASE + 300

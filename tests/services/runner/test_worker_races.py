"""A worker against bad moments: refused cancels, claims that come back, results that are ready when the end comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from bus import errors, wire
from bus.events import invocation as ev
from bus.invocation import Cancel, Limits, Sweep
from bus.subjects import Ref
from services.fleet.spec import Role
from services.runner import attempt as attempt_module
from services.runner.handler import RetryAfter
from tests.bus.proxy import Proxy
from tests.services.rig import Rig


def names(rig: Rig, id_: str) -> list[str]:
    """Names of an invocation's events, in order."""
    return rig.story.events.get(id_, [])


@asynccontextmanager
async def frozen(rig: Rig, stream: str) -> AsyncIterator[None]:
    """The stream takes nothing while the block lasts."""
    config = (await rig.connection.api(f"STREAM.INFO.{stream}"))["config"]
    await rig.connection.api(f"STREAM.UPDATE.{stream}", config | {"discard": "new", "max_bytes": 1})
    try:
        yield
    finally:
        await rig.connection.api(f"STREAM.UPDATE.{stream}", config)


async def test_worker_goes_on_when_a_cancel_is_refused(rig: Rig) -> None:
    """A cancel that the server does not take stops nobody: the handler ends in its own time, under its first claim."""
    begun, go = asyncio.Event(), asyncio.Event()
    told: list[str] = []

    async def work(_input: Any) -> str:
        begun.set()
        try:
            await go.wait()
        except asyncio.CancelledError:
            told.append("stop")
            raise
        return "done"

    await rig.role("shop/coder", work)
    await rig.runner()
    accepted = await rig.ask("shop/coder")
    await asyncio.wait_for(begun.wait(), 30)
    async with frozen(rig, "INVOCATIONS"):
        with pytest.raises(errors.StreamFrozen):
            await rig.bus.invocations.carry_out(Ref("shop", "coder", accepted.id), Cancel(), Limits())
        # Nothing happens, and a wrong stop would come at once: its message was sent before the refusal.
        await asyncio.sleep(0.3)
    go.set()
    await rig.story.event(accepted.id, "completed", limit_s=5)
    assert told == []


async def test_worker_hears_of_a_cancel_after_its_connection_broke(rig: Rig) -> None:
    """A cancel that was written while a runner was cut off reaches it when it is back."""
    begun, told = asyncio.Event(), asyncio.Event()

    async def work(_input: Any) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            told.set()
            raise

    await rig.role("shop/coder", work)
    url = rig.url
    async with Proxy(int(url.rpartition(":")[2])) as proxy:
        rig.url = proxy.url
        running, _ = await rig.runner()
        accepted = await rig.ask("shop/coder")
        await asyncio.wait_for(begun.wait(), 30)
        proxy.swallow = True
        await rig.bus.invocations.carry_out(Ref("shop", "coder", accepted.id), Cancel(), Limits())
        await asyncio.wait_for(proxy.lost.wait(), 30)
        await asyncio.sleep(0.3)
        proxy.cut()
        await asyncio.wait_for(told.wait(), 8)
        await rig.end(running)


async def test_worker_stops_a_handler_whose_claim_was_swept(rig: Rig) -> None:
    """A handler whose claim was taken from it is told to stop: its result could not count any more."""
    begun, told = asyncio.Event(), asyncio.Event()

    async def work(_input: Any) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            told.set()
            raise

    await rig.role("shop/coder", work)
    running, _ = await rig.runner()
    accepted = await rig.ask("shop/coder")
    await asyncio.wait_for(begun.wait(), 30)
    sweep = Sweep(holder=running.boot_id, reason=ev.SweepReason.HOLDER_GONE)
    await rig.bus.invocations.carry_out(Ref("shop", "coder", accepted.id), sweep, Limits())
    await asyncio.wait_for(told.wait(), 30)


async def test_worker_keeps_a_claim_that_is_delivered_to_it_again(rig: Rig) -> None:
    """A delivery of what this very runner still works on is no second try: one claim, one handler, one result."""
    begun, go = asyncio.Event(), asyncio.Event()
    ran: list[str] = []

    async def work(input: str) -> None:
        ran.append(input)
        begun.set()
        if input == "long":
            await go.wait()

    await rig.role("shop/coder", work, idempotent=False)
    await rig.runner()
    accepted = await rig.ask("shop/coder", "long")
    await asyncio.wait_for(begun.wait(), 30)
    claimed = await rig.story.event(accepted.id, "claimed")
    rig.connection.nc.send(claimed.data.reply, wire.nak(0))
    await until_delivered(rig, 2)
    # What is asked behind it, and done, shows that the runner has looked at the second delivery.
    for n in range(3):
        await rig.story.event((await rig.ask("shop/coder", f"short {n}")).id, "completed")
    go.set()
    await rig.story.ended(accepted.id)
    assert names(rig, accepted.id) == ["requested", "claimed", "completed"]
    assert ran == ["long", "short 0", "short 1", "short 2"]
    await rig.acknowledged()


async def until_delivered(rig: Rig, count: int) -> None:
    """Wait until the role's consumer has handed out so many deliveries."""
    async with asyncio.timeout(30):
        while (await rig.connection.api("CONSUMER.INFO.INVOCATIONS.shop_coder"))["delivered"]["consumer_seq"] < count:
            await asyncio.sleep(0.02)


async def test_worker_holds_its_claim_while_a_stopped_handler_ends(rig: Rig) -> None:
    """A handler that uses its grace keeps its claim meanwhile, however short ack_wait is: nobody begins beside it."""
    at_work: list[int] = []
    together: list[int] = []

    async def work(_input: Any) -> None:
        at_work.append(1)
        together.append(len(at_work))
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(2.5)
            at_work.pop()

    await rig.role("shop/coder", work, ack_wait=1.0, timeout=0.4, grace=5.0, max_attempts=1)
    await rig.runner()
    await rig.runner("agent_runner-2")
    accepted = await rig.ask("shop/coder")
    await rig.story.ended(accepted.id)
    assert together == [1]
    assert names(rig, accepted.id) == ["requested", "claimed", "failed", "dead_lettered"]


async def test_worker_hands_in_a_result_that_is_ready_when_the_drain_comes(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handler that is done is done: a drain that comes while its large output is stored does not throw it away."""
    storing, go = asyncio.Event(), asyncio.Event()
    monkeypatch.setattr(attempt_module, "OUTPUT_LIMIT", 10)

    async def work(_input: Any) -> str:
        return "x" * 100

    await rig.role("shop/coder", work, grace=0.1)
    running, runner = await rig.runner()
    artifacts = runner._desk.artifacts
    put = artifacts.put

    async def slow(*args: Any) -> Any:
        storing.set()
        await go.wait()
        return await put(*args)

    monkeypatch.setattr(artifacts, "put", slow)
    accepted = await rig.ask("shop/coder")
    await asyncio.wait_for(storing.wait(), 30)
    ending = asyncio.create_task(rig.end(running))
    await asyncio.sleep(0.5)
    go.set()
    await ending
    assert await rig.story.until(lambda: names(rig, accepted.id)[2:] or None) == ["completed"]


async def test_worker_keeps_a_result_while_the_artifacts_take_nothing(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large output that cannot be stored now is stored later: the result was paid for, and costs no attempt."""
    monkeypatch.setattr(attempt_module, "OUTPUT_LIMIT", 10)
    ran: list[int] = []

    async def work(_input: Any) -> str:
        ran.append(1)
        return "x" * 100

    await rig.role("shop/coder", work, max_attempts=1)
    await rig.runner()
    async with frozen(rig, "OBJ_artifacts"):
        accepted = await rig.ask("shop/coder")
        await rig.story.event(accepted.id, "claimed")
        await asyncio.sleep(0.7)
    assert await rig.story.ended(accepted.id) == "completed"
    assert ran == [1]


async def test_worker_does_not_take_a_claim_of_the_same_delivery_from_its_holder(rig: Rig) -> None:
    """A consumer that was made anew counts deliveries from 1 again: that proves nothing about a holder that is at work."""
    begun, go = asyncio.Event(), asyncio.Event()
    ran: list[Any] = []

    async def work(input: Any) -> None:
        ran.append(input)
        begun.set()
        if input is None:
            await go.wait()

    await rig.role("shop/coder", work)
    await rig.runner()
    accepted = await rig.ask("shop/coder")
    await asyncio.wait_for(begun.wait(), 30)
    info = await rig.connection.api("CONSUMER.INFO.INVOCATIONS.shop_coder")
    await rig.runner("agent_runner-2")
    await rig.connection.api("CONSUMER.DELETE.INVOCATIONS.shop_coder")
    config = info["config"]
    await rig.connection.api(
        "CONSUMER.CREATE.INVOCATIONS.shop_coder.inv.shop.coder.*.requested",
        {"stream_name": "INVOCATIONS", "config": config, "action": "create"},
    )
    await until_delivered(rig, 1)
    for _ in range(6):
        await rig.story.event((await rig.ask("shop/coder", "short")).id, "completed")
    go.set()
    await rig.story.ended(accepted.id)
    assert names(rig, accepted.id) == ["requested", "claimed", "completed"]
    assert ran.count(None) == 1


@pytest.mark.parametrize("seconds", [1e13, float("inf"), float("nan"), -5.0])
async def test_worker_survives_an_absurd_retry_after(rig: Rig, seconds: float) -> None:
    """A delay that no clock can hold is cut, and the failure is written."""

    async def busy(_input: Any) -> None:
        raise RetryAfter(seconds, "come back never")

    await rig.role("shop/coder", busy)
    await rig.runner()
    accepted = await rig.ask("shop/coder")
    failed = await rig.story.event(accepted.id, "failed", limit_s=5)
    assert failed.data.retry_at is not None


@pytest.mark.parametrize("seconds", [0.0, 0.15, 0.99, 900.1])
def test_role_refuses_an_ack_wait_that_cannot_be_kept(seconds: float) -> None:
    """A claim that runs out before it can be renewed would be taken from a living holder again and again."""
    text = f'{{"handler": {{"kind": "trace"}}, "ack_wait": {seconds}}}'
    with pytest.raises(msgspec.ValidationError, match="ack_wait"):
        msgspec.json.decode(text, type=Role)

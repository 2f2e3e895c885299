"""The guards on a real bus: work that nobody would hand out again comes back, or is buried, and the log says why."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from nats.aio.msg import Msg

from bus.events import invocation as ev
from bus.ids import new_id
from bus.store import Recorded
from bus.subjects import Ref
from services.fleet.spec import Backoff
from tests.services.rig import Rig


async def echo(input: Any) -> Any:
    """A handler that gives back what it gets."""
    return input


async def pull(rig: Rig, consumer: str) -> Msg:
    """One message of a role's consumer, pulled by somebody who is no runner."""
    nc = rig.connection.nc
    inbox = nc.new_inbox()
    subscription = await nc.subscribe(inbox)
    body = msgspec.json.encode({"batch": 1, "expires": 5_000_000_000})
    await nc.publish(f"$JS.API.CONSUMER.MSG.NEXT.INVOCATIONS.{consumer}", body, reply=inbox)
    message = await subscription.next_msg(timeout=6)
    await subscription.unsubscribe()
    return message


@pytest.mark.slow
@pytest.mark.parametrize("places", [None, 1])
async def test_sweeper_puts_a_lost_delivery_back(rig: Rig, places: int | None) -> None:
    """A delivery that is lost before its claim comes back within seconds, also when it took the role's only place."""
    await rig.role("shop/coder", echo, max_in_flight=places, concurrency=places or 4)
    await rig.warden()
    accepted = await rig.ask("shop/coder", 7)
    lost = await pull(rig, "shop_coder")
    assert accepted.id in lost.subject
    await rig.runner()
    released = await rig.story.event(accepted.id, "released", limit_s=15)
    assert released.data.reason is ev.ReleaseReason.LOST_DELIVERY
    await rig.story.event(accepted.id, "completed", limit_s=60)
    assert rig.story.events[accepted.id] == ["requested", "released", "requested", "claimed", "completed"]


@pytest.mark.slow
@pytest.mark.parametrize("places", [None, 1])
async def test_sweeper_puts_a_lost_retry_back(rig: Rig, places: int | None) -> None:
    """A delayed NAK that was undone (a late in-progress ack replaces it by ack_wait) costs seconds, not a quarter of an hour."""
    tries: list[int] = []

    async def work(_input: Any) -> str:
        tries.append(1)
        if len(tries) == 1:
            raise OSError("once")
        return "done"

    await rig.role(
        "shop/coder", work, backoff=Backoff(base=1.0, jitter=0.0), max_in_flight=places, concurrency=places or 4
    )
    await rig.warden()
    await rig.runner()
    accepted = await rig.ask("shop/coder")
    claimed = await rig.story.event(accepted.id, "claimed")
    await rig.story.event(accepted.id, "failed")
    for _ in range(20):
        await rig.connection.nc.publish(claimed.data.reply, b"+WPI")
        await asyncio.sleep(0.02)
    released = await rig.story.event(accepted.id, "released", limit_s=15)
    assert released.data.reason is ev.ReleaseReason.LOST_RETRY
    done = await rig.story.event(accepted.id, "completed", limit_s=60)
    assert done.data.delivery == 1
    assert rig.story.of(accepted.id, "claimed")[1].data.attempt == 2


async def asked_until_dead(rig: Rig, id_: str) -> Recorded:
    """Ask for work again and again, as a runner does: the server gives up on a message when somebody asks after its last delivery."""
    ask = msgspec.json.encode({"batch": 1, "expires": 500_000_000})
    async with asyncio.timeout(30):
        while True:
            await rig.connection.nc.publish(
                "$JS.API.CONSUMER.MSG.NEXT.INVOCATIONS.shop_coder", ask, reply=rig.connection.nc.new_inbox()
            )
            try:
                return await rig.story.event(id_, "dead_lettered", limit_s=1)
            except TimeoutError:
                continue


async def test_sweeper_buries_what_is_out_of_deliveries(rig: Rig) -> None:
    """Deliveries that end without a claim are spent at the server: its advisory makes one dead letter, without a runner."""
    await rig.role("shop/coder", echo, max_attempts=1, max_crashes=1)
    await rig.warden()
    accepted = await rig.ask("shop/coder", 7)
    for delivery in (1, 2, 3):
        message = await pull(rig, "shop_coder")
        assert message.reply.split(".")[4] == str(delivery)
        await rig.connection.nc.publish(message.reply, b"-NAK")
        await rig.connection.nc.flush()
    dead = await asked_until_dead(rig, accepted.id)
    assert dead.data.reason is ev.DeathReason.DELIVERIES_SPENT
    copy = await rig.dead.subject(lambda r: r.subject.endswith(accepted.id))
    assert copy.data.attempts == ()
    assert rig.story.events[accepted.id].count("dead_lettered") == 1


@pytest.mark.soak
async def test_sweeper_takes_the_claims_of_nobody(rig: Rig) -> None:
    """A claim whose holder never was, as a forged event would make it, is swept and the work is done."""
    await rig.role("shop/coder", echo)
    accepted = await rig.ask("shop/coder", 7)
    ref = Ref("shop", "coder", accepted.id)
    claimed = ev.Claimed(holder="nobody", runner="nobody", delivery=1, attempt=1, reply="nowhere")
    await rig.bus.store.append(rig.bus.author.invocation(ref, claimed))
    await rig.warden()
    await rig.runner()
    swept = await rig.story.event(accepted.id, "swept", limit_s=60)
    assert swept.data.holder == "nobody"
    await rig.story.event(accepted.id, "completed", limit_s=60)


async def test_sweeper_reports_rubbish_once(rig: Rig) -> None:
    """Each message that is no event is reported in CONTROL once, also by the next warden, and what follows it is followed."""
    await rig.role("shop/coder", echo)
    nc = rig.connection.nc
    subjects = [
        "inv.x",
        "inv.shop.coder.requested",
        "inv.shop.coder.a.b.requested",
        f"inv.shop.coder.{new_id()}.requested",
    ]
    for subject in subjects:
        await nc.publish(subject, b"not \x00 json")
    wrong = Ref("shop", "coder", new_id())
    await nc.publish(wrong.event("completed"), msgspec.json.encode(rig.bus.author.invocation(wrong, ev.Requested())))
    await nc.flush()
    first, _ = await rig.warden()
    await rig.runner()
    accepted = await rig.ask("shop/coder", 7)
    await rig.story.event(accepted.id, "completed")

    def reports() -> list[str]:
        return [r.data.subject for r in rig.control.records if r.subject.endswith(".rejected")]

    await rig.control.until(lambda: len(reports()) >= 5)
    await rig.end(first)
    await rig.warden()
    await nc.publish("inv.y", b"more")
    await rig.control.until(lambda: "inv.y" in reports())
    assert reports() == [*subjects, wrong.event("completed"), "inv.y"]
    report = next(r for r in rig.control.records if r.subject.endswith(".rejected"))
    assert report.subject == "ctl.message.INVOCATIONS-1.rejected"
    assert report.data.head == "not . json"


@pytest.mark.soak
async def test_sweeper_sees_how_late_a_retry_is_after_a_restart(rig: Rig) -> None:
    """A delayed request whose server schedule was never set is found on time, also by a warden that starts meanwhile."""
    await rig.role("shop/coder", echo)
    ref = Ref("shop", "coder", new_id())
    due = rig.bus.author.now() + timedelta(seconds=4)
    scheduled = ev.Scheduled(due=due, request=ev.Requested(root=ref.id))
    await rig.bus.store.append(rig.bus.author.invocation(ref, scheduled))
    await asyncio.sleep(3.5)
    await rig.warden()
    await rig.runner()
    requested = await rig.story.event(ref.id, "requested", limit_s=10)
    late = (requested.stored_at - due).total_seconds()
    assert 0 < late < 5.5, f"it was found {late:.1f} s after it was due"
    await rig.story.event(ref.id, "completed")

"""One role at one runner, on a real bus: claims, results, retries, stops, and what others do meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import msgspec
import pytest

from bus import invocation
from bus.events import invocation as ev
from bus.ids import new_id
from bus.invocation import Cancel, Limits
from bus.store import Recorded
from bus.subjects import Ref
from services.fleet.spec import Backoff, FunctionHandler, Role
from services.runner.handler import Context, FollowUp, Permanent, Result, RetryAfter
from tests.services.rig import Rig, until

#: Retries that come soon, and always after the same time.
SOON = Backoff(base=0.3, factor=1.0, jitter=0.0)


def names(rig: Rig, id_: str) -> list[str]:
    """Names of an invocation's events, in order."""
    return rig.story.events.get(id_, [])


async def cancel(rig: Rig, ref: Ref, reason: str = "") -> None:
    """Call it off, as a person does."""
    await rig.bus.invocations.carry_out(ref, Cancel(reason=reason), Limits())


async def for_ever(_input: Any) -> None:
    """A handler that ends only when it is told to."""
    await asyncio.Event().wait()


async def echo(input: Any) -> Any:
    """A handler that gives back what it gets."""
    return input


async def test_worker_completes_what_was_asked(rig: Rig) -> None:
    """A request is claimed and completed, each event naming the one before it as its cause."""

    async def double(input: int) -> int:
        return 2 * input

    await rig.role("shop/coder", double)
    running, _ = await rig.runner()
    accepted = await rig.ask("shop/coder", 21)
    done = await rig.story.event(accepted.id, "completed")
    assert bytes(done.data.output) == b"42"
    requested, claimed, completed = rig.story.of(accepted.id)
    assert [r.subject.rsplit(".", 1)[1] for r in (requested, claimed, completed)] == [
        "requested",
        "claimed",
        "completed",
    ]
    assert requested.event
    assert claimed.event
    assert completed.event
    assert (claimed.event.causationid, completed.event.causationid) == (requested.event.id, claimed.event.id)
    assert claimed.data.holder == completed.data.holder == running.boot_id
    assert (claimed.data.attempt, claimed.data.delivery) == (1, 1)
    assert claimed.data.registry_revision == rig.registry.role("shop", "coder").revision


async def test_worker_retries_a_failure_after_its_backoff(rig: Rig) -> None:
    """A transient error waits for its backoff by a delayed NAK, and is tried again by a new delivery."""
    tries: list[int] = []

    async def third_time(_input: Any, ctx: Context) -> str:
        tries.append(ctx.attempt)
        if len(tries) < 3:
            ctx.meter(ev.Usage(input_tokens=10))
            raise OSError("not yet")
        return "done"

    await rig.role("shop/coder", third_time, backoff=SOON)
    await rig.runner()
    accepted = await rig.ask("shop/coder")
    await rig.story.event(accepted.id, "completed")
    assert names(rig, accepted.id) == ["requested", *["claimed", "failed"] * 2, "claimed", "completed"]
    assert tries == [1, 2, 3]
    claims, failures = rig.story.of(accepted.id, "claimed"), rig.story.of(accepted.id, "failed")
    assert [c.data.delivery for c in claims] == [1, 2, 3]
    assert [f.data.error.kind for f in failures] == ["OSError", "OSError"]
    assert [f.data.usage.input_tokens for f in failures] == [10, 10]
    for failed, claimed in zip(failures, claims[1:], strict=True):
        waited = (claimed.stored_at - failed.stored_at).total_seconds()
        assert 0.25 <= waited < 3, f"the retry came after {waited} s"


async def test_worker_gives_up_when_the_attempts_are_spent(rig: Rig) -> None:
    """The last of max_attempts errors is followed by one dead_lettered in the same batch."""

    async def never(_input: Any) -> None:
        raise ValueError("no use")

    await rig.role("shop/coder", never, backoff=SOON, max_attempts=2)
    await rig.runner()
    accepted = await rig.ask("shop/coder")
    dead = await rig.story.event(accepted.id, "dead_lettered")
    assert names(rig, accepted.id) == ["requested", "claimed", "failed", "claimed", "failed", "dead_lettered"]
    assert (dead.data.reason, dead.data.attempts, dead.data.crashes) == (ev.DeathReason.ATTEMPTS_SPENT, 2, 0)
    assert dead.seq == rig.story.of(accepted.id, "failed")[1].seq + 1


async def test_worker_does_not_retry_what_is_permanent(rig: Rig) -> None:
    """A permanent error goes to the dead letters at its first attempt."""

    async def broken(_input: Any) -> None:
        raise Permanent("the key is revoked")

    await rig.role("shop/coder", broken)
    await rig.runner()
    accepted = await rig.ask("shop/coder")
    dead = await rig.story.event(accepted.id, "dead_lettered")
    assert names(rig, accepted.id) == ["requested", "claimed", "failed", "dead_lettered"]
    assert dead.data.reason is ev.DeathReason.PERMANENT_ERROR
    assert dead.data.error.message == "the key is revoked"


async def test_worker_waits_as_long_as_a_provider_asks(rig: Rig) -> None:
    """A RetryAfter longer than the backoff is honoured."""
    tries: list[int] = []

    async def busy(_input: Any) -> None:
        tries.append(1)
        if len(tries) == 1:
            raise RetryAfter(1.0, "429")

    await rig.role("shop/coder", busy, backoff=Backoff(base=0.01, jitter=0.0))
    await rig.runner()
    accepted = await rig.ask("shop/coder")
    await rig.story.event(accepted.id, "completed")
    failed, claimed = rig.story.of(accepted.id, "failed")[0], rig.story.of(accepted.id, "claimed")[1]
    assert (claimed.stored_at - failed.stored_at).total_seconds() >= 0.95


async def test_worker_stops_a_handler_without_progress(rig: Rig) -> None:
    """A hung handler is stopped and counted as failed; one that makes progress may take longer than that."""

    async def work(input: str, ctx: Context) -> str:
        if input == "hang":
            await asyncio.Event().wait()
        for _ in range(6):
            await asyncio.sleep(0.25)
            ctx.progress("still at it")
        return "slow"

    await rig.role("shop/coder", work, progress_timeout=0.7, max_attempts=1)
    await rig.runner()
    hung, slow = await rig.ask("shop/coder", "hang"), await rig.ask("shop/coder", "slow")
    dead = await rig.story.event(hung.id, "dead_lettered")
    assert dead.data.error.kind == "hung"
    assert "0.7 s" in dead.data.error.message
    await rig.story.event(slow.id, "completed")


async def test_worker_stops_a_handler_that_takes_too_long(rig: Rig) -> None:
    """Progress does not lift the timeout of an attempt."""

    async def chatty(_input: Any, ctx: Context) -> None:
        while True:
            await asyncio.sleep(0.05)
            ctx.progress()

    await rig.role("shop/coder", chatty, timeout=0.5, max_attempts=1)
    await rig.runner()
    accepted = await rig.ask("shop/coder")
    dead = await rig.story.event(accepted.id, "dead_lettered")
    assert dead.data.error.kind == "timeout"


async def test_worker_keeps_a_claim_alive(rig: Rig) -> None:
    """A handler that works longer than ack_wait keeps its claim: one delivery, one result."""

    async def slow(_input: Any, ctx: Context) -> None:
        for _ in range(25):
            await asyncio.sleep(0.1)
            ctx.progress()

    await rig.role("shop/coder", slow, ack_wait=1.0)
    await rig.runner()
    await rig.runner("agent_runner-2")
    accepted = await rig.ask("shop/coder")
    await rig.story.event(accepted.id, "completed")
    assert names(rig, accepted.id) == ["requested", "claimed", "completed"]


async def test_worker_drains_without_costing_an_attempt(rig: Rig) -> None:
    """A draining runner puts work back in one batch, and the next runner begins with the same attempt."""
    begun = asyncio.Event()
    seen: list[int] = []

    async def work(_input: Any, ctx: Context) -> str:
        seen.append(ctx.attempt)
        begun.set()
        if len(seen) == 1:
            await asyncio.Event().wait()
        return "done"

    await rig.role("shop/coder", work, grace=0.2)
    first, _ = await rig.runner()
    accepted = await rig.ask("shop/coder")
    await asyncio.wait_for(begun.wait(), 30)
    await rig.end(first)
    released = await rig.story.event(accepted.id, "released")
    again = await rig.story.event(accepted.id, "requested", count=2)
    assert again.seq == released.seq + 1
    assert (released.data.reason, released.data.holder) == (ev.ReleaseReason.DRAIN, first.boot_id)
    assert again.data.generation == 1
    await rig.runner("agent_runner-2")
    await rig.story.event(accepted.id, "completed")
    assert seen == [1, 1]
    assert names(rig, accepted.id) == ["requested", "claimed", "released", "requested", "claimed", "completed"]


async def test_worker_gives_running_work_its_grace(rig: Rig) -> None:
    """Work that ends within the grace of a drain is completed, and nothing new is claimed meanwhile."""
    begun, go = asyncio.Event(), asyncio.Event()

    async def work(_input: Any) -> None:
        begun.set()
        await go.wait()

    await rig.role("shop/coder", work, grace=20.0)
    running, _ = await rig.runner()
    first = await rig.ask("shop/coder")
    await asyncio.wait_for(begun.wait(), 30)
    ending = asyncio.create_task(rig.end(running))
    await until(lambda: running.evidence().draining)
    late = await rig.ask("shop/coder")
    go.set()
    await ending
    await rig.story.event(first.id, "completed")
    assert "claimed" not in names(rig, late.id)
    await rig.runner("agent_runner-2")
    await rig.story.event(late.id, "completed")


async def test_worker_loses_nothing_in_a_drain_under_load(rig: Rig) -> None:
    """A drain in the middle of much work: claims in flight are given back or finished, none is held by the one who left."""

    async def work(_input: Any) -> None:
        await asyncio.sleep(0.02)

    await rig.role("shop/coder", work, grace=0.1, concurrency=32)
    first, runner = await rig.runner()
    asked = [(await rig.ask("shop/coder", n)).id for n in range(200)]
    await until(lambda: runner.handled > 20)
    await rig.end(first)
    left = [id_ for id_ in asked if names(rig, id_)[-1:] == ["claimed"]]
    await rig.runner("agent_runner-2")
    for id_ in asked:
        await rig.story.event(id_, "completed")
    assert left == []
    assert all(names(rig, id_).count("completed") == 1 for id_ in asked)
    assert all("swept" not in names(rig, id_) for id_ in asked)


async def test_worker_does_not_run_what_was_cancelled_before(rig: Rig) -> None:
    """A cancel while queued: the delivery is dropped, and no handler runs."""
    ran: list[Any] = []

    async def work(input: Any) -> None:
        ran.append(input)

    await rig.role("shop/coder", work)
    off, on = await rig.ask("shop/coder", "off"), await rig.ask("shop/coder", "on")
    await cancel(rig, Ref("shop", "coder", off.id), "changed my mind")
    await rig.runner()
    await rig.story.event(on.id, "completed")
    assert ran == ["on"]
    assert names(rig, off.id) == ["requested", "cancelled"]
    await rig.acknowledged()


async def test_worker_stops_a_handler_that_was_cancelled(rig: Rig) -> None:
    """A cancel while running tells the handler within moments, and its delivery is acknowledged."""
    begun, told = asyncio.Event(), asyncio.Event()

    async def work(_input: Any) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            told.set()
            raise

    await rig.role("shop/coder", work)
    _, runner = await rig.runner()
    accepted = await rig.ask("shop/coder")
    await asyncio.wait_for(begun.wait(), 30)
    await cancel(rig, Ref("shop", "coder", accepted.id))
    await asyncio.wait_for(told.wait(), 30)
    await until(lambda: not any(worker.puller.working for worker in runner.workers.values()))
    assert names(rig, accepted.id) == ["requested", "claimed", "cancelled"]
    await rig.acknowledged()


async def test_worker_drops_a_retry_that_was_cancelled(rig: Rig) -> None:
    """A cancel while waiting for a retry: the retry is delivered and dropped."""
    tries: list[int] = []

    async def work(_input: Any) -> None:
        tries.append(1)
        raise OSError("again")

    await rig.role("shop/coder", work, backoff=SOON)
    await rig.runner()
    accepted = await rig.ask("shop/coder")
    await rig.story.event(accepted.id, "failed")
    await cancel(rig, Ref("shop", "coder", accepted.id))
    await rig.acknowledged()
    assert len(tries) == 1
    assert names(rig, accepted.id) == ["requested", "claimed", "failed", "cancelled"]


async def test_worker_writes_completion_and_follow_ups_whole(rig: Rig) -> None:
    """A completion and what it asks for lie one behind the other, and the chain names root, parent and depth."""

    async def first(_input: Any) -> Result:
        return Result(follow_ups=tuple(FollowUp(role="shop/tester", input=msgspec.Raw(b"%d" % n)) for n in range(3)))

    await rig.role("shop/coder", first)
    await rig.role("shop/tester", echo)
    await rig.runner()
    accepted = await rig.ask("shop/coder")
    done = await rig.story.event(accepted.id, "completed")
    assert len(done.data.follow_ups) == 3
    followed = [await rig.story.event(id_, "requested") for id_ in done.data.follow_ups]
    assert [r.seq for r in followed] == [done.seq + n for n in (1, 2, 3)]
    assert {(r.data.parent, r.data.root, r.data.depth) for r in followed} == {(accepted.id, accepted.id, 1)}
    for id_ in done.data.follow_ups:
        await rig.story.event(id_, "completed")


@pytest.mark.parametrize(
    ("follow_up", "sentence"),
    [
        (FollowUp(role="shop/testr"), "did you mean 'shop/tester'"),
        (FollowUp(role="ledger/books"), "shop/coder may not ask ledger/books"),
        (FollowUp(role="nonsense"), "PROJECT/ROLE"),
        (FollowUp(role="shop/tester", input=msgspec.Raw(b'"no object"')), "expected $ of the input"),
    ],
)
async def test_worker_refuses_a_follow_up_and_writes_nothing_of_it(
    rig: Rig, follow_up: FollowUp, sentence: str
) -> None:
    """One refused follow-up: the completion and its good follow-ups are not written, the work is dead with the sentence."""

    async def first(_input: Any) -> Result:
        good = FollowUp(role="shop/tester", input=msgspec.Raw(b"{}"))
        return Result(follow_ups=(good, follow_up))

    await rig.role("shop/coder", first, backoff=SOON)
    await rig.role("shop/tester", echo, input_schema={"type": "object"})
    await rig.role("ledger/books", echo)
    await rig.runner()
    accepted = await rig.ask("shop/coder")
    dead = await rig.story.event(accepted.id, "dead_lettered")
    assert names(rig, accepted.id) == ["requested", "claimed", "failed", "dead_lettered"]
    assert sentence in dead.data.error.message
    assert set(rig.story.events) == {accepted.id}


async def test_worker_refuses_too_many_follow_ups(rig: Rig) -> None:
    """900 follow-ups go in one batch with the completion; 901 are refused with what to do instead."""

    async def many(input: int) -> Result:
        return Result(follow_ups=tuple(FollowUp(role="shop/sink") for _ in range(input)))

    await rig.role("shop/coder", many)
    await rig.role("shop/sink", echo)
    await rig.runner()
    over = await rig.ask("shop/coder", 901)
    dead = await rig.story.event(over.id, "dead_lettered")
    assert dead.data.error.message == (
        "expected at most 900 follow-up requests from one completion, got: 901; let a follow-up ask for the rest"
    )
    assert set(rig.story.events) == {over.id}
    just = await rig.ask("shop/coder", 900)
    done = await rig.story.event(just.id, "completed")
    assert len(set(done.data.follow_ups)) == 900
    last = await rig.story.event(done.data.follow_ups[-1], "requested")
    assert last.seq == done.seq + 900


async def test_worker_asks_a_keyed_follow_up_once(rig: Rig) -> None:
    """A follow-up whose key was used before, even in the same completion, gives the first invocation, not a failure."""

    async def first(_input: Any) -> Result:
        return Result(follow_ups=tuple(FollowUp(role="shop/tester", idempotency_key=key) for key in "aab"))

    await rig.role("shop/coder", first)
    await rig.role("shop/tester", echo)
    await rig.runner()
    known = await rig.ask("shop/tester", idempotency_key="b")
    accepted = await rig.ask("shop/coder")
    await rig.story.event(accepted.id, "completed", limit_s=10)
    assert names(rig, known.id).count("requested") == 1
    asked = [r for r in rig.story.records if isinstance(r.data, ev.Requested) and r.data.parent == accepted.id]
    assert [r.data.idempotency_key for r in asked] == ["a"]


async def test_worker_survives_a_rival_for_a_keyed_follow_up(rig: Rig) -> None:
    """Somebody takes a follow-up's key between the look and the batch: the completion is written without it."""
    draft = rig.requests.draft

    async def first(_input: Any) -> Result:
        return Result(follow_ups=(FollowUp(role="shop/tester", idempotency_key="k"),))

    await rig.role("shop/coder", first)
    await rig.role("shop/tester", echo)
    _, runner = await rig.runner()
    desk = runner.workers["shop", "coder"]._desk
    last = desk.store.last
    rivals: list[str] = []

    async def overtaken(stream: str, filter_: str) -> Recorded | None:
        found = await last(stream, filter_)
        if not rivals and filter_.startswith("inv.shop.tester."):
            rivals.append((await rig.ask("shop/tester", idempotency_key="k")).id)
        return found

    desk.store.last = overtaken  # type: ignore[method-assign]  # the moment between two steps cannot be met from outside
    assert draft is not None
    accepted = await rig.ask("shop/coder")
    await rig.story.event(accepted.id, "completed", limit_s=10)
    assert len(rivals) == 1
    assert names(rig, rivals[0]).count("requested") == 1


async def test_worker_lets_a_handler_ask_others(rig: Rig) -> None:
    """ctx.request makes a child whose parent, root and depth follow the chain; a key asks once over a retry."""
    ids: list[str] = []

    async def boss(_input: Any, ctx: Context) -> str:
        ids.append(await ctx.request("shop/clerk", {"n": 1}, key="the-job"))
        if len(ids) == 1:
            raise OSError("after the request")
        return ids[0]

    async def clerk(input: Any, ctx: Context) -> str:
        return await ctx.request("shop/temp", input)

    await rig.role("shop/boss", boss, backoff=SOON)
    await rig.role("shop/clerk", clerk)
    await rig.role("shop/temp", echo)
    await rig.runner()
    top = await rig.ask("shop/boss")
    await rig.story.event(top.id, "completed")
    assert ids[0] == ids[1]
    done = await rig.story.event(ids[0], "completed")
    child = (await rig.story.event(ids[0], "requested")).data
    assert (child.parent, child.root, child.depth) == (top.id, top.id, 1)
    grandchild = await rig.story.event(msgspec.json.decode(done.data.output), "requested")
    assert (grandchild.data.parent, grandchild.data.root, grandchild.data.depth) == (ids[0], top.id, 2)
    assert grandchild.event
    assert grandchild.event.correlationid == top.id
    assert grandchild.event.actor == "shop/clerk"
    assert grandchild.event.causationid == rig.story.of(ids[0], "claimed")[0].event.id  # type: ignore[union-attr]


async def test_worker_tells_a_handler_of_an_unknown_role(rig: Rig) -> None:
    """A handler that asks a role which does not exist fails with the closest name."""

    async def boss(_input: Any, ctx: Context) -> str:
        return await ctx.request("shop/clark", None)

    await rig.role("shop/boss", boss, max_attempts=1)
    await rig.role("shop/clerk", echo)
    await rig.runner()
    accepted = await rig.ask("shop/boss")
    dead = await rig.story.event(accepted.id, "dead_lettered")
    assert dead.data.error.kind == "UnknownName"
    assert "did you mean 'shop/clerk'" in dead.data.error.message


async def test_worker_carries_what_is_too_large_for_an_event(rig: Rig) -> None:
    """A large input comes to the handler through the artifacts, and a large output goes there; the events hold references."""
    await rig.role("shop/coder", echo)
    await rig.runner()
    text = "x" * 3_000_000
    accepted = await rig.ask("shop/coder", text)
    done = await rig.story.event(accepted.id, "completed")
    requested = (await rig.story.event(accepted.id, "requested")).data
    assert (bytes(requested.input), bytes(done.data.output)) == (b"null", b"null")
    assert requested.input_ref.size == done.data.output_ref.size == 3_000_002
    assert msgspec.json.decode(await rig.bus.artifacts.get(done.data.output_ref)) == text


async def test_worker_steps_over_rubbish(rig: Rig) -> None:
    """Whatever anybody publishes on a role's subjects, the work behind it is done, and nothing stays unacknowledged."""
    await rig.role("shop/coder", echo, concurrency=1)
    nc = rig.connection.nc
    for payload in (b"", b"not json", b"{}", b"[1]", b"\xff\xfe", b'{"specversion":"1.0"}', b"9" * 500_000):
        await nc.publish(f"inv.shop.coder.{new_id()}.requested", payload)
    for subject in ("inv.shop.coder.requested", "inv.shop.coder.a.b.requested", "inv.x", "inv.shop.coder.id.nonsense"):
        await nc.publish(subject, b"rubbish")
    ref = Ref("shop", "coder", new_id())
    other = rig.bus.author.invocation(ref, ev.Cancelled())
    await nc.publish(ref.event("requested"), msgspec.json.encode(other))
    await nc.flush()
    await rig.runner()
    accepted = await rig.ask("shop/coder", "work")
    await rig.story.event(accepted.id, "completed")
    await rig.acknowledged()
    again = await rig.ask("shop/coder", "more work")
    await rig.story.event(again.id, "completed")


async def test_worker_keeps_its_result_when_rubbish_moves_the_fence(rig: Rig) -> None:
    """Rubbish on the subjects of a running invocation does not cost its result, nor its retry."""
    begun, go = asyncio.Event(), asyncio.Event()
    tries: list[int] = []

    async def work(_input: Any) -> str:
        tries.append(1)
        begun.set()
        await go.wait()
        if len(tries) == 1:
            raise OSError("once")
        return "done"

    await rig.role("shop/coder", work, backoff=SOON)
    await rig.runner()
    accepted = await rig.ask("shop/coder")
    await asyncio.wait_for(begun.wait(), 30)
    begun.clear()
    await rig.connection.nc.publish(f"inv.shop.coder.{accepted.id}.claimed", b"rubbish")
    await rig.connection.nc.flush()
    go.set()
    await rig.story.event(accepted.id, "failed", limit_s=5)
    go.clear()
    await asyncio.wait_for(begun.wait(), 30)
    await rig.connection.nc.publish(f"inv.shop.coder.{accepted.id}.noted", b"rubbish")
    await rig.connection.nc.flush()
    go.set()
    await rig.story.event(accepted.id, "completed", limit_s=5)
    assert len(tries) == 2


async def test_worker_never_exceeds_its_concurrency(rig: Rig) -> None:
    """Of much waiting work at most `concurrency` runs at once in a runner, and that many do."""
    now, most = 0, 0

    async def work(_input: Any) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.01)
        now -= 1

    await rig.role("shop/coder", work, concurrency=3)
    asked = [(await rig.ask("shop/coder", n)).id for n in range(60)]
    await rig.runner()
    for id_ in asked:
        await rig.story.event(id_, "completed")
    assert most == 3


async def test_worker_goes_on_while_retries_wait(rig: Rig) -> None:
    """Work that waits for a far retry takes no place from the work behind it."""

    async def work(input: str) -> None:
        if input == "bad":
            raise OSError("later")

    await rig.role("shop/coder", work, concurrency=2, backoff=Backoff(base=60, jitter=0.0))
    bad = [(await rig.ask("shop/coder", "bad")).id for _ in range(20)]
    good = [(await rig.ask("shop/coder", "good")).id for _ in range(20)]
    await rig.runner()
    for id_ in good:
        await rig.story.event(id_, "completed", limit_s=10)
    assert all(names(rig, id_) == ["requested", "claimed", "failed"] for id_ in bad)


async def test_worker_of_several_runners_shares_the_work(rig: Rig) -> None:
    """Two runners of one fleet both work, and each piece is done once."""

    async def work(_input: Any) -> None:
        await asyncio.sleep(0.02)

    await rig.role("shop/coder", work, concurrency=4)
    one, _ = await rig.runner("agent_runner-1")
    two, _ = await rig.runner("agent_runner-2")
    asked = [(await rig.ask("shop/coder", n)).id for n in range(80)]
    done = [await rig.story.event(id_, "completed") for id_ in asked]
    assert {record.data.holder for record in done} == {one.boot_id, two.boot_id}
    assert all(names(rig, id_) == ["requested", "claimed", "completed"] for id_ in asked)


async def test_worker_holds_the_younger_of_two_claims_of_its_own(rig: Rig) -> None:
    """A claim that was swept comes back to the same runner while the old handler still runs: the younger is kept and counts."""
    begun: list[asyncio.Event] = [asyncio.Event(), asyncio.Event()]
    go: list[asyncio.Event] = [asyncio.Event(), asyncio.Event()]
    calls: list[int] = []

    async def work(_input: Any) -> str:
        n = len(calls)
        calls.append(n)
        begun[n].set()
        await go[n].wait()
        return f"by call {n}"

    await rig.role("shop/coder", work, concurrency=2)
    running, runner = await rig.runner()
    accepted = await rig.ask("shop/coder")
    ref = Ref("shop", "coder", accepted.id)
    await asyncio.wait_for(begun[0].wait(), 30)
    claim = (await rig.story.event(accepted.id, "claimed")).data
    sweep = invocation.Sweep(holder=running.boot_id, reason=ev.SweepReason.HOLDER_GONE)
    await rig.bus.invocations.carry_out(ref, sweep, Limits())
    await rig.connection.nc.publish(claim.reply, b"-NAK")
    await asyncio.wait_for(begun[1].wait(), 30)
    go[0].set()
    await until(lambda: runner.workers["shop", "coder"].puller.working == 1)
    assert running.evidence().in_flight == 1
    go[1].set()
    done = await rig.story.event(accepted.id, "completed")
    assert bytes(done.data.output) == b'"by call 1"'
    assert names(rig, accepted.id) == ["requested", "claimed", "swept", "claimed", "completed"]


async def test_worker_reports_a_handler_that_cannot_be_built(rig: Rig) -> None:
    """A role whose function does not exist sends its work to the dead letters with the reason, and others go on."""
    await rig.role("shop/coder", echo)
    await rig.role("shop/typo", echo)
    await rig.put("shop/typo", Role(handler=FunctionHandler(target="tests.services.stage:nothing_here")))
    await rig.runner()
    bad, good = await rig.ask("shop/typo"), await rig.ask("shop/coder")
    dead = await rig.story.event(bad.id, "dead_lettered")
    assert "nothing_here" in dead.data.error.message
    await rig.story.event(good.id, "completed")


async def test_worker_shows_a_note_of_progress(rig: Rig) -> None:
    """What a handler says of its progress can be watched with plain NATS while it runs."""
    go = asyncio.Event()

    async def work(_input: Any, ctx: Context) -> None:
        ctx.progress("half way")
        await go.wait()

    await rig.role("shop/coder", work)
    notes: asyncio.Queue[bytes] = asyncio.Queue()
    nc = rig.connection.nc
    heard = await nc.subscribe("progress.shop.coder.*")
    await nc.flush()
    await rig.runner()
    accepted = await rig.ask("shop/coder")
    message = await heard.next_msg(timeout=10)
    assert message.data == b"half way"
    assert message.subject == f"progress.shop.coder.{accepted.id}"
    assert notes.empty()
    go.set()
    await rig.story.event(accepted.id, "completed")
    with contextlib.suppress(TimeoutError):
        await heard.unsubscribe()

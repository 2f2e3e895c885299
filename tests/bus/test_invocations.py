"""Commands on real invocations: decided on the log, refereed by the fence."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from bus import errors, ids
from bus.author import Author
from bus.events import invocation as ev
from bus.invocation import (
    Bury,
    Cancel,
    Claim,
    Command,
    Complete,
    Fail,
    Limits,
    Misfit,
    Redrive,
    Refused,
    Release,
    Status,
)
from bus.invocations import Invocations, last_id
from bus.store import Append, Store
from bus.subjects import Ref

LIMITS = Limits()


@pytest.fixture
async def ref(store: Store, author: Author) -> Ref:
    """An invocation that was asked for."""
    ref = Ref("shop", "coder", ids.new_id())
    await store.append(author.invocation(ref, ev.Requested(root="the-root")), expect=0, scope=ref.all)
    return ref


@pytest.fixture
def invocations(store: Store, author: Author) -> Invocations:
    """What is tested."""
    return Invocations(store, author)


def claim(holder: str = "a", delivery: int = 1) -> Claim:
    """A claim by `holder`."""
    return Claim(holder=holder, runner=holder, delivery=delivery, reply="$JS.ACK.x")


async def test_invocations_carry_a_command_out(invocations: Invocations, store: Store, ref: Ref) -> None:
    """The outcome is what the log says afterwards, and each event names the one before it as its cause."""
    await invocations.carry_out(ref, claim(), LIMITS)
    outcome = await invocations.carry_out(ref, Release(reason=ev.ReleaseReason.QUOTA, holder="a"), LIMITS, actor="ann")
    assert [type(event) for event in outcome.events] == [ev.Released, ev.Requested]
    after = await store.state(ref)
    assert after is not None
    assert (after.status, after.last_seq, after.requested_seq) == (Status.QUEUED, 4, 4)
    assert (outcome.after.last_seq, outcome.after.requested_seq) == (4, 4)
    events = [record.event for record in await store.history(ref)]
    assert all(later and earlier and later.causationid == earlier.id for earlier, later in pairwise(events))
    assert [event.actor for event in events if event] == ["tester", "tester", "ann", "ann"]
    assert {event.correlationid for event in events[1:] if event} == {"the-root"}


async def test_invocations_of_rivals_end_once(invocations: Invocations, store: Store, ref: Ref) -> None:
    """A result, a cancel and a burial at the same moment: one gets through, the others are refused."""
    await invocations.carry_out(ref, claim(), LIMITS)
    rivals: list[Command] = [Complete(holder="a", delivery=1), Cancel(), Bury(), Cancel(), Bury()]
    results = await asyncio.gather(
        *[invocations.carry_out(ref, command, LIMITS) for command in rivals], return_exceptions=True
    )
    refused = [result for result in results if isinstance(result, Refused)]
    ends = [record.data for record in await store.history(ref)][2:]
    # A dead letter may still be cancelled by a person: that is its second and last end.
    assert len(refused) == len(rivals) - len(ends)
    assert len(ends) == 1 or (isinstance(ends[0], ev.DeadLettered) and isinstance(ends[1], ev.Cancelled))
    assert all(refusal.reason is Misfit.ENDED for refusal in refused)


async def test_invocations_go_on_from_a_stale_reading(invocations: Invocations, store: Store, ref: Ref) -> None:
    """A history that was read too early costs one more try and nothing else."""
    stale = await store.history(ref)
    await invocations.carry_out(ref, claim(), LIMITS)
    outcome = await invocations.carry_out(ref, Cancel(), LIMITS, records=stale)
    assert outcome.before.status is Status.RUNNING
    assert outcome.after.status is Status.CANCELLED


async def test_invocations_append_is_fenced_on_the_given_state(
    invocations: Invocations, store: Store, ref: Ref, author: Author
) -> None:
    """A zombie's completion with its follow-up, decided on the state of its claim, is refused whole."""
    held = (await invocations.carry_out(ref, claim("a", 1), LIMITS)).after
    await invocations.carry_out(ref, claim("b", 2), LIMITS)
    other = Ref("ledger", "clerk", ids.new_id())
    follow_up = Append(author.invocation(other, ev.Requested()), 0, other.all)
    with pytest.raises(errors.SequenceConflict):
        await invocations.append(ref, held, [ev.Completed(holder="a", delivery=1)], also=[follow_up])
    assert await store.history(other) == []
    state = await store.state(ref)
    assert state is not None
    assert state.claim is not None
    assert state.claim.holder == "b"


async def test_invocations_write_a_completion_with_its_follow_ups(
    invocations: Invocations, store: Store, ref: Ref, author: Author
) -> None:
    """The state after a batch with follow-ups has the sequence of its own last event."""
    held = (await invocations.carry_out(ref, claim(), LIMITS)).after
    others = [Ref("ledger", "clerk", ids.new_id()) for _ in range(3)]
    also = [Append(author.invocation(other, ev.Requested()), 0, other.all) for other in others]
    written = await invocations.append(ref, held, [ev.Completed(holder="a", delivery=1)], also=also)
    state = await store.state(ref)
    assert state is not None
    assert written.state.last_seq == state.last_seq == held.last_seq + 1
    assert [len(await store.history(other)) for other in others] == [1, 1, 1]


async def test_invocations_redrive_a_dead_letter(invocations: Invocations, store: Store, ref: Ref) -> None:
    """Dead, redriven, claimed and completed: one log, one end after the redrive."""
    await invocations.carry_out(ref, claim(), LIMITS)
    error = ev.Error(kind="E", message="m", fingerprint="f", permanent=True)
    await invocations.carry_out(
        ref, Fail(holder="a", delivery=1, error=error, retry_at=invocations._author.now()), LIMITS
    )
    await invocations.carry_out(ref, Redrive(reason="fixed"), LIMITS)
    await invocations.carry_out(ref, claim(), LIMITS)
    outcome = await invocations.carry_out(ref, Complete(holder="a", delivery=1), LIMITS)
    assert outcome.after.status is Status.COMPLETED
    assert outcome.after.redrives == 1


async def test_invocations_that_do_not_exist_are_refused(invocations: Invocations) -> None:
    """A command on nothing is refused and writes nothing."""
    with pytest.raises(Refused, match="there is no such invocation"):
        await invocations.carry_out(Ref("a", "b", ids.new_id()), Cancel(), LIMITS)


def test_invocations_cause_of_nothing_is_empty() -> None:
    """Where nothing readable lies there is no cause."""
    assert last_id([]) == ""

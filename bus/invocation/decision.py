"""What may happen next, and why not. Pure: the clock's time is an argument, and the fence has the last word."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import assert_never

import msgspec

from bus.events import invocation as ev
from bus.invocation.commands import (
    Bury,
    Cancel,
    Claim,
    Command,
    Complete,
    Cost,
    Discard,
    Fail,
    FallDue,
    Redrive,
    Release,
    Sweep,
)
from bus.invocation.state import Invocation, Status

_FREE = Cost()


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a role allows before its work is given up on."""

    #: Errors until the dead letter.
    max_attempts: int = 3
    #: Deliveries that ended without a result until the dead letter.
    max_crashes: int = 3
    #: False: an orphan goes to a person, not back to work.
    idempotent: bool = True

    @property
    def max_deliver(self) -> int:
        """The server's backstop: every error and every crash spends one delivery, and one is for luck."""
        return self.max_attempts + self.max_crashes + 1


class Misfit(StrEnum):
    """Why a command does not apply to the present state."""

    ENDED = "the invocation has ended"
    NOT_ACCEPTED = "there is no such invocation"
    NOT_DUE = "the invocation is not due yet"
    HELD = "another holder has the claim"
    NOT_HELD = "the claim is not held by this holder"
    NOT_DEAD = "the invocation is not a dead letter"
    ALREADY_DUE = "the invocation was requested already"


class Refused(Exception):
    """A command does not apply. The caller drops the work, or tells a person."""

    def __init__(self, reason: Misfit, state: Invocation | None) -> None:
        self.reason, self.state = reason, state
        super().__init__(f"{reason.value}" + (f": it is {state.status}" if state else ""))


def decide(  # noqa: PLR0912 (one arm for each command)
    state: Invocation | None, command: Command, limits: Limits, now: datetime
) -> list[ev.InvocationEvent]:
    """The events that carry the command out, to be appended in one batch fenced on ``state.last_seq``.

    Raises:
        Refused: the command does not apply to the state; the reason says why.
    """
    if state is None:
        raise Refused(Misfit.NOT_ACCEPTED, None)
    match command:
        case Claim():
            return _claim(state, command, limits, now)
        case Complete():
            claim = _held(state, command.holder, command.delivery)
            return [
                ev.Completed(
                    holder=command.holder,
                    delivery=command.delivery,
                    output=command.output,
                    output_ref=command.output_ref,
                    usage=command.usage,
                    duration_ms=command.duration_ms,
                    follow_ups=command.follow_ups,
                    artifacts=command.artifacts,
                    tail=command.tail,
                    settled=_settled(claim, command.usage, command.cost),
                )
            ]
        case Fail():
            return _fail(state, command, limits)
        case Sweep():
            if state.status is not Status.RUNNING or state.claim is None or state.claim.holder != command.holder:
                raise Refused(Misfit.NOT_HELD, state)
            return _sweep(state, command.reason, limits, now)
        case Release():
            return _release(state, command)
        case Bury():
            if state.status.ended:
                raise Refused(Misfit.ENDED, state)
            if state.status is Status.SCHEDULED:
                raise Refused(Misfit.NOT_DUE, state)
            return [_death(state, command.reason)]
        case Cancel():
            if state.status.ended and state.status is not Status.DEAD_LETTERED:
                raise Refused(Misfit.ENDED, state)
            return [ev.Cancelled(reason=command.reason, settled=_settled(state.claim, None))]
        case Redrive():
            if state.status is not Status.DEAD_LETTERED:
                raise Refused(Misfit.NOT_DEAD, state)
            return [ev.Redriven(reason=command.reason), _again(state)]
        case Discard():
            if state.status is not Status.DEAD_LETTERED:
                raise Refused(Misfit.NOT_DEAD, state)
            return [ev.Discarded(reason=command.reason)]
        case FallDue():
            if state.status is not Status.SCHEDULED:
                raise Refused(Misfit.ENDED if state.status.ended else Misfit.ALREADY_DUE, state)
            return [state.request]
        case _:
            assert_never(command)


def _claim(state: Invocation, command: Claim, limits: Limits, now: datetime) -> list[ev.InvocationEvent]:
    if state.status.ended:
        raise Refused(Misfit.ENDED, state)
    if state.status is Status.SCHEDULED:
        raise Refused(Misfit.NOT_DUE, state)
    events: list[ev.InvocationEvent] = []
    crashes = state.crashes
    if state.claim is not None:
        if command.delivery <= state.claim.delivery:
            # An older delivery that arrives late must not take the claim from the younger one's live holder; nor one of the
            # same number, which comes twice only from a consumer that was made anew and proves nothing about the holder.
            raise Refused(Misfit.HELD, state)
        # Delivered again while the log still shows a claim: its ack_wait ran out with nobody there to sweep it.
        events += _sweep(state, ev.SweepReason.ACK_WAIT, limits, now)
        if len(events) > 1:
            return events
        crashes += 1
    elif crashes >= limits.max_crashes:
        return [_death(state, ev.DeathReason.CRASHES_SPENT)]
    events.append(
        ev.Claimed(
            holder=command.holder,
            runner=command.runner,
            delivery=command.delivery,
            attempt=state.errors + crashes + 1,
            reply=command.reply,
            registry_revision=command.registry_revision,
            prompt_digest=command.prompt_digest,
            hold=command.hold,
        )
    )
    return events


def _held(state: Invocation, holder: str, delivery: int) -> ev.Claimed:
    claim = state.claim
    if state.status.ended:
        raise Refused(Misfit.ENDED, state)
    if claim is None or claim.holder != holder or claim.delivery != delivery:
        raise Refused(Misfit.NOT_HELD, state)
    return claim


def _fail(state: Invocation, command: Fail, limits: Limits) -> list[ev.InvocationEvent]:
    claim = _held(state, command.holder, command.delivery)
    spent = state.errors + 1 >= limits.max_attempts
    over = spent or command.error.permanent
    failed = ev.Failed(
        holder=command.holder,
        delivery=command.delivery,
        attempt=claim.attempt,
        error=command.error,
        retry_at=None if over else command.retry_at,
        usage=command.usage,
        duration_ms=command.duration_ms,
        artifacts=command.artifacts,
        settled=_settled(claim, command.usage, command.cost, unverified=command.unverified),
    )
    if not over:
        return [failed]
    reason = ev.DeathReason.PERMANENT_ERROR if command.error.permanent else ev.DeathReason.ATTEMPTS_SPENT
    dead = ev.DeadLettered(
        reason=reason,
        attempts=state.errors + 1,
        crashes=state.crashes,
        error=command.error,
        usage=state.usage + command.usage,
    )
    return [failed, dead]


def _sweep(state: Invocation, reason: ev.SweepReason, limits: Limits, now: datetime) -> list[ev.InvocationEvent]:
    assert state.claim is not None
    swept = ev.Swept(
        holder=state.claim.holder,
        delivery=state.claim.delivery,
        age_s=round(max(0.0, (now - state.since).total_seconds()), 3),
        reason=reason,
        settled=_settled(state.claim, None),
    )
    crashes = state.crashes + 1
    state = msgspec.structs.replace(state, claim=None)
    if not limits.idempotent:
        return [swept, _death(state, ev.DeathReason.NOT_IDEMPOTENT, crashes)]
    if crashes >= limits.max_crashes:
        return [swept, _death(state, ev.DeathReason.CRASHES_SPENT, crashes)]
    return [swept]


def _release(state: Invocation, command: Release) -> list[ev.InvocationEvent]:
    if state.status.ended:
        raise Refused(Misfit.ENDED, state)
    if state.status is Status.SCHEDULED:
        raise Refused(Misfit.NOT_DUE, state)
    holder = state.claim.holder if state.claim else ""
    if holder != command.holder:
        raise Refused(Misfit.NOT_HELD if command.holder else Misfit.HELD, state)
    delivery = state.claim.delivery if state.claim else 0
    settled = _settled(state.claim, command.usage, command.cost)
    return [ev.Released(reason=command.reason, holder=holder, delivery=delivery, settled=settled), _again(state)]


def _death(state: Invocation, reason: ev.DeathReason, crashes: int | None = None) -> ev.DeadLettered:
    return ev.DeadLettered(
        reason=reason,
        attempts=state.errors,
        crashes=state.crashes if crashes is None else crashes,
        error=state.error,
        usage=state.usage,
        settled=_settled(state.claim, None),
    )


def _settled(
    claim: ev.Claimed | None, usage: ev.Usage | None, cost: Cost = _FREE, *, unverified: bool = False
) -> ev.Settlement | None:
    """The settlement of a claim's hold; without a known usage all of it counts as used, with an unverified one at least all."""
    if claim is None or claim.hold is None:
        return None
    if usage is None:
        hold = claim.hold
        return ev.Settlement(hold=hold, tokens=hold.tokens, usd_micros=hold.usd_micros, assumed=True)
    tokens = usage.input_tokens + usage.output_tokens
    if unverified:
        hold, usd = claim.hold, max(claim.hold.usd_micros, cost.usd_micros)
        return ev.Settlement(
            hold=hold, tokens=max(hold.tokens, tokens), usd_micros=usd, prices=cost.prices, assumed=True
        )
    return ev.Settlement(hold=claim.hold, tokens=tokens, usd_micros=cost.usd_micros, prices=cost.prices)


def _again(state: Invocation) -> ev.Requested:
    """The same request once more: the fresh work item of a put-back or a redrive."""
    return msgspec.structs.replace(state.request, generation=state.request.generation + 1)

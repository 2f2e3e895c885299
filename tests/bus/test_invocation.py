"""The life of an invocation: laws that hold for every history, and single rules that were paid for."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus import invocation
from bus.events import invocation as ev
from bus.invocation import (
    Bury,
    Cancel,
    Claim,
    Command,
    Complete,
    Discard,
    Fail,
    FallDue,
    Invocation,
    Limits,
    Misfit,
    Redrive,
    Refused,
    Release,
    Status,
    Sweep,
    decide,
    evolve,
)

START = datetime(2026, 1, 1, tzinfo=UTC)
LIMITS = Limits()
TERMINAL = (ev.Completed, ev.Cancelled, ev.DeadLettered, ev.Discarded)


class Log:
    """The events of one invocation, as a stream would keep them."""

    def __init__(self, first: ev.InvocationEvent, limits: Limits = LIMITS) -> None:
        self.limits = limits
        self.records: list[tuple[ev.InvocationEvent, int, datetime]] = []
        self.append([first])

    def append(self, events: list[ev.InvocationEvent]) -> None:
        """Store events with the next sequences, one second apart."""
        for event in events:
            seq = len(self.records) + 1
            self.records.append((event, seq, START + timedelta(seconds=seq)))

    @property
    def events(self) -> list[ev.InvocationEvent]:
        """Everything that happened."""
        return [event for event, _, _ in self.records]

    @property
    def state(self) -> Invocation:
        """The fold over everything."""
        state: Invocation | None = None
        for event, seq, time in self.records:
            state = evolve(state, event, seq, time)
        assert state is not None
        return state

    def do(self, command: Command) -> list[ev.InvocationEvent]:
        """Decide and append."""
        events = decide(self.state, command, self.limits, START + timedelta(seconds=len(self.records)))
        self.append(events)
        return events


def error(*, permanent: bool = False) -> ev.Error:
    """Some error."""
    return ev.Error(kind="ValueError", message="it broke", fingerprint="f", permanent=permanent)


def claim(holder: str = "a", delivery: int = 1) -> Claim:
    """A claim by `holder`."""
    return Claim(holder=holder, runner=f"runner-{holder}", delivery=delivery, reply="$JS.ACK.x")


def fail(holder: str = "a", delivery: int = 1, *, permanent: bool = False, tokens: int = 0) -> Fail:
    """An error handed in by `holder`."""
    return Fail(
        holder=holder,
        delivery=delivery,
        error=error(permanent=permanent),
        retry_at=START,
        usage=ev.Usage(input_tokens=tokens),
    )


def complete(holder: str = "a", delivery: int = 1, *, tokens: int = 0) -> Complete:
    """A result handed in by `holder`."""
    return Complete(holder=holder, delivery=delivery, usage=ev.Usage(output_tokens=tokens))


def sweep(holder: str = "a") -> Sweep:
    """A sweep of `holder`'s claim."""
    return Sweep(holder=holder, reason=ev.SweepReason.HOLDER_GONE)


def refusal(log: Log, command: Command) -> Misfit:
    """Why the command is refused; fails when it is not."""
    with pytest.raises(Refused) as caught:
        log.do(command)
    return caught.value.reason


holders = st.sampled_from("ab")
deliveries = st.integers(1, 4)
usages = st.builds(ev.Usage, input_tokens=st.integers(0, 9), output_tokens=st.integers(0, 9))
commands = st.one_of(
    st.builds(claim, holders, deliveries),
    st.builds(claim, holders, deliveries),
    st.builds(Complete, holder=holders, delivery=deliveries, usage=usages),
    st.builds(
        Fail,
        holder=holders,
        delivery=deliveries,
        error=st.builds(error, permanent=st.booleans()),
        retry_at=st.just(START),
        usage=usages,
    ),
    st.builds(Sweep, holder=holders, reason=st.sampled_from(ev.SweepReason)),
    st.builds(Release, reason=st.sampled_from(ev.ReleaseReason), holder=st.sampled_from(["", "a", "b"])),
    st.just(Bury()),
    st.just(Cancel()),
    st.just(Redrive()),
    st.just(Discard()),
    st.just(FallDue()),
)
limits = st.builds(Limits, max_attempts=st.integers(1, 3), max_crashes=st.integers(1, 3), idempotent=st.booleans())
firsts = st.one_of(
    st.just(ev.Requested(input=msgspec.Raw(b"1"))),
    st.just(ev.Scheduled(due=START, request=ev.Requested(input=msgspec.Raw(b"1")))),
)


class Step(NamedTuple):
    """One command tried on a log."""

    before: Invocation
    command: Command
    #: Empty when it was refused.
    events: list[ev.InvocationEvent]
    after: Invocation


@st.composite
def histories(draw: st.DrawFn) -> tuple[Log, list[Step]]:
    """A log, and what was tried on it."""
    log = Log(draw(firsts), draw(limits))
    steps: list[Step] = []
    for command in draw(st.lists(commands, max_size=25)):
        before = log.state
        try:
            events = log.do(command)
        except Refused:
            events = []
        steps.append(Step(before, command, events, log.state))
    return log, steps


@given(histories())
def test_invocation_history_replays_to_the_same_state(history: tuple[Log, list[Step]]) -> None:
    """Folding the same records twice gives the same state, and its fence is the last record's sequence."""
    log, _ = history
    assert log.state == log.state
    assert log.state.last_seq == len(log.records)


@given(histories())
def test_invocation_ended_accepts_only_what_a_person_may_do(history: tuple[Log, list[Step]]) -> None:
    """After its end nothing applies, but for redrive, discard and cancel of a dead letter."""
    _, steps = history
    for step in steps:
        if step.before.status.ended and step.events:
            assert step.before.status is Status.DEAD_LETTERED
            assert isinstance(step.command, Redrive | Discard | Cancel)


@given(histories())
def test_invocation_counts_stay_below_their_limits(history: tuple[Log, list[Step]]) -> None:
    """While it is not ended, errors and crashes are below what its role allows."""
    log, steps = history
    for step in steps:
        if not step.after.status.ended:
            assert step.after.errors < log.limits.max_attempts
            assert step.after.crashes < log.limits.max_crashes


@given(histories())
def test_invocation_ends_at_most_once_a_life(history: tuple[Log, list[Step]]) -> None:
    """Between two redrives there is one end at most; only a dead letter is then cancelled or discarded, once."""
    log, _ = history
    lives: list[list[ev.InvocationEvent]] = [[]]
    for event in log.events:
        if isinstance(event, ev.Redriven):
            lives.append([])
        elif isinstance(event, TERMINAL):
            lives[-1].append(event)
    for ends in lives:
        assert len(ends) <= 2
        if len(ends) == 2:
            assert isinstance(ends[0], ev.DeadLettered)
            assert isinstance(ends[1], ev.Cancelled | ev.Discarded)
    assert log.state.status.ended == bool(lives[-1])


@given(histories())
def test_invocation_never_has_two_holders(history: tuple[Log, list[Step]]) -> None:
    """Between two claims there is always the event that ended the first; a claim is there exactly while it runs."""
    log, steps = history
    held = False
    for event in log.events:
        match event:
            case ev.Claimed():
                assert not held
                held = True
            case ev.Completed() | ev.Failed() | ev.Swept() | ev.Released() | ev.Cancelled() | ev.DeadLettered():
                held = False
    for step in steps:
        assert (step.after.claim is not None) == (step.after.status is Status.RUNNING)


@given(histories())
def test_invocation_usage_is_the_sum_of_its_results(history: tuple[Log, list[Step]]) -> None:
    """What was used is the sum over completions and failures, of all lives."""
    log, _ = history
    results = [event.usage for event in log.events if isinstance(event, ev.Completed | ev.Failed)]
    assert log.state.usage.input_tokens == sum(usage.input_tokens for usage in results)
    assert log.state.usage.output_tokens == sum(usage.output_tokens for usage in results)


@given(histories())
def test_invocation_dead_letter_states_the_folded_counts(history: tuple[Log, list[Step]]) -> None:
    """A dead letter's attempts, crashes, error and use are what the fold says just after it."""
    log, _ = history
    state: Invocation | None = None
    for event, seq, time in log.records:
        state = evolve(state, event, seq, time)
        if isinstance(event, ev.DeadLettered):
            assert (event.attempts, event.crashes) == (state.errors, state.crashes)
            assert event.usage == state.usage
            assert event.error == state.error


@given(histories())
def test_invocation_put_back_work_is_the_same_request(history: tuple[Log, list[Step]]) -> None:
    """Every further ``requested`` carries the first one's request, one generation higher than the last."""
    log, _ = history
    requests = [event for event in log.events if isinstance(event, ev.Requested)]
    for number, request in enumerate(requests):
        assert request == msgspec.structs.replace(requests[0], generation=number)


@given(histories())
def test_invocation_release_costs_nothing(history: tuple[Log, list[Step]]) -> None:
    """Released work keeps its counts of errors and crashes, and waits in the queue under a fresh request."""
    _, steps = history
    for step in steps:
        if step.events and isinstance(step.events[0], ev.Released):
            assert (step.after.errors, step.after.crashes) == (step.before.errors, step.before.crashes)
            assert step.after.status is Status.QUEUED
            assert step.after.requested_seq == step.after.last_seq


@given(histories())
def test_invocation_attempt_numbers_count_up(history: tuple[Log, list[Step]]) -> None:
    """A claim's attempt is one more than the errors and crashes before it in its life."""
    log, _ = history
    state: Invocation | None = None
    for event, seq, time in log.records:
        if isinstance(event, ev.Claimed):
            assert state is not None
            assert event.attempt == state.errors + state.crashes + 1
        state = evolve(state, event, seq, time)


@given(st.lists(st.sampled_from([
    ev.Requested(), ev.Scheduled(due=START, request=ev.Requested()),
    ev.Claimed(holder="a", runner="r", delivery=1, attempt=1, reply="x"), ev.Completed(holder="a", delivery=1),
    ev.Failed(holder="a", delivery=1, attempt=1, error=error()), ev.Cancelled(), ev.Redriven(), ev.Discarded(),
    ev.Swept(holder="a", delivery=1, age_s=1, reason=ev.SweepReason.ACK_WAIT),
    ev.Released(reason=ev.ReleaseReason.DRAIN), ev.DeadLettered(reason=ev.DeathReason.CRASHES_SPENT),
]), min_size=1, max_size=12))  # fmt: skip
def test_invocation_fold_takes_events_in_any_order(events: list[ev.InvocationEvent]) -> None:
    """The fold never raises, whatever somebody wrote by hand, and its fence is the last sequence."""
    log = Log(events[0])
    log.append(events[1:])
    assert log.state.last_seq == len(events)


@pytest.mark.parametrize("make", [complete, fail])
def test_invocation_zombie_is_refused_after_its_claim_was_swept(make: Callable[..., Command]) -> None:
    """A holder that wakes up after its claim was swept can neither complete nor fail, with or without a new holder."""
    log = Log(ev.Requested())
    log.do(claim("a", 1))
    log.do(sweep("a"))
    assert refusal(log, make("a", 1)) is Misfit.NOT_HELD
    log.do(claim("b", 2))
    assert refusal(log, make("a", 1)) is Misfit.NOT_HELD
    log.do(complete("b", 2))
    assert refusal(log, make("a", 1)) is Misfit.ENDED


def test_invocation_zombie_of_the_same_runner_is_refused() -> None:
    """The delivery number tells two claims of one runner apart."""
    log = Log(ev.Requested())
    log.do(claim("a", 1))
    log.do(claim("a", 2))
    assert refusal(log, complete("a", 1)) is Misfit.NOT_HELD
    log.do(complete("a", 2))


def test_invocation_late_older_delivery_does_not_take_a_live_claim() -> None:
    """A first delivery that lay somewhere past ack_wait is refused once the second one is claimed."""
    log = Log(ev.Requested())
    log.do(claim("b", 2))
    assert refusal(log, claim("a", 1)) is Misfit.HELD
    assert log.state.claim is not None
    assert log.state.claim.holder == "b"


def test_invocation_redelivery_sweeps_the_silent_holder_and_claims_in_one_batch() -> None:
    """A later delivery shows that ack_wait ran out: the old claim is swept and the new one made together."""
    log = Log(ev.Requested())
    log.do(claim("a", 1))
    swept, claimed = log.do(claim("b", 2))
    assert isinstance(swept, ev.Swept)
    assert (swept.holder, swept.delivery, swept.reason) == ("a", 1, ev.SweepReason.ACK_WAIT)
    assert swept.age_s == 0
    assert isinstance(claimed, ev.Claimed)
    assert (claimed.holder, claimed.attempt) == ("b", 2)
    assert log.state.crashes == 1


def test_invocation_same_delivery_is_not_claimed_twice() -> None:
    """The same runner that sees the same delivery again is told that it is held."""
    log = Log(ev.Requested())
    log.do(claim("a", 1))
    assert refusal(log, claim("a", 1)) is Misfit.HELD


def test_invocation_not_idempotent_orphan_dies() -> None:
    """Without idempotency an orphan becomes a dead letter instead of work, by a sweep and by a redelivery alike."""
    for command in (sweep("a"), claim("b", 2)):
        log = Log(ev.Requested(), Limits(idempotent=False))
        log.do(claim("a", 1))
        events = log.do(command)
        assert isinstance(events[-1], ev.DeadLettered)
        assert events[-1].reason is ev.DeathReason.NOT_IDEMPOTENT
        assert (events[-1].attempts, events[-1].crashes) == (0, 1)
        assert log.state.status is Status.DEAD_LETTERED


def test_invocation_not_idempotent_error_is_retried() -> None:
    """An error that a handler reported is no orphan: it is retried also without idempotency."""
    log = Log(ev.Requested(), Limits(idempotent=False))
    log.do(claim())
    log.do(fail())
    assert log.state.status is Status.WAITING


def test_invocation_dies_at_max_attempts_errors() -> None:
    """The last allowed error and the dead letter are one batch, and only then is there no retry time."""
    log = Log(ev.Requested())
    for delivery in (1, 2):
        log.do(claim("a", delivery))
        (failed,) = log.do(fail("a", delivery))
        assert isinstance(failed, ev.Failed)
        assert failed.retry_at == START
    log.do(claim("a", 3))
    failed, dead = log.do(fail("a", 3))
    assert isinstance(failed, ev.Failed)
    assert failed.retry_at is None
    assert isinstance(dead, ev.DeadLettered)
    assert (dead.reason, dead.attempts) == (ev.DeathReason.ATTEMPTS_SPENT, 3)


def test_invocation_dies_at_max_crashes() -> None:
    """Crashes are counted apart from errors, and the last allowed one ends it."""
    log = Log(ev.Requested())
    log.do(claim("a", 1))
    log.do(fail("a", 1))
    for delivery in (2, 3):
        log.do(claim("a", delivery))
        assert len(log.do(sweep())) == 1
    log.do(claim("a", 4))
    _, dead = log.do(sweep())
    assert isinstance(dead, ev.DeadLettered)
    assert (dead.reason, dead.attempts, dead.crashes) == (ev.DeathReason.CRASHES_SPENT, 1, 3)


def test_invocation_permanent_error_dies_at_once() -> None:
    """A permanent error spends no further attempt."""
    log = Log(ev.Requested())
    log.do(claim())
    _, dead = log.do(fail(permanent=True))
    assert isinstance(dead, ev.DeadLettered)
    assert dead.reason is ev.DeathReason.PERMANENT_ERROR
    assert dead.error == error(permanent=True)


def test_invocation_lowered_crash_limit_is_met_at_the_next_claim() -> None:
    """Crashes that a changed role no longer allows end it instead of a claim."""
    log = Log(ev.Requested())
    log.do(claim("a", 1))
    log.do(sweep())
    log.limits = Limits(max_crashes=1)
    (dead,) = log.do(claim("a", 2))
    assert isinstance(dead, ev.DeadLettered)
    assert dead.reason is ev.DeathReason.CRASHES_SPENT


def test_invocation_redrive_gives_fresh_attempts() -> None:
    """After a redrive errors and crashes count from zero, and the use is kept."""
    log = Log(ev.Requested(input=msgspec.Raw(b'"x"')))
    log.do(claim())
    log.do(fail(permanent=True, tokens=7))
    redriven, request = log.do(Redrive(reason="fixed"))
    assert redriven == ev.Redriven(reason="fixed")
    assert request == ev.Requested(input=msgspec.Raw(b'"x"'), generation=1)
    state = log.state
    assert (state.status, state.errors, state.crashes, state.redrives) == (Status.QUEUED, 0, 0, 1)
    assert state.usage.input_tokens == 7
    assert state.requested_seq == state.last_seq


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ([], Status.QUEUED),
        ([claim()], Status.RUNNING),
        ([claim(), fail()], Status.WAITING),
        ([claim(), fail(permanent=True)], Status.DEAD_LETTERED),
    ],
)
def test_invocation_cancel_works_in_every_state(before: list[Command], expected: Status) -> None:
    """Queued, running, waiting and dead-lettered work can be called off, and then nothing more applies."""
    log = Log(ev.Requested())
    for command in before:
        log.do(command)
    assert log.state.status is expected
    log.do(Cancel(reason="no longer wanted"))
    assert log.state.status is Status.CANCELLED
    for command in (claim("b", 9), complete(), fail(), Cancel(), Redrive(), Discard(), Bury(), FallDue()):
        assert refusal(log, command) in (Misfit.ENDED, Misfit.NOT_DEAD)


def test_invocation_scheduled_waits_for_its_time() -> None:
    """Before it falls due nothing but a cancel applies; then its own request goes into the queue once."""
    request = ev.Requested(input=msgspec.Raw(b"2"), due=START)
    log = Log(ev.Scheduled(due=START, request=request))
    assert (log.state.status, log.state.requested_seq) == (Status.SCHEDULED, 0)
    for command in (claim(), Release(reason=ev.ReleaseReason.LOST_DELIVERY), Bury()):
        assert refusal(log, command) is Misfit.NOT_DUE
    assert log.do(FallDue()) == [request]
    assert log.state.requested_seq == 2
    assert refusal(log, FallDue()) is Misfit.ALREADY_DUE


def test_invocation_release_by_another_is_refused() -> None:
    """Only the holder puts back what is held, and what nobody holds is put back by nobody's name."""
    log = Log(ev.Requested())
    assert refusal(log, Release(reason=ev.ReleaseReason.DRAIN, holder="a")) is Misfit.NOT_HELD
    log.do(claim("a"))
    assert refusal(log, Release(reason=ev.ReleaseReason.DRAIN, holder="b")) is Misfit.NOT_HELD
    assert refusal(log, Release(reason=ev.ReleaseReason.LOST_DELIVERY)) is Misfit.HELD
    released, _ = log.do(Release(reason=ev.ReleaseReason.QUOTA, holder="a"))
    assert released == ev.Released(reason=ev.ReleaseReason.QUOTA, holder="a", delivery=1)


def test_invocation_bury_ends_what_is_not_ended() -> None:
    """Spent deliveries end it with the counts so far, and end it only once."""
    log = Log(ev.Requested())
    log.do(claim())
    log.do(fail())
    (dead,) = log.do(Bury())
    assert isinstance(dead, ev.DeadLettered)
    assert (dead.reason, dead.attempts, dead.error) == (ev.DeathReason.DELIVERIES_SPENT, 1, error())
    assert refusal(log, Bury()) is Misfit.ENDED


def test_invocation_that_is_not_there_refuses_everything() -> None:
    """Without a history every command is refused with the same sentence."""
    with pytest.raises(Refused, match="there is no such invocation"):
        decide(None, Cancel(), LIMITS, START)


def test_invocation_refusal_says_why_and_what_it_is() -> None:
    """A refusal's text names the reason and the present state."""
    log = Log(ev.Requested())
    log.do(Cancel())
    with pytest.raises(Refused, match="the invocation has ended: it is cancelled"):
        log.do(claim())


def test_invocation_deliveries_leave_room_for_every_error_and_crash() -> None:
    """The server's backstop is one more than all errors and crashes together."""
    assert Limits(max_attempts=3, max_crashes=2).max_deliver == 6


def test_invocation_sweep_age_is_never_negative() -> None:
    """A clock that steps back gives the age 0 and no refusal."""
    log = Log(ev.Requested())
    log.do(claim())
    (swept,) = decide(log.state, sweep(), LIMITS, START - timedelta(days=1))
    assert isinstance(swept, ev.Swept)
    assert swept.age_s == 0.0


def test_invocation_commands_are_all_decided() -> None:
    """Every command of the union has its own arm: none of them reaches the end of the match."""
    log = Log(ev.Requested())
    samples: list[Command] = [claim(), complete(), fail(), sweep(), Release(reason=ev.ReleaseReason.DRAIN), Bury()]
    samples += [Cancel(), Redrive(), Discard(), FallDue()]
    assert {type(sample) for sample in samples} == set(get_args(invocation.Command))
    for sample in samples:
        with suppress(Refused):
            assert decide(log.state, sample, LIMITS, START)

"""Whatever the interleaving of runners, a sweeper and a person: one fence, and exactly one end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

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
    Redrive,
    Refused,
    Release,
    Status,
    Sweep,
    decide,
    evolve,
)

START = datetime(2026, 1, 1, tzinfo=UTC)
ENDS = (ev.Completed, ev.Cancelled, ev.DeadLettered)


class FencedLog:
    """The log of one invocation, which refuses an append whose writer has not seen all of it."""

    def __init__(self) -> None:
        self.events: list[ev.InvocationEvent] = []

    def read(self) -> Invocation | None:
        """The fold over everything."""
        state: Invocation | None = None
        for seq, event in enumerate(self.events, 1):
            state = evolve(state, event, seq, START + timedelta(seconds=seq))
        return state

    def append(self, events: list[ev.InvocationEvent], expect: int) -> bool:
        """Store the batch, if `expect` is the last sequence."""
        if len(self.events) != expect:
            return False
        self.events += events
        return True


class Actor:
    """Somebody who has read the log at some time, and decides on what he saw then."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.seen: Invocation | None = None
        #: Runners: the request's sequence and the delivery in hand.
        self.delivery: tuple[int, int] | None = None
        #: Runners: what was answered when the claim was made.
        self.claimed: Invocation | None = None


names = st.sampled_from(["a", "b"])


class Interleaving(RuleBasedStateMachine):
    """Reading and appending are separate steps, so every actor may act on a state that is long gone."""

    def __init__(self) -> None:
        super().__init__()
        self.log = FencedLog()
        self.runners = {name: Actor(name) for name in ("a", "b")}
        self.sweeper, self.person = Actor("sweeper"), Actor("person")
        self.deliveries: dict[int, int] = {}

    @initialize(idempotent=st.booleans(), attempts=st.integers(1, 3), crashes=st.integers(1, 3), delayed=st.booleans())
    def request(self, idempotent: bool, attempts: int, crashes: int, delayed: bool) -> None:
        """Somebody asked for work, now or for later."""
        self.limits = Limits(idempotent=idempotent, max_attempts=attempts, max_crashes=crashes)
        asked = ev.Requested()
        self.log.append([ev.Scheduled(due=START, request=asked) if delayed else asked], 0)

    def act(self, command: Command, seen: Invocation | None) -> Invocation | None:
        """Decide on what was seen and try to append; the new state, or None when it was refused or the fence lost."""
        try:
            events = decide(seen, command, self.limits, START)
        except Refused:
            return None
        assert seen is not None
        return self.log.read() if self.log.append(events, seen.last_seq) else None

    @rule(name=names)
    def deliver(self, name: str) -> None:
        """The server hands the latest request to a runner, for the first time or because it was silent."""
        state = self.log.read()
        assert state is not None
        if state.requested_seq:
            count = self.deliveries[state.requested_seq] = self.deliveries.get(state.requested_seq, 0) + 1
            self.runners[name].delivery = (state.requested_seq, count)

    @rule(name=names)
    def look(self, name: str) -> None:
        """A runner reads the log."""
        self.runners[name].seen = self.log.read()

    @rule(name=names)
    def claim(self, name: str) -> None:
        """A runner claims what it was handed, by the state that it read; an old delivery is dropped."""
        runner = self.runners[name]
        if runner.delivery is None or runner.seen is None or runner.seen.requested_seq != runner.delivery[0]:
            return
        command = Claim(holder=name, runner=name, delivery=runner.delivery[1], reply="x")
        after = self.act(command, runner.seen)
        if after is not None and after.status is Status.RUNNING:
            runner.claimed = after

    @rule(name=names, outcome=st.sampled_from(["complete", "fail", "permanent", "release"]))
    def settle(self, name: str, outcome: str) -> None:
        """A runner hands in a result under the fence of its own claim, however long ago that was."""
        runner = self.runners[name]
        if runner.claimed is None or runner.claimed.claim is None:
            return
        delivery = runner.claimed.claim.delivery
        error = ev.Error(kind="E", message="m", fingerprint="f", permanent=outcome == "permanent")
        command: Command
        match outcome:
            case "complete":
                command = Complete(holder=name, delivery=delivery)
            case "release":
                command = Release(reason=ev.ReleaseReason.DRAIN, holder=name)
            case _:
                command = Fail(holder=name, delivery=delivery, error=error, retry_at=START)
        self.act(command, runner.claimed)

    @rule(name=names)
    def crash(self, name: str) -> None:
        """A runner forgets everything; its successor has the same name for the worst case."""
        self.runners[name] = Actor(name)

    @rule()
    def watch(self) -> None:
        """The sweeper reads the log."""
        self.sweeper.seen = self.log.read()

    @rule(action=st.sampled_from(["sweep", "release", "bury", "due"]))
    def rescue(self, action: str) -> None:
        """The sweeper acts on what it saw last."""
        seen = self.sweeper.seen
        match action:
            case "sweep" if seen is not None and seen.claim is not None:
                command: Command = Sweep(holder=seen.claim.holder, reason=ev.SweepReason.HOLDER_GONE)
            case "release":
                command = Release(reason=ev.ReleaseReason.LOST_DELIVERY)
            case "bury":
                command = Bury()
            case _:
                command = FallDue()
        self.act(command, seen)

    @rule()
    def read(self) -> None:
        """The person looks."""
        self.person.seen = self.log.read()

    @rule(command=st.sampled_from([Cancel(), Redrive(), Discard()]))
    def order(self, command: Command) -> None:
        """The person decides on what was on the screen."""
        self.act(command, self.person.seen)

    @invariant()
    def one_holder(self) -> None:
        """No claim is made while another one stands."""
        held = False
        for event in self.log.events:
            assert not (held and isinstance(event, ev.Claimed))
            if isinstance(event, ev.Claimed):
                held = True
            elif not isinstance(event, ev.Requested | ev.Scheduled):
                held = False

    @invariant()
    def one_end(self) -> None:
        """A life has at most one end; only a dead letter is then called off or discarded."""
        ends: list[ev.InvocationEvent] = []
        for event in self.log.events:
            if isinstance(event, ev.Redriven):
                ends = []
            elif isinstance(event, ev.Discarded) or (isinstance(event, ev.Cancelled) and ends):
                assert [type(end) for end in ends] == [ev.DeadLettered]
                ends.append(event)
            elif isinstance(event, ENDS):
                assert not ends
                ends.append(event)
            else:
                assert not ends

    def teardown(self) -> None:
        """One patient runner is enough to bring whatever is left to its one end."""
        state = self.log.read()
        if state is None:
            return
        if state.status is Status.SCHEDULED:
            self.act(FallDue(), state)
        self.deliver("a")
        self.look("a")
        self.claim("a")
        self.settle("a", "complete")
        after = self.log.read()
        assert after is not None
        assert after.status.ended
        self.one_end()


Interleaving.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)

#: What pytest runs.
TestInterleaving = Interleaving.TestCase

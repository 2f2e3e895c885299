"""Carry a command out on an invocation: fold, decide, append under the fence; and again if somebody was quicker.

This is the whole of the core in one loop: ``store`` reads, :mod:`bus.invocation` decides, ``store`` appends, the fence
referees. Commands whose answer may not change between two tries (a runner's result) go through the same loop, because
``decide`` refuses them once the claim is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

import msgspec

from bus import errors
from bus.author import Author
from bus.events import invocation as ev
from bus.invocation import Command, Invocation, Limits, decide, evolve
from bus.store import Append, Recorded, Store, fold
from bus.subjects import Ref


class Written(msgspec.Struct, frozen=True):
    """What an append left behind."""

    before: Invocation
    #: The appended events, the first one's sequence being `first`.
    events: list[ev.InvocationEvent]
    first: int
    #: Id of the last of them: the cause of what follows.
    cause: str
    at: datetime

    @property
    def state(self) -> Invocation:
        """After the appended events; folded when somebody asks, because a completion's writer never does."""
        state = self.before
        for seq, event in enumerate(self.events, self.first):
            state = evolve(state, event, seq, self.at)
        return state


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a command did."""

    before: Invocation
    after: Invocation
    events: tuple[ev.InvocationEvent, ...]


class Invocations:
    """Commands on invocations, for everybody who is not on the runner's fast path."""

    def __init__(
        self, store: Store, author: Author, settled: Callable[[ev.Settlement], None] = lambda _settlement: None
    ) -> None:
        """Make it; `settled` is called with each settlement that was written: whoever ends a claim moves its counters."""
        self._store = store
        self._author = author
        self.settled = settled

    async def carry_out(
        self, ref: Ref, command: Command, limits: Limits, *, actor: str = "", records: list[Recorded] | None = None
    ) -> Outcome:
        """Decide on the present state and append what follows.

        Args:
            ref: which invocation.
            command: what to do.
            limits: what its role allows.
            actor: on whose behalf; goes into the events.
            records: its history, if the caller has just read it.

        Raises:
            bus.invocation.Refused: the command does not apply (any more).
        """
        while True:
            records = await self._store.history(ref) if records is None else records
            before = fold(records)
            decided = decide(before, command, limits, self._author.now())
            assert before is not None
            try:
                written = await self.append(ref, before, decided, cause=last_id(records), actor=actor)
            except errors.SequenceConflict:
                records = None
                continue
            return Outcome(before=before, after=written.state, events=tuple(decided))

    async def append(
        self,
        ref: Ref,
        state: Invocation,
        decided: list[ev.InvocationEvent],
        *,
        cause: str = "",
        actor: str = "",
        also: Sequence[Append] = (),
    ) -> Written:
        """Append decided events in one batch, fenced on the state's last sequence; `also` goes into the same batch.

        Raises:
            SequenceConflict: the invocation has moved on; nothing was written.
        """
        root = state.request.root
        if len(decided) == 1 and not also:
            envelope = self._author.invocation(ref, decided[0], root=root, cause=cause, actor=actor)
            seq = await self._store.append(envelope, expect=state.last_seq, scope=ref.all)
            self._tell(decided)
            return Written(state, decided, seq, envelope.id, envelope.time)
        batch: list[Append] = []
        for event in decided:
            envelope = self._author.invocation(ref, event, root=root, cause=cause, actor=actor)
            # Inside a batch a fence compares with the state before it: only the first of ours needs one.
            batch.append(Append(envelope, None if batch else state.last_seq, ref.all))
            cause = envelope.id
        if also:
            batch += also
        last = await self._store.append_batch(batch)
        self._tell(decided)
        return Written(state, decided, last - len(batch) + 1, cause, batch[0].event.time)

    def _tell(self, decided: list[ev.InvocationEvent]) -> None:
        for event in decided:
            settlement = getattr(event, "settled", None)
            if settlement is not None:
                self.settled(settlement)


def last_id(records: list[Recorded]) -> str:
    """Event id of the last readable record: the cause of what is decided on it."""
    return next((r.event.id for r in reversed(records) if r.event is not None), "")

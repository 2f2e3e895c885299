"""The one way in which an action is done: asked for, refused or begun, done, each an event before its consequence.

The start is fenced over the starts of all actions, so that two of them that need the same thing alone never begin together.
Whoever dies in between leaves an action that runs until its time is over and then counts as abandoned: nothing waits for it
for ever, and nobody takes it for done.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Protocol

import msgspec

from bus import errors
from bus.events import ops as ev
from bus.store import CONTROL, Recorded
from services import decisions
from services.daemon import Bus, control_id
from services.ops import operation
from services.ops.operation import No, Operation

_ALL = "ctl.ops.>"
_STARTS = "ctl.ops.*.started"


class Action(Protocol):
    """Something that can be done to a fleet."""

    @property
    def name(self) -> str:
        """``restart``."""
        ...

    @property
    def target(self) -> str:
        """What it is done to."""
        ...

    @property
    def lock(self) -> str:
        """What nobody else may be at work on; empty for nothing."""
        ...

    @property
    def limit_s(self) -> float:
        """The longest that it may take."""
        ...

    @property
    def policy(self) -> str:
        """The policy that it changes, which asks for a decision; empty for none."""
        ...

    async def check(self) -> No | None:
        """Why it may not begin; None if it may. Changes nothing."""
        ...

    async def carry_out(self, id_: str) -> dict[str, Any]:
        """Do it, as the action with this id: what was seen of it.

        Raises:
            ActionFailed: it failed half-way; carries what was seen.
            BusError: it failed.
        """
        ...


class ActionRefused(errors.BusError):
    """An action was not begun: nothing was changed."""

    def __init__(self, reason: str, command: str = "") -> None:
        self.reason, self.command = reason, command
        super().__init__(reason + (f"; run: {command}" if command else ""))


class ActionFailed(errors.BusError):
    """An action failed after it had begun."""

    def __init__(self, sentence: str, evidence: dict[str, Any]) -> None:
        self.evidence = evidence
        super().__init__(sentence)


async def perform(bus: Bus, action: Action, *, who: str, why: str, decision: int = 0) -> Operation:
    """Do an action, with its events.

    Args:
        bus: where.
        action: what.
        who: on whose behalf.
        why: in their words.
        decision: number of the decision that it rests on; 0 for none.

    Raises:
        ActionRefused: it was not begun.
        BusError: it failed; what was done of it is in the log.
    """
    id_ = bus.author.new_id()
    request = ev.Requested(action=action.name, target=action.target, who=who, why=why, decision=decision)
    try:
        await _append(bus, id_, request)
    except errors.PermissionDenied:
        # Whoever may not even ask still learns what a person would do.
        no = await action.check()
        if no is None:
            raise
        raise ActionRefused(no.reason, no.command) from None
    try:
        no = await action.check() or await decisions.lacking(bus, action.policy, decision)
    except errors.BusError as exc:
        await _append(bus, id_, ev.Refused(reason=str(exc)))
        raise
    began = await _begin(bus, id_, action, no)
    if isinstance(began, ev.Refused):
        if no is not None and no.card is not None:
            card = msgspec.structs.replace(no.card, by=who, operation=id_)
            await bus.cards.hand(control_id(card.instance, card.host), card)
        raise ActionRefused(began.reason, began.command)
    since = time.monotonic()
    try:
        evidence = await action.carry_out(id_)
    except BaseException as exc:
        seen = exc.evidence if isinstance(exc, ActionFailed) else {}
        failed = {**seen, "error": str(exc) or type(exc).__name__}
        await _append(bus, id_, _finished(since, failed, ok=False))
        raise
    await _append(bus, id_, _finished(since, evidence, ok=True))
    return (await operations(bus))[id_]


def _finished(since: float, evidence: dict[str, Any], *, ok: bool) -> ev.Finished:
    took = round(time.monotonic() - since, 3)
    return ev.Finished(ok=ok, took_s=took, evidence=msgspec.Raw(msgspec.json.encode(evidence)))


async def _begin(bus: Bus, id_: str, action: Action, no: No | None) -> ev.Started | ev.Refused:
    while True:
        last = await bus.store.last(CONTROL, _STARTS)
        others = (await operations(bus)).values()
        decided = operation.decide(no, action.lock, action.limit_s, others)
        if isinstance(decided, ev.Refused):
            await _append(bus, id_, decided)
            return decided
        event = bus.author.control(id_, decided)
        try:
            await bus.store.append(event, expect=last.seq if last is not None else 0, scope=_STARTS)
        except errors.SequenceConflict:
            continue  # somebody else has begun meanwhile: look at what
        return decided


async def _append(bus: Bus, id_: str, event: ev.OpsEvent) -> None:
    await bus.store.append(bus.author.control(id_, event))


async def operations(bus: Bus) -> dict[str, Operation]:
    """All actions by id, oldest first."""
    async with aclosing(_records(bus)) as records:
        return operation.fold([record async for record in records], bus.author.now())


async def _records(bus: Bus) -> AsyncGenerator[Recorded, None]:
    async for record in bus.store.read(CONTROL, _ALL):
        yield record

"""One action on the fleet, folded from its events; and whether it may begin. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from enum import StrEnum

import msgspec

from bus.events import ops as ev
from bus.events.card import Opened
from bus.events.moment import Moment
from bus.store import Recorded


class Status(StrEnum):
    """Where an action stands."""

    REQUESTED = "requested"
    REFUSED = "refused"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    #: It began, and nothing was heard of its end in time: whoever did it is gone.
    ABANDONED = "abandoned"


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One action, as far as its events tell."""

    id: str
    action: str
    target: str
    who: str
    why: str
    status: Status
    requested_at: Moment
    decision: int = 0
    started_at: Moment | None = None
    limit_s: float = 0.0
    lock: str = ""
    ended_at: Moment | None = None
    took_s: float | None = None
    #: Why it was refused, and what a person runs instead.
    reason: str = ""
    command: str = ""
    #: What was seen of it: JSON.
    evidence: msgspec.Raw | None = None

    @property
    def sentence(self) -> str:
        """What it is, for people: ``restart of warden by ann``."""
        return f"{self.action} of {self.target} by {self.who}"


class No(msgspec.Struct, frozen=True):
    """Why an action may not begin."""

    reason: str
    #: The exact command that a person runs instead.
    command: str = ""
    #: What is handed to that person, where somebody has to come; None where the sentence is enough.
    card: Opened | None = None


def evolve(state: Operation | None, id_: str, event: ev.OpsEvent, at: datetime) -> Operation | None:
    """The action after one more event; events of an action that nobody asked for are none."""
    if isinstance(event, ev.Requested):
        return Operation(
            id=id_,
            action=event.action,
            target=event.target,
            who=event.who,
            why=event.why,
            decision=event.decision,
            status=Status.REQUESTED,
            requested_at=at,
        )
    if state is None:
        return None
    change = msgspec.structs.replace
    match event:
        case ev.Refused():
            return change(state, status=Status.REFUSED, reason=event.reason, command=event.command, ended_at=at)
        case ev.Started():
            return change(state, status=Status.RUNNING, started_at=at, limit_s=event.limit_s, lock=event.lock)
        case ev.Finished():
            status = Status.DONE if event.ok else Status.FAILED
            return change(state, status=status, ended_at=at, took_s=event.took_s, evidence=event.evidence)


def fold(records: Iterable[Recorded], now: datetime) -> dict[str, Operation]:
    """All actions by id, oldest first, as they stand at a moment."""
    found: dict[str, Operation] = {}
    for record in records:
        if record.data is None:
            continue
        id_ = record.subject.split(".")[2]
        state = evolve(found.get(id_), id_, record.data, record.stored_at)
        if state is not None:
            found[id_] = state
    return {id_: aged(state, now) for id_, state in found.items()}


def aged(state: Operation, now: datetime) -> Operation:
    """The action as it stands at a moment: one that runs for longer than it may is abandoned."""
    if state.status is not Status.RUNNING or state.started_at is None:
        return state
    if now < state.started_at + timedelta(seconds=state.limit_s):
        return state
    return msgspec.structs.replace(state, status=Status.ABANDONED)


def decide(no: No | None, lock: str, limit_s: float, others: Iterable[Operation]) -> ev.Started | ev.Refused:
    """Whether an action begins: not if its own check says no, nor while another holds what it needs alone."""
    if no is not None:
        return ev.Refused(reason=no.reason, command=no.command)
    for other in others:
        if lock and other.lock == lock and other.status is Status.RUNNING:
            since = f"{other.started_at:%Y-%m-%d %H:%M:%S} UTC"
            return ev.Refused(
                reason=f"expected nobody else at work on {lock}, got: the {other.sentence} runs since {since} ({other.id})",
                command=f"systems ops show {other.id}",
            )
    return ev.Started(limit_s=limit_s, lock=lock)

"""Where an invocation stands: the fold of its events."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, assert_never

import msgspec

from bus.events import invocation as ev


class Status(StrEnum):
    """Where an invocation stands."""

    SCHEDULED = "scheduled"
    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    DEAD_LETTERED = "dead_lettered"
    DISCARDED = "discarded"

    @property
    def ended(self) -> bool:
        """No runner will touch it again (a dead letter only by a person's redrive)."""
        return self in _ENDED


_ENDED = frozenset({Status.COMPLETED, Status.CANCELLED, Status.DEAD_LETTERED, Status.DISCARDED})


class Invocation(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the next decision depends on."""

    status: Status
    request: ev.Requested
    #: Stream sequence of the latest ``requested``; an older delivery is dropped. 0 while scheduled.
    requested_seq: int
    #: Stream sequence of the last event: the fence of the next append.
    last_seq: int
    #: When the last event was stored or decided.
    since: datetime
    #: Errors, crashes and redrives; errors and crashes start again at a redrive.
    errors: int = 0
    crashes: int = 0
    redrives: int = 0
    #: The claim, while running; empty otherwise.
    claim: ev.Claimed | None = None
    #: Over all attempts and generations.
    usage: ev.Usage = ev.Usage()
    error: ev.Error | None = None
    retry_at: datetime | None = None


def evolve(  # noqa: PLR0912 (one arm for each event)
    state: Invocation | None, event: ev.InvocationEvent, seq: int, time: datetime
) -> Invocation:
    """The state after one more event of the log, stored at `seq` and `time`.

    An event that cannot follow is folded all the same: the log is the truth, also where it surprises.
    """
    if state is None:
        match event:
            case ev.Requested():
                return Invocation(status=Status.QUEUED, request=event, requested_seq=seq, last_seq=seq, since=time)
            case ev.Scheduled():
                return Invocation(
                    status=Status.SCHEDULED, request=event.request, requested_seq=0, last_seq=seq, since=time
                )
            case _:
                # The beginning was trimmed away, or somebody wrote by hand: an invocation without its request.
                state = Invocation(
                    status=Status.QUEUED, request=ev.Requested(), requested_seq=0, last_seq=seq, since=time
                )
    change: dict[str, Any] = {"last_seq": seq, "since": time}
    match event:
        case ev.Requested():
            change |= {"status": Status.QUEUED, "request": event, "requested_seq": seq, "claim": None, "retry_at": None}
        case ev.Scheduled():
            change |= {"status": Status.SCHEDULED, "request": event.request}
        case ev.Claimed():
            change |= {"status": Status.RUNNING, "claim": event, "retry_at": None}
        case ev.Completed():
            change |= {"status": Status.COMPLETED, "claim": None, "usage": state.usage + event.usage}
        case ev.Failed():
            change |= {
                "status": Status.WAITING,
                "claim": None,
                "errors": state.errors + 1,
                "error": event.error,
                "retry_at": event.retry_at,
                "usage": state.usage + event.usage,
            }
        case ev.Swept():
            change |= {"status": Status.QUEUED, "claim": None, "crashes": state.crashes + 1}
        case ev.Released():
            change |= {"status": Status.QUEUED, "claim": None, "retry_at": None}
        case ev.Cancelled():
            change |= {"status": Status.CANCELLED, "claim": None, "retry_at": None}
        case ev.DeadLettered():
            change |= {"status": Status.DEAD_LETTERED, "claim": None, "retry_at": None}
        case ev.Redriven():
            change |= {"status": Status.QUEUED, "errors": 0, "crashes": 0, "redrives": state.redrives + 1}
        case ev.Discarded():
            change |= {"status": Status.DISCARDED}
        case _:
            assert_never(event)
    return msgspec.structs.replace(state, **change)

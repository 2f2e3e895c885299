"""Whole copies of dead letters: made from the log by one writer, however the invocation died.

``dead_lettered`` in the log is the fact; the copy in DEAD_LETTERS is for people, who want request, attempts, errors and
cost in one message. It is made again after any crash, and not made for what has been redriven or discarded meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import structlog

from bus import wire
from bus.events import deadletter
from bus.events import invocation as ev
from bus.invocation import Status
from bus.store import DEAD_LETTERS, Recorded, fold
from bus.subjects import Ref, parse_event
from services.daemon import Bus

log = structlog.get_logger()

#: Attempts that keep their tracebacks: with 4,000 characters each they stay far below the server's message limit.
_DETAILED = 20


def attempts(records: Sequence[Recorded]) -> tuple[deadletter.AttemptRecord, ...]:
    """Every try in a history, from its claim to its end. Pure."""
    found: list[deadletter.AttemptRecord] = []
    claim: tuple[ev.Claimed, Recorded] | None = None
    for record in records:
        match record.data:
            case ev.Claimed() as claimed:
                claim = (claimed, record)
            case ev.Failed() | ev.Swept() | ev.Released() as end if claim is not None:
                claimed, began = claim
                claim = None
                found.append(
                    deadletter.AttemptRecord(
                        number=len(found) + 1,
                        claimed_at=began.stored_at,
                        outcome=ev.NAMES[type(end)],
                        ended_at=record.stored_at,
                        runner=claimed.runner,
                        holder=claimed.holder,
                        delivery=claimed.delivery,
                        error=end.error if isinstance(end, ev.Failed) else None,
                        usage=end.usage if isinstance(end, ev.Failed) else ev.Usage(),
                        reason="" if isinstance(end, ev.Failed) else str(end.reason),
                    )
                )
    brief = max(0, len(found) - _DETAILED)
    return tuple(_without_detail(item) for item in found[:brief]) + tuple(found[brief:])


def _without_detail(item: deadletter.AttemptRecord) -> deadletter.AttemptRecord:
    if item.error is None:
        return item
    return msgspec.structs.replace(item, error=msgspec.structs.replace(item.error, detail=""))


def copy_of(ref: Ref, records: Sequence[Recorded]) -> deadletter.Kept | None:
    """The dead letter of a history; None when the invocation is not dead (any more). Pure."""
    state = fold(records)
    if state is None or state.status is not Status.DEAD_LETTERED:
        return None
    died = next(r for r in reversed(records) if isinstance(r.data, ev.DeadLettered))
    requested = next((r for r in records if isinstance(r.data, ev.Requested)), records[0])
    return deadletter.Kept(
        project=ref.project,
        role=ref.role,
        invocation=ref.id,
        reason=died.data.reason,
        request=state.request,
        requested_at=requested.stored_at,
        died_at=died.stored_at,
        died_seq=died.seq,
        attempts=attempts(records),
        error=died.data.error or state.error,
        usage=state.usage,
        redrives=state.redrives,
    )


class Graves:
    """Writes the copies."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def bury(self, delivery: wire.Delivery) -> None:
        """Handle one ``dead_lettered`` event."""
        ref, _ = parse_event(delivery.subject)
        records = await self._bus.store.history(ref)
        kept = copy_of(ref, records)
        if kept is None or kept.died_seq != delivery.seq:
            return
        present = await self._bus.store.last(DEAD_LETTERS, ref.dead_letter)
        if present is not None and present.data is not None and present.data.died_seq >= kept.died_seq:
            return
        cause = next((r.event.id for r in records if r.seq == kept.died_seq and r.event is not None), "")
        event = self._bus.author.stamp(ref.dead_letter, kept, root=kept.request.root or ref.id, cause=cause)
        await self._bus.store.append(event)
        log.warning("dead_letter_kept", invocation=ref.id, role=f"{ref.project}/{ref.role}", reason=str(kept.reason))

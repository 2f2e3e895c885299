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

#: Bytes of a copy's data that fit into a message with room for its envelope; the server takes 1 MB.
_FITS = 900_000
#: How a copy is thinned until it fits: attempts that keep their tracebacks, those that keep their whole message, and those
#: that are kept at all.
_SIZES = ((20, 1_000_000, 1_000_000), (20, 50, 1_000_000), (5, 20, 200), (1, 5, 20))
_FEW_WORDS = 200


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
    return tuple(found)


def _without_detail(item: deadletter.AttemptRecord, *, words: int | None = None) -> deadletter.AttemptRecord:
    if item.error is None:
        return item
    error = msgspec.structs.replace(item.error, detail="", message=item.error.message[:words])
    return msgspec.structs.replace(item, error=error)


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


def fitting(kept: deadletter.Kept) -> deadletter.Kept:
    """The copy with as much of its attempts as one message holds: the last ones stay whole the longest. Pure.

    The log has all of them.
    """
    for detailed, worded, count in _SIZES:
        attempts = kept.attempts[-count:]
        brief, bare = max(0, len(attempts) - detailed), max(0, len(attempts) - worded)
        attempts = (
            *(_without_detail(item, words=_FEW_WORDS) for item in attempts[:bare]),
            *(_without_detail(item) for item in attempts[bare:brief]),
            *attempts[max(bare, brief) :],
        )
        thinner = msgspec.structs.replace(kept, attempts=attempts)
        if len(msgspec.json.encode(thinner)) <= _FITS:
            break
    return thinner


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
        event = self._bus.author.stamp(ref.dead_letter, fitting(kept), root=kept.request.root or ref.id, cause=cause)
        seq = await self._bus.store.append(event)
        state = await self._bus.store.state(ref)
        if state is None or state.status is not Status.DEAD_LETTERED:
            # A person was quicker, and found no copy to remove.
            await self._bus.connection.api(f"STREAM.MSG.DELETE.{DEAD_LETTERS}", {"seq": seq, "no_erase": True})
            return
        log.warning("dead_letter_kept", invocation=ref.id, role=f"{ref.project}/{ref.role}", reason=str(kept.reason))

"""Cards: what waits for a person. Which process, on which host, since when, why, and the exact command to paste.

A seat has one card at a time, fenced over its own events. It closes itself: whoever takes the seat under another boot id says
so as it announces itself, and a daemon that is heard again by itself is taken back by the one who missed it. Nobody has to
remember to close a card, and none closes because somebody looked at it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from datetime import datetime

import msgspec
import structlog

from bus import errors
from bus.author import Author
from bus.connection import Connection
from bus.events import card as ev
from bus.events.card import End, Reason
from bus.events.moment import Moment
from bus.store import CONTROL, Recorded, Store

log = structlog.get_logger()

_ALL = "ctl.card.>"
#: The daemon works, or part of it may: a concern, and no ultra.
_CAN_WAIT = frozenset({Reason.INSIDE, Reason.DEAF})


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """One card, as far as its events tell."""

    #: Token of the seat: ``agent_runner-1_myhost``.
    seat: str
    instance: str
    host: str
    reason: Reason
    why: str
    command: str
    since: Moment
    #: Sequence of its opening in CONTROL.
    seq: int
    pid: int = 0
    boot_id: str = ""
    by: str = ""
    operation: str = ""
    closed_at: Moment | None = None
    #: Why, and by which boot id, it was closed; empty while it waits.
    end: str = ""
    closed_by: str = ""

    @property
    def sentence(self) -> str:
        """Who waits and why, for people: ``agent_runner-1 on myhost (pid 42): only a person restarts it``."""
        process = f" (pid {self.pid})" if self.pid else ""
        return f"{self.instance} on {self.host}{process}: {self.why}"


def is_urgent(card: Card) -> bool:
    """Whether something stands still until a person comes."""
    return card.reason not in _CAN_WAIT


def evolve(state: Card | None, seat: str, event: ev.CardEvent, seq: int, at: datetime) -> Card | None:
    """The seat's card after one more event; the end of a card that nobody opened is none."""
    match event:
        case ev.Opened():
            said = {name: getattr(event, name) for name in event.__struct_fields__}
            return Card(seat=seat, seq=seq, **said)
        case ev.Closed():
            if state is None:
                return None
            return msgspec.structs.replace(state, closed_at=at, end=event.reason.value, closed_by=event.boot_id)


def fold(records: Iterable[Recorded]) -> tuple[Card, ...]:
    """Every card that there was, in the order of their opening: of each seat the last one that was opened, and those before it."""
    found: list[Card] = []
    standing: dict[str, int] = {}
    for record in records:
        if record.data is None:
            continue
        seat = record.subject.split(".")[2]
        place = standing.get(seat)
        state = evolve(found[place] if place is not None else None, seat, record.data, record.seq, record.stored_at)
        if state is None:
            continue
        if isinstance(record.data, ev.Closed) and place is not None:
            found[place] = state
            del standing[seat]
        elif place is not None:
            found[place] = state  # said anew: the last word stands
        else:
            standing[seat] = len(found)
            found.append(state)
    return tuple(found)


class Cards:
    """The cards of a fleet."""

    def __init__(self, connection: Connection, store: Store, author: Author) -> None:
        self._connection = connection
        self._store = store
        self._author = author

    async def waiting(self) -> tuple[Card, ...]:
        """Those that wait, the oldest first."""
        info = await self._connection.api(f"STREAM.INFO.{CONTROL}", {"subjects_filter": _ALL})
        seats = {subject.split(".")[2] for subject in info["state"].get("subjects") or {}}
        lasts = await asyncio.gather(*(self._last(seat) for seat in sorted(seats)))
        cards = [card for card in map(_standing, lasts) if card is not None]
        return tuple(sorted(cards, key=lambda card: card.seq))

    async def all(self) -> tuple[Card, ...]:
        """Every card that there was, the oldest first."""
        async with aclosing(self._records()) as records:
            return fold([record async for record in records])

    async def hand(self, seat: str, card: ev.Opened) -> bool:
        """Hand a card to a person, unless the same one waits: whether it was."""
        last = await self._last(seat)
        standing = _standing(last)
        if standing is not None and (standing.reason, standing.boot_id) == (card.reason, card.boot_id):
            return False
        if not await self._append(seat, card, last):
            return False
        log.error("person_needed", instance=card.instance, reason=card.reason.value, why=card.why, command=card.command)
        return True

    async def close(self, seat: str, end: End, boot_id: str, *, only: Reason | None = None) -> bool:
        """Close the seat's card, if one waits: whether there was one.

        Args:
            seat: whose.
            end: why.
            boot_id: who sits there now; a card about this very boot id is closed by :attr:`End.HEARD` alone.
            only: leave cards of other reasons alone.
        """
        last = await self._last(seat)
        card = _standing(last)
        if card is None or (only is not None and card.reason is not only):
            return False
        if end is End.BACK and card.boot_id == boot_id:
            return False
        waited = max(0.0, (self._author.now() - card.since).total_seconds())
        closed = ev.Closed(reason=end, boot_id=boot_id, waited_s=round(waited, 3))
        if not await self._append(seat, closed, last):
            return False
        log.info("card_closed", instance=card.instance, reason=end.value, waited_s=closed.waited_s)
        return True

    async def _last(self, seat: str) -> Recorded | None:
        return await self._store.last(CONTROL, f"ctl.card.{seat}.*")

    async def _append(self, seat: str, event: ev.CardEvent, last: Recorded | None) -> bool:
        expect = last.seq if last is not None else 0
        try:
            await self._store.append(self._author.control(seat, event), expect=expect, scope=f"ctl.card.{seat}.>")
        except errors.SequenceConflict:
            log.info("card_overtaken", seat=seat, what=type(event).__name__)
            return False
        return True

    async def _records(self) -> AsyncGenerator[Recorded, None]:
        async for record in self._store.read(CONTROL, _ALL):
            yield record


def _standing(last: Recorded | None) -> Card | None:
    """The card that waits, by the last event of a seat."""
    if last is None or not isinstance(last.data, ev.Opened):
        return None
    return evolve(None, last.subject.split(".")[2], last.data, last.seq, last.stored_at)

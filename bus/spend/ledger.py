"""Reserves on counters before anything is spent, and moves them when it is known what was.

Many processes reserve on the same counters at the same time. Each adds what it wants first and looks at the total that comes
back: that total holds everything that anybody was granted, because everybody adds before being granted. Who finds no room
gives back. So the granted amounts never pass a cap together, whoever is quicker; the price is that two who ask at once may
both be told to wait, although one of them would have fitted.

Under a cap with much room a process counts somewhat more than its claims need at the moment, so that the next ones are
granted without waiting for an answer (:mod:`bus.spend.advances`).

One message for each counter carries all that a process has to add to it: what its claims want, what was given back, what was
settled. One round of messages is under way at a time; the next one collects meanwhile. A message's id is made before its
first try, and it is repeated until it is answered, because what is not answered may have been counted. Nothing is granted
without an answer.

The counter follows the log: what a claim reserves is added before the claim is written, what it did not use is taken off
after its end was written. So at every instant the counter is at least what the log holds and has settled; who dies in
between leaves it too high, and the reconciliation of the warden brings it down.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import msgspec
import structlog

from bus import errors
from bus.counters import Counters
from bus.events.invocation import Hold, Settlement
from bus.spend.advances import Advances
from bus.spend.fits import Asked, fits
from bus.spend.keys import BASE, Limit, amount, is_key

log = structlog.get_logger()

#: Seconds that what is given back waits for company.
FLUSH_S = 0.02
#: Seconds until a message that the server refused is sent again.
AGAIN_S = 0.5
#: Counters that are remembered to be seeded.
_REMEMBERED = 10_000


class Want(msgspec.Struct, frozen=True, kw_only=True):
    """A claim's reservation: the most that it may use, and the caps over it."""

    #: Id of the hold that a grant gives.
    id: str
    tokens: int = 0
    #: Millionths of a US dollar.
    usd_micros: int = 0
    limits: tuple[Limit, ...] = ()


class Grant(msgspec.Struct, frozen=True):
    """It is reserved. Whoever has the hold settles it or gives it back."""

    hold: Hold


class Short(msgspec.Struct, frozen=True):
    """There is no room for it now; what others hold may come back."""

    key: str
    #: What is left on the counter.
    room: int
    needed: int


class Unseeded(msgspec.Struct, frozen=True):
    """The counter is missing, or was deleted: nobody knows what is spent until the warden has counted the log."""

    key: str


Answer = Grant | Short | Unseeded


def _hold(want: Want) -> Hold:
    keys = tuple([limit.key for limit in want.limits])
    if len(set(keys)) < len(keys):
        keys = tuple(dict.fromkeys(keys))
    return Hold(id=want.id, tokens=want.tokens, usd_micros=want.usd_micros, keys=keys)


class _Waiting(msgspec.Struct):
    want: Want
    answer: asyncio.Future[Answer]


class Ledger:
    """One process' reservations."""

    def __init__(
        self,
        counters: Counters,
        new_id: Callable[[], str],
        *,
        flush_s: float = FLUSH_S,
        again_s: float = AGAIN_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._counters = counters
        self._monotonic = monotonic
        self._advances = Advances(flush_s)
        self._new_id = new_id
        self._flush_s, self._again_s = flush_s, again_s
        self._wants: list[_Waiting] = []
        #: What is to be added to counters at the next chance: below 0 for what comes back.
        self._owed: dict[str, int] = {}
        self._urgent = asyncio.Event()
        self._rounds: asyncio.Task[None] | None = None
        self._seeded: set[str] = set()
        self._closing = False
        self._room = False
        #: Called when something of ours came back: whoever waits for room may ask again.
        self.on_room: Callable[[], None] | None = None

    def at_once(self, want: Want) -> Hold | None:
        """Reserve on what was counted in advance; None: :meth:`reserve` has to ask."""
        # Whoever waits for an answer came first.
        if self._wants or not self._advances.draw(want.tokens, want.usd_micros, want.limits, self._monotonic()):
            return None
        self._start()
        return _hold(want)

    async def reserve(self, want: Want) -> Answer:
        """Reserve on every counter of a want, or on none.

        Waits as long as the server does not answer. Cancelled, it leaves nothing reserved.
        """
        waiting = _Waiting(want, asyncio.get_running_loop().create_future())
        self._wants.append(waiting)
        self._urgent.set()
        self._start()
        try:
            return await waiting.answer
        except asyncio.CancelledError:
            if waiting.answer.done() and not waiting.answer.cancelled():
                answer = waiting.answer.result()
                if isinstance(answer, Grant):
                    self.give_back(answer.hold)
            raise

    def settle(self, settlement: Settlement) -> None:
        """Follow the end of a claim, after the event that carries its settlement was written."""
        hold = settlement.hold
        self._room = True
        for key in hold.keys:
            used = amount(key, settlement.tokens, settlement.usd_micros)
            self._owe(key, used - amount(key, hold.tokens, hold.usd_micros))

    def give_back(self, hold: Hold) -> None:
        """Undo a reservation whose claim was not written."""
        self._room = True
        for key in hold.keys:
            self._owe(key, -amount(key, hold.tokens, hold.usd_micros))

    async def close(self) -> None:
        """Send what is owed. Reservations that still wait are waited for: cancel them first."""
        self._closing = True
        self._urgent.set()
        if self._rounds is not None:
            await self._rounds

    def _owe(self, key: str, change: int) -> None:
        if not change:
            return
        if not is_key(key):
            # Read from the log, where anybody may have written it.
            log.error("counter_refused", key=key, change=change, expected="<scope>.<unit>.<window>")
            return
        self._owed[key] = self._owed.get(key, 0) + change
        if change > 0:
            # More was used than was held: the counter is behind the log.
            self._urgent.set()
        self._start()

    def _start(self) -> None:
        if self._rounds is None or self._rounds.done():
            self._rounds = asyncio.create_task(self._work(), name="ledger")

    async def _work(self) -> None:
        """Rounds, until nothing is left to do."""
        while self._wants or self._owed or self._advances:
            if not self._wants and not self._closing and not self._urgent.is_set():
                await self._company()
            self._urgent.clear()
            wants, self._wants = self._wants, []
            owed, self._owed = self._owed, {}
            room, self._room = self._room, False
            try:
                await self._round(wants, owed)
            except Exception as exc:
                log.error("spend_round_failed", error=repr(exc), exc_info=exc)
                for waiting in wants:
                    if not waiting.answer.done():
                        waiting.answer.set_exception(exc)
            if room and self.on_room is not None:
                self.on_room()

    async def _company(self) -> None:
        try:
            async with asyncio.timeout(self._flush_s):
                await self._urgent.wait()
        except TimeoutError:
            return

    async def _round(self, wants: list[_Waiting], owed: dict[str, int]) -> None:
        wants = [waiting for waiting in wants if not waiting.answer.done()]
        wants = await self._seen(wants)
        asked: dict[str, int] = {}
        for waiting in wants:
            for key in {limit.key for limit in waiting.want.limits}:
                asked[key] = asked.get(key, 0) + amount(key, waiting.want.tokens, waiting.want.usd_micros)
        ahead = self._advances.changes(asked, self._monotonic(), closing=self._closing)
        self._room = self._room or any(change < 0 for change in ahead.values())
        keys = list(dict.fromkeys((*asked, *owed, *ahead)))
        changes = [asked.get(key, 0) + owed.get(key, 0) + ahead.get(key, 0) for key in keys]
        found = await asyncio.gather(*map(self._add, keys, changes))
        totals = dict(zip(keys, found, strict=True))
        self._advances.counted(ahead, {key: total - BASE for key, total in totals.items()}, self._monotonic())
        self._answer(wants, {key: total - asked.get(key, 0) for key, total in totals.items()})

    def _answer(self, wants: list[_Waiting], others: dict[str, int]) -> None:
        """Tell each want what became of it. `others`: the totals without these wants."""
        lost = {key for key, total in others.items() if total < BASE}
        self._seeded -= lost
        sound: list[_Waiting] = []
        for waiting in wants:
            gone = next((limit.key for limit in waiting.want.limits if limit.key in lost), None)
            if gone is None:
                sound.append(waiting)
                continue
            self._tell(waiting, Unseeded(gone))
            self._return(waiting.want, lost)
        used = {key: total - BASE for key, total in others.items()}
        asked = [
            Asked(tokens=w.want.tokens, usd_micros=w.want.usd_micros, limits=w.want.limits)
            if not w.answer.done()
            else Asked()
            for w in sound
        ]
        for waiting, short in zip(sound, fits(asked, used), strict=True):
            want = waiting.want
            if waiting.answer.done():
                # Whoever asked was cancelled.
                self._return(want, lost)
            elif short is None:
                self._advances.granted(want.tokens, want.usd_micros, want.limits)
                self._tell(waiting, Grant(_hold(want)))
            else:
                key, room = short
                self._tell(waiting, Short(key, room, amount(key, want.tokens, want.usd_micros)))
                self._return(want, lost)

    def _return(self, want: Want, lost: set[str]) -> None:
        """Give back what was added for a want that was not granted.

        Not on a lost counter: whoever seeds it sets it to what the log says, and what was added before would be taken off
        from that.
        """
        for key in {limit.key for limit in want.limits} - lost:
            self._owe(key, -amount(key, want.tokens, want.usd_micros))

    @staticmethod
    def _tell(waiting: _Waiting, answer: Answer) -> None:
        if not waiting.answer.done():
            waiting.answer.set_result(answer)

    async def _seen(self, wants: list[_Waiting]) -> list[_Waiting]:
        """The wants whose counters are known to be seeded; the others are answered.

        A counter is looked at before its first use, so that nothing is added to one that is not there yet.
        """
        fresh = {limit.key for waiting in wants for limit in waiting.want.limits} - self._seeded
        if not fresh:
            return wants
        keys = list(fresh)
        totals = await asyncio.gather(*(self._total(key) for key in keys))
        if len(self._seeded) > _REMEMBERED:
            self._seeded.clear()
        lost = {key for key, total in zip(keys, totals, strict=True) if total < BASE}
        self._seeded |= fresh - lost
        sound: list[_Waiting] = []
        for waiting in wants:
            gone = next((limit.key for limit in waiting.want.limits if limit.key in lost), None)
            if gone is None:
                sound.append(waiting)
            else:
                self._tell(waiting, Unseeded(gone))
        return sound

    async def _add(self, key: str, change: int) -> int:
        """Add to a counter, for as long as it takes: its total."""
        message_id = self._new_id()
        return await self._insist(key, lambda: self._counters.add(key, change, message_id=message_id))

    async def _total(self, key: str) -> int:
        return await self._insist(key, lambda: self._counters.total(key))

    async def _insist(self, key: str, ask: Callable[[], Awaitable[int]]) -> int:
        """Ask until the server answers: nothing may be granted before."""
        told = False
        while True:
            try:
                return await ask()
            except (errors.ServerError, errors.Unanswered) as exc:
                if not told:
                    log.warning(
                        "spend_uncounted", counter=key, error=str(exc), action="asking again; nothing is granted"
                    )
                    told = True
                await asyncio.sleep(self._again_s)

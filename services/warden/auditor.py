"""Keeps the spend counters in step with the log: seeds those that are not there, and corrects those that differ.

The counters are what claims are reserved on, the log is what is true. Each correction of a counter that was there is an
event: a total that changes by itself is something that a person must be able to look up. What a correction may be is
decided in :mod:`services.quota.drift`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import msgspec
import structlog

from bus import errors, wire
from bus.events import quota as ev
from bus.spend import BASE
from bus.topology import SPEND
from services.daemon import Bus
from services.quota.drift import RAISE_LOOKS, Drift, Look
from services.warden.account import Account

log = structlog.get_logger()

#: Seconds that a counter must rest, around a look at the log, to be believed.
REST_S = 0.15


class Seen(msgspec.Struct, frozen=True):
    """A counter as it lies in the server."""

    #: Stream sequence of its last change; 0 for none.
    seq: int
    total: int | None


class Auditor:
    """Looks, seeds, corrects."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._drifts: dict[str, Drift] = {}
        #: Counters that were seen to be in step, or brought there.
        self.verified: set[str] = set()

    async def audit(self, account: Account, keys: Iterable[str], *, rest_s: float = REST_S) -> None:
        """Look at counters once and correct what may be corrected.

        Raises:
            ServerError, Unanswered: the server does not answer.
        """
        keys = list(keys)
        before = await asyncio.gather(*(self.look(key) for key in keys))
        await account.up_to_now()
        spend, seq = account.spend, account.spend.position
        logged = [spend.get(key).total for key in keys]
        # What nobody has counted on yet is nobody's to disturb: it need not be waited for.
        known = [key for key, seen, total in zip(keys, before, logged, strict=True) if seen.total is not None or total]
        if known:
            await asyncio.sleep(rest_s)
        after = dict(zip(known, await asyncio.gather(*(self.look(key) for key in known)), strict=True))
        for key, seen, total in zip(keys, before, logged, strict=True):
            now = after.get(key, seen)
            # Two totals around the log: what lies between them is on its way, and the higher one counts for the doubt.
            counter = max((t for t in (seen.total, now.total) if t is not None), default=None)
            look = Look(at=asyncio.get_running_loop().time(), counter=counter, log=total, quiet=seen.seq == now.seq)
            await self._follow(key, look, seq)

    async def seed(self, account: Account, keys: Iterable[str]) -> list[str]:
        """Bring counters to where claims may be reserved on them: those that are still missing.

        Raises:
            ServerError, Unanswered: the server does not answer.
        """
        left = list(keys)
        for _ in range(RAISE_LOOKS):
            await self.audit(account, left)
            left = [key for key in left if key not in self.verified]
            if not left:
                break
        return left

    async def look(self, key: str) -> Seen:
        """A counter's present total."""
        try:
            answer = await self._bus.connection.api(f"STREAM.MSG.GET.{SPEND}", {"last_by_subj": f"spend.{key}"})
        except errors.ServerError as exc:
            if exc.code != wire.Code.MESSAGE_NOT_FOUND:
                raise
            return Seen(0, None)
        message = msgspec.convert(answer["message"], _Message)
        try:
            return Seen(message.seq, int(msgspec.json.decode(message.data, type=_Value).val))
        except (msgspec.DecodeError, ValueError):
            # Put there by hand: no counter, and so no total.
            return Seen(message.seq, None)

    async def _follow(self, key: str, look: Look, seq: int) -> None:
        correction = self._drifts.setdefault(key, Drift()).correction(look)
        if not correction:
            if look.missing:
                self.verified.discard(key)
            else:
                self.verified.add(key)
            return
        await self._add(key, correction)
        self.verified.add(key)
        fresh = look.counter is None and not look.log
        (log.info if fresh else log.warning)("counter_set", key=key, was=look.counter, log=look.log, by=correction)
        if fresh:
            return
        why = (
            "it was missing, or deleted"
            if look.missing
            else "it was seeded twice"
            if look.absurd
            else "it was below the log"
            if correction > 0
            else "it was above the log for a minute"
        )
        counter = None if look.missing else (look.counter or 0) - BASE
        event = ev.Repaired(key=key, counter=counter, log=look.log, seq=seq, why=why)
        await self._bus.store.append(self._bus.author.control(key.partition(".")[0], event))

    async def _add(self, key: str, amount: int) -> None:
        headers = {wire.INCREMENT: f"{amount:+d}", wire.MSG_ID: self._bus.author.new_id()}
        while True:
            try:
                await self._bus.publisher.publish(f"spend.{key}", b"", headers)
            except errors.Unanswered:
                # The same id: what was counted is not counted again.
                await self._bus.connection.ready()
            else:
                return

    async def forget(self, keys: Iterable[str]) -> None:
        """Delete counters of windows that are over."""
        for key in keys:
            await self._bus.connection.api(f"STREAM.PURGE.{SPEND}", {"filter": f"spend.{key}"})
            self._drifts.pop(key, None)
            self.verified.discard(key)


class _Message(msgspec.Struct):
    seq: int
    data: bytes = b""


class _Value(msgspec.Struct):
    val: str

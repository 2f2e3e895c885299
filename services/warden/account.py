"""The warden's account of what was spent: the fold of the log that the quota breaker decides by, kept up to date.

It reads the log by itself and keeps its own checkpoint, because it is only there when something is capped. A restart reads
what came since the checkpoint, at most :data:`SAVE_EVERY_S` of the log; without one, and after the calendar's time zone was
changed, it reads the log from its beginning, at some 50,000 events a second, and what was trimmed of it from the archive.
Until that is over nothing can be verified.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import structlog

from bus.connection import Connection
from bus.follower import Follower
from bus.store import INVOCATIONS, read
from services.quota.spend import Claim, Price, Spend, Total, Windows
from services.warden import checkpoint
from services.warden.past import Past
from services.warden.reading import LogTrimmed, last, unbroken

log = structlog.get_logger()

#: Seconds between two checkpoints.
SAVE_EVERY_S = 10.0
#: Seconds between two looks whether the fold has come far enough.
_LOOK_S = 0.005
#: Version of the checkpoint's shape; another one is passed over.
_SHAPE = 1


class _Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    shape: int
    created: str
    #: Time zone of the windows.
    zone: str
    position: int
    totals: dict[str, Total]
    trees: dict[str, Total]
    claims: dict[str, Claim]
    minutes: dict[str, dict[int, int]]


#: The archived records of the windows that count at present: of the stream created then, before a sequence.
Earlier = Callable[[str, int], Awaitable[Past]]


class Account:
    """Follows the log."""

    def __init__(
        self, connection: Connection, file: Path, windows: Windows, price: Price, zone: str, earlier: Earlier
    ) -> None:
        self._connection = connection
        self._earlier = earlier
        #: Why spend before the log's first message does not count, although its windows do; empty for nothing.
        self.gap = ""
        self._file = file
        self._windows, self._price, self.zone = windows, price, zone
        self.spend = Spend(windows, price)
        self._follower = Follower(connection, INVOCATIONS, ["inv.>"])
        self._created = ""
        #: Set once everything was folded that was there at the start.
        self.read = asyncio.Event()
        #: Set at each change; whoever looks clears it.
        self.news = asyncio.Event()

    @property
    def lag(self) -> int:
        """Messages that are not folded yet; at least 1 before the first look is over."""
        return self._follower.pending if self.read.is_set() else max(1, self._follower.pending)

    async def run(self) -> None:
        """For ever."""
        while True:
            try:
                await self._fold()
            except LogTrimmed as exc:
                log.warning("spend_folded_anew", error=str(exc))
                self.read.clear()

    async def _fold(self) -> None:
        loop = asyncio.get_running_loop()
        info = await self._connection.api(f"STREAM.INFO.{INVOCATIONS}")
        self._created, state = info["created"], info["state"]
        target = await last(self._connection)
        self.spend = self._load(state["first_seq"], state["last_seq"])
        if not self.spend.position:
            await self._recall(state["first_seq"])
        start = max(self.spend.position, state["first_seq"] - 1)
        self._follower = Follower(self._connection, INVOCATIONS, ["inv.>"], start=start + 1, on_begin=self._look_behind)
        self.spend.position = start
        self._see(target)
        saved_at = loop.time()
        async for batch in self._follower.batches():
            for delivery in batch:
                if delivery.subject.endswith(".requested"):
                    # Half of the log, and no spend in it.
                    self.spend.position = delivery.seq
                    continue
                stored_at = datetime.fromtimestamp(delivery.stored_ns / 1e9, UTC)
                self.spend.take(read(delivery.seq, delivery.subject, stored_at, delivery.data))
            if not self.read.is_set() and self.spend.position >= target:
                # Trimmed while it was read: what was skipped would never be seen to end.
                await unbroken(self._connection, start)
            self._see(target)
            if loop.time() - saved_at > SAVE_EVERY_S:
                self.save()
                saved_at = loop.time()
            # A long replay must not starve the heartbeat.
            await asyncio.sleep(0)

    def _see(self, target: int) -> None:
        if self.spend.position >= target and not self.read.is_set():
            log.info("spend_folded", sequence=self.spend.position, claims=len(self.spend.claims))
            self.read.set()
        if self.read.is_set():
            self.news.set()

    async def up_to_now(self) -> None:
        """Wait until everything is folded that is in the log now.

        Raises:
            ServerError, Unanswered: the server does not say how long the log is.
        """
        await self.read.wait()
        # Not the stream's last sequence: its message may have been deleted, and would never come.
        target = await last(self._connection)
        while self.spend.position < target:
            await asyncio.sleep(_LOOK_S)

    async def _look_behind(self) -> None:
        await unbroken(self._connection, self._follower.position)

    async def _recall(self, first: int) -> None:
        """Without a checkpoint, and with the beginning of the log in the archive: fold what the archive has of windows that count."""
        self.gap = ""
        if first <= 1:
            return
        past = await self._earlier(self._created, first)
        async for record in past.records():
            self.spend.take(record)
        self.gap = past.problem
        if self.gap:
            log.warning("spend_before_the_log_unknown", why=self.gap)

    def _load(self, first_seq: int, last_seq: int) -> Spend:
        spend = Spend(self._windows, self._price)
        kept = checkpoint.load(
            self._file, _Checkpoint, shape=_SHAPE, created=self._created, first=first_seq, last=last_seq
        )
        if kept is None:
            return spend
        if kept.zone != self.zone:
            log.warning("checkpoint_of_another_zone", file=str(self._file), expected=self.zone, got=kept.zone)
            return spend
        spend.position = kept.position
        spend.totals, spend.trees, spend.claims, spend.minutes = kept.totals, kept.trees, kept.claims, kept.minutes
        return spend

    def save(self) -> None:
        """Write the checkpoint."""
        spend = self.spend
        kept = _Checkpoint(
            shape=_SHAPE,
            created=self._created,
            zone=self.zone,
            position=spend.position,
            totals=spend.totals,
            trees=spend.trees,
            claims=spend.claims,
            minutes=spend.minutes,
        )
        checkpoint.save(self._file, kept)

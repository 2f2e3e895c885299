"""The warden's account of what was spent: the fold of the log that the quota breaker decides by, kept up to date.

It reads the log by itself and keeps its own checkpoint, because it is only there when something is capped. A restart reads
what came since the checkpoint, at most :data:`SAVE_EVERY_S` of the log; without one, and after the calendar's time zone was
changed, it reads the log from its beginning, at some 50,000 events a second. Until that is over nothing can be verified.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import structlog

from bus import errors, wire
from bus.connection import Connection
from bus.follower import Follower
from bus.store import INVOCATIONS, read
from services.quota.spend import Claim, Price, Spend, Total, Windows

log = structlog.get_logger()

#: Seconds between two checkpoints.
SAVE_EVERY_S = 10.0
#: Seconds between two looks whether the fold has come far enough.
_LOOK_S = 0.005
#: Version of the checkpoint's shape; another one is passed over.
_SHAPE = 1


class _Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    shape: int
    #: When the stream was created: a stream that was made anew is another log.
    created: str
    #: Time zone of the windows.
    zone: str
    position: int
    totals: dict[str, Total]
    trees: dict[str, Total]
    claims: dict[str, Claim]
    minutes: dict[str, dict[int, int]]


class Account:
    """Follows the log."""

    def __init__(self, connection: Connection, file: Path, windows: Windows, price: Price, zone: str) -> None:
        self._connection = connection
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
        loop = asyncio.get_running_loop()
        info = await self._connection.api(f"STREAM.INFO.{INVOCATIONS}")
        self._created, target = info["created"], info["state"]["last_seq"]
        self.spend = self._load(target)
        self._follower = Follower(self._connection, INVOCATIONS, ["inv.>"], start=self.spend.position + 1)
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
        try:
            # Not the stream's last sequence: its message may have been deleted, and would never come.
            answer = await self._connection.api(f"STREAM.MSG.GET.{INVOCATIONS}", {"last_by_subj": "inv.>"})
        except errors.ServerError as exc:
            if exc.code != wire.Code.MESSAGE_NOT_FOUND:
                raise
            return
        while self.spend.position < answer["message"]["seq"]:
            await asyncio.sleep(_LOOK_S)

    def _load(self, last_seq: int) -> Spend:
        spend = Spend(self._windows, self._price)
        try:
            kept = msgspec.msgpack.decode(self._file.read_bytes(), type=_Checkpoint)
        except FileNotFoundError:
            return spend
        except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            log.warning("spend_checkpoint_unreadable", file=str(self._file), error=str(exc))
            return spend
        if (kept.shape, kept.created, kept.zone) != (_SHAPE, self._created, self.zone) or kept.position > last_seq:
            log.warning("spend_checkpoint_of_another_log", file=str(self._file))
            return spend
        spend.position = kept.position
        spend.totals, spend.trees, spend.claims, spend.minutes = kept.totals, kept.trees, kept.claims, kept.minutes
        return spend

    def save(self) -> None:
        """Write the checkpoint, in one piece."""
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
        part = self._file.with_suffix(".part")
        try:
            part.write_bytes(msgspec.msgpack.encode(kept))
            part.replace(self._file)
        except OSError as exc:
            log.warning("spend_checkpoint_unsaved", file=str(self._file), error=str(exc))

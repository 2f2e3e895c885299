"""What a stream says, followed from its beginning: tests wait for events here and never for time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any, TypeVar

from bus.connection import Connection
from bus.follower import Follower
from bus.store import INVOCATIONS, Recorded, read

T = TypeVar("T")

#: Seconds after which a test that waits for an event fails.
LIMIT_S = 30.0
#: Names of the events that end an invocation.
TERMINAL = frozenset({"completed", "cancelled", "dead_lettered", "discarded"})


class Story:
    """Every record of a stream that was seen so far, in order."""

    def __init__(self, connection: Connection, stream: str = INVOCATIONS) -> None:
        self._follower = Follower(connection, stream, [">"])
        self.records: list[Recorded] = []
        #: Event names by invocation id, in order.
        self.events: dict[str, list[str]] = {}
        self._news = asyncio.Condition()

    @asynccontextmanager
    async def followed(self) -> AsyncIterator[Story]:
        """Follow for as long as the block lasts."""
        task = asyncio.create_task(self._follow())
        try:
            yield self
        finally:
            task.cancel()
            # A story that broke off fails its test.
            with suppress(asyncio.CancelledError):
                await task

    async def _follow(self) -> None:
        async for batch in self._follower.batches():
            for item in batch:
                stored_at = datetime.fromtimestamp(item.stored_ns / 1e9, UTC)
                self.records.append(read(item.seq, item.subject, stored_at, item.data))
                tokens = item.subject.split(".")
                if len(tokens) == 5 and tokens[0] == "inv":
                    self.events.setdefault(tokens[3], []).append(tokens[4])
            async with self._news:
                self._news.notify_all()

    async def until(self, found: Callable[[], T | None], *, limit_s: float = LIMIT_S) -> T:
        """The first true thing that `found` returns; it is asked after each piece of news."""
        async with asyncio.timeout(limit_s), self._news:
            while not (it := found()):
                await self._news.wait()
            return it

    async def event(self, id_: str, name: str, *, count: int = 1, limit_s: float = LIMIT_S) -> Recorded:
        """The `count`-th event of this name of an invocation, waited for."""

        def found() -> Recorded | None:
            if self.events.get(id_, []).count(name) < count:
                return None
            return self.of(id_, name)[count - 1]

        return await self.until(found, limit_s=limit_s)

    async def ended(self, id_: str, *, limit_s: float = LIMIT_S) -> str:
        """Name of the event that ended an invocation."""
        return await self.until(
            lambda: next((name for name in self.events.get(id_, []) if name in TERMINAL), None), limit_s=limit_s
        )

    def of(self, id_: str, name: str = "") -> list[Recorded]:
        """An invocation's records, all or those of one event name."""
        return [
            record
            for record in self.records
            if (tokens := record.subject.split("."))[3:4] == [id_] and (not name or tokens[-1] == name)
        ]

    async def subject(self, matches: Callable[[Recorded], Any], *, limit_s: float = LIMIT_S) -> Recorded:
        """The first record that matches."""
        return await self.until(lambda: next((r for r in self.records if matches(r)), None), limit_s=limit_s)

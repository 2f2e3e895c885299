"""What a drill sees: every event of its project and every guard's act, from the drill's beginning, with the time of seeing it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from bus.connection import Connection
from bus.follower import Follower
from bus.store import CONTROL, INVOCATIONS, Recorded, read


class Witness:
    """Follows one stream from its present end."""

    def __init__(self, connection: Connection, stream: str, filters: tuple[str, ...]) -> None:
        self._connection = connection
        self._stream = stream
        self._filters = filters
        self.records: list[Recorded] = []
        self._news = asyncio.Condition()

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[Witness]:
        """See everything that is stored from here to the end of the block."""
        info = await self._connection.api(f"STREAM.INFO.{self._stream}")
        follower = Follower(self._connection, self._stream, list(self._filters), start=info["state"]["last_seq"] + 1)
        task = asyncio.create_task(self._follow(follower))
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _follow(self, follower: Follower) -> None:
        async for batch in follower.batches():
            for item in batch:
                stored_at = datetime.fromtimestamp(item.stored_ns / 1e9, UTC)
                self.records.append(read(item.seq, item.subject, stored_at, item.data))
            async with self._news:
                self._news.notify_all()

    def all(self, name: str, *, id_: str = "") -> list[Recorded]:
        """Events of one name, of one thing or of all. Rubbish is none."""
        return [record for record in self.records if _is(record, name, id_)]

    async def event(
        self, name: str, *, id_: str = "", count: int = 1, matches: Callable[[Recorded], bool] = lambda _: True
    ) -> Recorded:
        """The `count`-th event of this name of the thing `id_`, waited for; the caller says how long."""
        async with self._news:
            while True:
                found = [record for record in self.all(name, id_=id_) if matches(record)]
                if len(found) >= count:
                    return found[count - 1]
                await self._news.wait()

    async def event_of(self, names: Collection[str], id_: str) -> Recorded:
        """The first event of one of these names of the thing `id_`, waited for; the caller says how long."""
        async with self._news:
            while True:
                for name in names:
                    for record in self.all(name, id_=id_):
                        return record
                await self._news.wait()

    async def until(self, over: Callable[[], bool]) -> None:
        """Wait until something holds of what was seen."""
        async with self._news:
            while not over():
                await self._news.wait()


def _is(record: Recorded, name: str, id_: str) -> bool:
    tokens = record.subject.split(".")
    return record.data is not None and tokens[-1] == name and (not id_ or id_ in tokens)


def of_project(connection: Connection, project: str) -> Witness:
    """Sees the invocations of a project."""
    return Witness(connection, INVOCATIONS, (f"inv.{project}.>",))


def of_guards(connection: Connection) -> Witness:
    """Sees what guards do, and what became of the registry."""
    return Witness(connection, CONTROL, ("ctl.freeze.>", "ctl.quota.>", "ctl.loop.>", "ctl.guard.>", "ctl.registry.>"))

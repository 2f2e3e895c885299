"""A webhook on 127.0.0.1 that people are called by: a real HTTP server, which can also refuse."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from aiohttp import web

from tests.chaos.story import LIMIT_S

T = TypeVar("T")


class Webhook:
    """What was posted, in order."""

    def __init__(self) -> None:
        #: Path and body of each call that was taken.
        self.calls: list[tuple[str, Any]] = []
        #: Calls that were refused.
        self.refused = 0
        #: The status that it answers with.
        self.status = 200
        self.port = 0
        self._news = asyncio.Condition()

    def address(self, path: str) -> str:
        """As an apprise address."""
        return f"json://127.0.0.1:{self.port}/{path}"

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.json()
        async with self._news:
            if self.status == 200:
                self.calls.append((request.path.strip("/"), body))
            else:
                self.refused += 1
            self._news.notify_all()
        return web.Response(status=self.status)

    async def until(self, found: Callable[[], T | None], *, limit_s: float = LIMIT_S) -> T:
        """The first true thing that `found` returns; it is asked after each call."""
        async with asyncio.timeout(limit_s), self._news:
            while not (it := found()):
                await self._news.wait()
            return it

    @asynccontextmanager
    async def served(self) -> AsyncIterator[Webhook]:
        """Serve on a free port for as long as the block lasts."""
        app = web.Application()
        app.router.add_post("/{path:.*}", self._take)
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.port = runner.addresses[0][1]
            yield self
        finally:
            await runner.cleanup()

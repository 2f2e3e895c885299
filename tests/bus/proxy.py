"""A TCP proxy in front of a server, that loses what a test wants to be lost."""

from __future__ import annotations

import asyncio
from typing import Self


class Proxy:
    """Listens on a free port of 127.0.0.1 and passes everything on, until it is told otherwise.

    `swallow` drops the server's bytes to the client from now on; `cut` breaks all connections; :meth:`cut_before` breaks
    them just before the client's bytes that contain a text would reach the server.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._cut_at: bytes | None = None
        #: What the clients have sent, in the order of its coming.
        self.sent = bytearray()
        #: Bytes from the server are dropped while this is set.
        self.swallow = False
        #: Seconds for which what a client sends is on its way.
        self.slow_s = 0.0
        #: Set when bytes were dropped or a connection was cut.
        self.lost = asyncio.Event()
        self.port = 0

    @property
    def url(self) -> str:
        """Where the client connects to."""
        return f"nats://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await self._server.wait_closed()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Break every connection at once; what was swallowed stays lost, and the next connection is whole again."""
        self.swallow = False
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def cut_before(self, text: bytes) -> None:
        """Break the connections when the client sends `text`, and pass on only what comes before it. Once."""
        self._cut_at = text

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, far_writer}
        for pump in (self._pump(reader, far_writer, up=True), self._pump(far_reader, writer, up=False)):
            task = asyncio.create_task(pump)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool) -> None:
        try:
            while data := await reader.read(65536):
                if up:
                    await asyncio.sleep(self.slow_s)
                    self.sent += data
                if up and self._cut_at is not None and self._cut_at in data:
                    writer.write(data[: data.index(self._cut_at)])
                    await writer.drain()
                    self._cut_at = None
                    self.lost.set()
                    self.cut()
                    return
                if self.swallow and not up:
                    self.lost.set()
                    continue
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            return  # one side is gone: the other one learns it below
        finally:
            writer.close()

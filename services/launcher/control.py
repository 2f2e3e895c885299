"""The launcher's control socket: one JSON line asks, one JSON line answers.

::

    {"op":"status"}                      {"ok":true,"phase":"ready","children":[...]}
    {"op":"start","name":"warden"}       {"ok":true,...}   an empty name is everything that is down
    {"op":"stop","name":"warden"}        {"ok":true,...}   when it is down
    {"op":"restart","name":"warden"}     {"ok":true,...}
    {"op":"shutdown"}                    {"ok":true,...}   at once; the end of the process is the end of the shutdown
                                         {"ok":false,"error":"unknown child 'wardn', did you mean 'warden'?",...}

The socket is open to its user alone. A line that is no request is answered with what was expected; a connection may ask any
number of times. Not promised: an answer from a launcher that ends meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from enum import StrEnum
from pathlib import Path
from typing import Self

import msgspec

from bus import errors
from services.home import Home
from services.launcher.supervisor import ChildStatus

#: Bytes of a request; the longest one is a name.
_REQUEST_LIMIT = 4096
#: Bytes of an answer: some hundreds for each child.
_ANSWER_LIMIT = 4 * 1024 * 1024


class Status(msgspec.Struct, frozen=True, tag_field="op", tag="status"):
    """How does everything stand?"""


class Start(msgspec.Struct, frozen=True, tag_field="op", tag="start"):
    """Bring a child back; all that are down for an empty name."""

    name: str = ""


class Stop(msgspec.Struct, frozen=True, tag_field="op", tag="stop"):
    """Stop a child and keep it down."""

    name: str


class RestartChild(msgspec.Struct, frozen=True, tag_field="op", tag="restart"):
    """Stop a child and start it again."""

    name: str


class Shutdown(msgspec.Struct, frozen=True, tag_field="op", tag="shutdown"):
    """Stop the fleet."""


Request = Status | Start | Stop | RestartChild | Shutdown


class Phase(StrEnum):
    """Where the launcher stands."""

    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What the launcher says to any request."""

    ok: bool
    phase: Phase
    #: One sentence, if it is not ok.
    error: str = ""
    pid: int = 0
    children: list[ChildStatus] = []


Handler = Callable[[Request], Awaitable[Answer]]


class ControlServer:
    """Answers on a socket; use as ``async with``."""

    def __init__(self, path: Path, handle: Handler, refuse: Callable[[str], Answer]) -> None:
        """`handle` answers a request; a BusError from it and a bad request are answered by `refuse`."""
        self._path = path
        self._handle = handle
        self._refuse = refuse
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """Listen. The home's lock is ours, so a socket that lies there is a dead launcher's."""
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, self._path, limit=_REQUEST_LIMIT)
        self._path.chmod(0o600)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None  # entered
        self._server.close()
        for task in self._connections:
            task.cancel()
        if self._connections:
            await asyncio.wait(self._connections)
        await self._server.wait_closed()
        self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # a coroutine runs in one
        self._connections.add(task)
        try:
            while line := await self._line(reader):
                writer.write(msgspec.json.encode(await self._answer(line)) + b"\n")
                await writer.drain()
        except (ConnectionError, asyncio.CancelledError):
            writer.transport.abort()  # the other side is gone, or we are about to be
        finally:
            self._connections.discard(task)
            writer.close()

    async def _line(self, reader: asyncio.StreamReader) -> bytes:
        try:
            return await reader.readuntil(b"\n")
        except asyncio.IncompleteReadError as exc:
            return exc.partial
        except asyncio.LimitOverrunError:
            await reader.read(_REQUEST_LIMIT)
            return b"too long"

    async def _answer(self, line: bytes) -> Answer:
        try:
            request = msgspec.json.decode(line, type=Request)
        except msgspec.DecodeError as exc:
            return self._refuse(
                'expected one line of JSON such as {"op":"status"} with op one of status, start, stop, restart, shutdown, '
                f"got: {line[:80].decode(errors='replace').strip()!r} ({exc})"
            )
        try:
            return await self._handle(request)
        except errors.BusError as exc:
            return self._refuse(str(exc))


async def ask(home: Home, request: Request, *, timeout: float = 10.0) -> Answer:
    """Ask the launcher of a home.

    Raises:
        BusUnreachable: none runs there, or it ended before it answered.
        Unanswered: it did not answer within `timeout` seconds.
        HomeUnusable: its record cannot be read.
    """
    record = home.launcher()
    if record is None:
        raise errors.BusUnreachable(str(home.path), "no launcher runs in this state directory")
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_unix_connection(record.socket, limit=_ANSWER_LIMIT)
            try:
                writer.write(msgspec.json.encode(request) + b"\n")
                line = await reader.readline()
            finally:
                writer.close()
                with contextlib.suppress(OSError):  # it may have closed first
                    await writer.wait_closed()
    except TimeoutError as exc:
        raise errors.Unanswered(
            f"{type(request).__name__.lower()} by the launcher (pid {record.pid})", timeout
        ) from exc
    except OSError as exc:
        raise errors.BusUnreachable(record.socket, f"the launcher, pid {record.pid}, does not listen: {exc}") from exc
    if not line:
        raise errors.BusUnreachable(record.socket, f"the launcher, pid {record.pid}, ended before it answered")
    return msgspec.json.decode(line, type=Answer)

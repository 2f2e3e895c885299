"""Slack's side of Socket Mode: tickets, hello, envelopes with their acknowledgements, and the ways in which a socket ends."""

from __future__ import annotations

import asyncio
import itertools
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import WSMsgType, web

from tests.slack.workspace import APP

#: Seconds in which an app must acknowledge.
ACK_S = 3.0


@dataclass
class Ack:
    """An app's acknowledgement."""

    envelope_id: str
    payload: Any = None


class Sockets:
    """The open sockets of the app."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._count = itertools.count(1)
        self._tickets: set[str] = set()
        self._open: list[web.WebSocketResponse] = []
        #: Every acknowledgement that came, in order.
        self.acks: list[Ack] = []
        #: Connections that were made so far.
        self.made = 0
        #: No pong, no envelope, no error: the network has gone and nobody says so.
        self.silent = False

    def ticket(self) -> str:
        """A ticket for one connection."""
        made = f"ticket-{next(self._count)}"
        self._tickets.add(made)
        return made

    @property
    def connected(self) -> bool:
        """Whether the app has a socket."""
        return any(not socket.closed for socket in self._open)

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """One connection, from hello to its end."""
        if request.query.get("ticket", "") not in self._tickets:
            return web.Response(status=404)
        self._tickets.discard(request.query["ticket"])
        socket = web.WebSocketResponse(autoping=False)
        await socket.prepare(request)
        self._open.append(socket)
        self.made += 1
        hello = {
            "type": "hello",
            "connection_info": {"app_id": APP},
            "num_connections": len(self._open),
            "debug_info": {"host": "applink-1", "build_number": 1, "approximate_connection_time": 18060},
        }
        if not self.silent:
            await socket.send_json(hello)
        self._changed()
        try:
            async for message in socket:
                await self._received(socket, message)
        finally:
            self._open.remove(socket)
            self._changed()
        return socket

    async def _received(self, socket: web.WebSocketResponse, message: Any) -> None:
        if self.silent:
            return
        if message.type == WSMsgType.PING:
            await socket.pong(message.data)
        elif message.type == WSMsgType.TEXT:
            body = json.loads(message.data)
            self.acks.append(Ack(body["envelope_id"], body.get("payload")))
            self._changed()

    async def send(self, kind: str, payload: dict[str, Any], *, envelope_id: str = "", retry: int = 0) -> str:
        """Send an envelope and do not wait: its id. `retry` says how often it was sent before."""
        envelope_id = envelope_id or str(uuid.uuid4())
        body: dict[str, Any] = {
            "envelope_id": envelope_id,
            "type": kind,
            "payload": payload,
            "accepts_response_payload": kind != "events_api",
        }
        if kind == "events_api":
            body |= {"retry_attempt": retry, "retry_reason": "timeout" if retry else ""}
        await self._one().send_json(body)
        return envelope_id

    async def ask(self, kind: str, payload: dict[str, Any], *, envelope_id: str = "", limit_s: float = ACK_S) -> Ack:
        """Send an envelope and wait for its acknowledgement, as long as Slack does."""
        before = len(self.acks)
        sent = await self.send(kind, payload, envelope_id=envelope_id)
        async with asyncio.timeout(limit_s):
            while True:
                for ack in self.acks[before:]:
                    if ack.envelope_id == sent:
                        return ack
                await asyncio.sleep(0.005)

    def _one(self) -> web.WebSocketResponse:
        for socket in reversed(self._open):
            if not socket.closed:
                return socket
        raise AssertionError("the app has no socket")

    async def disconnect(self, reason: str = "refresh_requested") -> None:
        """Say that the connection is about to end, as Slack does every few hours."""
        for socket in list(self._open):
            await socket.send_json({"type": "disconnect", "reason": reason, "debug_info": {"host": "applink-1"}})

    async def close(self) -> None:
        """Close every socket in good order."""
        for socket in list(self._open):
            await socket.close()

    def drop(self) -> None:
        """Cut every socket without a word."""
        for socket in list(self._open):
            transport = socket._req.transport if socket._req is not None else None
            if transport is not None:
                transport.abort()

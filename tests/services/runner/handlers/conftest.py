"""What a handler is called with, and the other side of its HTTP requests."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from bus.events.invocation import ArtifactRef
from bus.subjects import Ref
from services.runner.handler import Context


@pytest.fixture
def notes() -> list[str]:
    """What handlers said of their progress; empty texts are mere signs of life."""
    return []


@pytest.fixture
def kept() -> dict[str, bytes]:
    """Artifacts that handlers kept."""
    return {}


@pytest.fixture
def asked() -> list[tuple[str, Any, str]]:
    """Requests that handlers made: role, input, key."""
    return []


@pytest.fixture
def context(notes: list[str], kept: dict[str, bytes], asked: list[tuple[str, Any, str]]) -> Callable[..., Context]:
    """Makes the context of an invocation with the given input."""

    async def request(role: str, input: Any, *, key: str) -> str:
        asked.append((role, input, key))
        return f"id-{len(asked)}"

    async def artifact(name: str, content: bytes, media_type: str) -> ArtifactRef:
        kept[name] = content
        digest = f"sha-256:{hashlib.sha256(content).hexdigest()}"
        return ArtifactRef(name=f"shop/coder/1/{name}", size=len(content), digest=digest, media_type=media_type)

    def make(input: Any = None, *, prompt: str = "", environment: dict[str, str] | None = None) -> Context:
        return Context(
            ref=Ref("shop", "coder", "0198c0de-0000-7000-8000-000000000001"),
            input=msgspec.Raw(msgspec.json.encode(input)),
            attempt=2,
            prompt=prompt,
            environment={
                "TRACEPARENT": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                **(environment or {}),
            },
            progress=notes.append,
            request=request,
            artifact=artifact,
        )

    return make


SILENCE = b""


class Service:
    """An HTTP server that gives the answers it was told to, one per request, and remembers what it was asked."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[tuple[dict[str, str], Any]] = []
        self._answers: list[bytes | None] = []
        self._connections: list[asyncio.Task[Any]] = []

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Give this answer next; underscores of header names become hyphens."""
        lines = [f"HTTP/1.1 {status} Told", f"Content-Length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self._answers.append("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    def hang_up(self) -> None:
        """Close the connection instead of the next answer."""
        self._answers.append(None)

    def keep_silent(self) -> None:
        """Wait for the client to hang up instead of the next answer."""
        self._answers.append(SILENCE)

    async def ended(self) -> None:
        """Wait until all connections are closed; the clients must have hung up."""
        await asyncio.gather(*self._connections)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        task = asyncio.current_task()
        assert task is not None
        self._connections.append(task)
        try:
            while (first := await reader.readline()).strip():
                headers = {":path": first.split()[1].decode()}
                while line := (await reader.readline()).strip():
                    name, _, value = line.decode().partition(":")
                    headers[name.lower()] = value.strip()
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                self.requests.append((headers, msgspec.json.decode(body)))
                answer = self._answers.pop(0)
                if answer is None:
                    break
                if answer == SILENCE:
                    await reader.read()
                writer.write(answer)
                await writer.drain()
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


@pytest.fixture
async def service(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Service]:
    """A running HTTP server on a free port."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    told = Service()
    server = await asyncio.start_server(told.serve, "127.0.0.1", 0)
    async with server:
        told.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield told
        server.close()
        await told.ended()

"""The connection: fails fast when asked to, waits when asked to, and comes back by itself."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from bus import connection as module
from bus import errors
from bus.connection import Connection, connect
from bus.server import EmbeddedServer, Options
from tests.bus.conftest import LIMIT_S, Address

Until = Callable[..., Coroutine[Any, Any, None]]


@pytest.fixture
async def silent() -> AsyncIterator[str]:
    """Address of something that takes connections and says nothing."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(8)
        yield f"nats://127.0.0.1:{listening.getsockname()[1]}"


def closed_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_connection_to_nobody_fails_with_the_remedy() -> None:
    """Where nobody listens, one sentence names the address, the cause and the remedy."""
    url = f"nats://127.0.0.1:{closed_port()}"
    async with asyncio.timeout(LIMIT_S):
        with pytest.raises(errors.BusUnreachable) as caught:
            await connect(Address(url), "test")
    assert str(caught.value).startswith(f"no NATS server answers at {url} (")
    assert str(caught.value).endswith("); start the fleet with `systems up`, or name another server")
    assert "Connect call failed" in caught.value.why


async def test_connection_to_something_silent_fails(silent: str) -> None:
    """What takes a connection and never says a word is no server either."""
    async with asyncio.timeout(LIMIT_S):
        with pytest.raises(errors.BusUnreachable):
            await connect(Address(silent), "test")


async def test_connection_waits_for_the_server_if_asked(store_dir: Path) -> None:
    """With `wait` it stands as soon as the server does."""
    server = EmbeddedServer(Options(store_dir=store_dir, port=closed_port()))
    waiting = asyncio.create_task(connect(Address(server.url), "test", wait=True))
    try:
        await asyncio.wait({waiting}, timeout=0.6)
        assert not waiting.done()
        async with server:
            async with asyncio.timeout(LIMIT_S):
                connected = await waiting
            assert connected.is_up
            await connected.close()
    finally:
        waiting.cancel()


async def test_connection_comes_back_after_the_server_was_killed(
    server: EmbeddedServer, connection: Connection, until: Until
) -> None:
    """A killed server is noticed, ready() waits for its successor, and then everything works again."""
    before = connection.up_since
    server.kill()
    await server.wait()
    await until(lambda: not connection.is_up)
    ready = asyncio.create_task(connection.ready())
    await server.start()
    async with asyncio.timeout(LIMIT_S):
        await ready
    assert connection.is_up
    assert connection.up_since > before
    assert (await connection.api("INFO"))["streams"] == 0


async def test_connection_request_without_a_server_is_unanswered(
    server: EmbeddedServer, connection: Connection, until: Until
) -> None:
    """While the server is away a request ends as unanswered, which says that nothing is known."""
    await server.stop()
    await until(lambda: not connection.is_up)
    with pytest.raises(errors.Unanswered, match=r"expected an answer to \$JS.API.INFO within 0.2 s, got none"):
        await connection.api("INFO", timeout=0.2)


async def test_connection_close_does_not_wait_for_a_server_that_is_gone(server: EmbeddedServer, until: Until) -> None:
    """Closing ends within seconds although nothing can be flushed, and twice is as good as once."""
    connected = await connect(Address(server.url), "test")
    await server.stop()
    await until(lambda: not connected.is_up)
    async with asyncio.timeout(LIMIT_S):
        await connected.close()
        await connected.close()


async def test_connection_closed_while_it_reconnects_leaves_nothing_open(store_dir: Path, until: Until) -> None:
    """Whoever took the server's place, and was connected to meanwhile, sees the end of that connection at the close."""
    async with EmbeddedServer(Options(store_dir=store_dir)) as server:
        connection = await connect(Address(server.url), "test")
        port = server.port
    met: list[asyncio.StreamReader] = []

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        met.append(reader)
        await reader.read()
        writer.close()

    async with await asyncio.start_server(mute, "127.0.0.1", port):
        await until(lambda: bool(met))
        await connection.close()
        await until(met[-1].at_eof)
    assert connection.nc._reconnection_task is None or connection.nc._reconnection_task.done()


async def test_connection_api_errors_carry_the_servers_code(connection: Connection) -> None:
    """A refused request names what was asked, why it was refused, and the code."""
    with pytest.raises(errors.ServerError, match=r"\$JS.API.STREAM.INFO.NONE was refused .* \(code 10059\)"):
        await connection.api("STREAM.INFO.NONE")


async def test_connection_without_jetstream_is_told(store_dir: Path) -> None:
    """A server without JetStream for this account is named as the cause."""
    config = {"accounts": {"A": {"users": [{"user": "u", "password": "p"}]}}, "no_auth_user": "u"}
    async with EmbeddedServer(Options(store_dir=store_dir, config=config)) as server:
        connected = await connect(Address(server.url), "test")
        with pytest.raises(errors.ServerError, match="JetStream"):
            await connected.api("INFO")
        await connected.close()


async def test_connection_refused_login_is_told_at_once(store_dir: Path) -> None:
    """A wrong login is no reason to wait, also with `wait`."""
    config = {"authorization": {"user": "u", "password": "p"}}
    async with EmbeddedServer(Options(store_dir=store_dir, config=config)) as server:
        with pytest.raises(errors.BusUnreachable, match=r"login refused.*check the credentials"):
            await connect(Address(server.url), "test", wait=True)


async def test_connection_refuses_an_old_server(server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that lacks what the bus is built on is refused, with both versions."""
    monkeypatch.setattr(module, "NEEDED", (99, 0, 0))
    with pytest.raises(errors.ServerTooOld, match=r"expected nats-server 99\.0\.0 or newer .* got: 2\."):
        await connect(Address(server.url), "test")


@pytest.mark.parametrize(
    ("text", "parsed"), [("2.15.1", (2, 15, 1)), ("2.15.1-beta.2", (2, 15, 1)), ("2.15", (2, 15)), ("", ())]
)
def test_connection_reads_versions(text: str, parsed: tuple[int, ...]) -> None:
    """Versions compare as numbers, and what stands behind a hyphen does not count."""
    assert module.version(text) == parsed

"""One connection to the bus, that waits for the server instead of failing.

A connection that drops is made again for ever; :meth:`Connection.ready` waits until it stands. Requests that were under
way when it dropped stay unanswered, which is not the same as refused: whoever made them finds out by reading the log.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import structlog
from nats import errors as driver

from bus import errors, wire
from bus.driver import Driver

log = structlog.get_logger()

#: The newest feature that the bus is built on is the cron schedule.
NEEDED = (2, 14, 0)
FEATURE = "cron schedules, atomic batches and counters"

#: Seconds between two tries to reach a server that is away: short, because a claim's clock runs meanwhile.
RECONNECT_S = 0.25
#: Bytes that may wait in memory while the server is away.
PENDING_BYTES = 64 * 1024 * 1024


class Credentials(Protocol):
    """What a connection is made with; ``bus.context.Context`` is one."""

    @property
    def url(self) -> str:
        """Where to, for people."""
        ...

    @property
    def servers(self) -> list[str]:
        """``nats://host:port`` of each server."""
        ...

    def connect_options(self) -> dict[str, Any]:
        """Keyword arguments for ``nats.connect``: credentials and TLS."""
        ...


class Connection:
    """A connected client and what is asked of it everywhere."""

    def __init__(self, nc: Driver, url: str, up: asyncio.Event) -> None:
        self.nc = nc
        self.url = url
        self._up = up
        #: Loop time since which the connection stands without a break.
        self.up_since = asyncio.get_running_loop().time()

    @property
    def is_up(self) -> bool:
        """A server is there right now."""
        return self._up.is_set()

    async def ready(self) -> None:
        """Wait until a server is there."""
        await self._up.wait()

    async def api(self, subject: str, body: Any = None, *, timeout: float = 5.0) -> dict[str, Any]:
        """One JSON request on ``$JS.API.<subject>``; see :func:`bus.wire.api`."""
        return await wire.api(self.nc, subject, body, timeout=timeout)

    async def close(self) -> None:
        """Send what waits, then close. A server that is gone does not hold this up."""
        self._up.clear()
        if self.nc.is_closed:
            return
        try:
            async with asyncio.timeout(2):
                await self.nc.flush()
        except (driver.Error, TimeoutError, OSError) as exc:
            log.warning("connection_closed_unflushed", url=self.url, error=repr(exc))
            self.nc.forget()
        try:
            await self.nc.close()
        except OSError as exc:
            log.warning("connection_closed_unflushed", url=self.url, error=repr(exc))


def version(text: str) -> tuple[int, ...]:
    """``2.15.1-beta`` as ``(2, 15, 1)``."""
    return tuple(int(part) for part in text.split("-", 1)[0].split(".") if part.isdigit())


async def connect(
    credentials: Credentials,
    name: str,
    *,
    wait: bool = False,
    on_reconnect: Callable[[], Awaitable[None]] | None = None,
) -> Connection:
    """Connect as `name`.

    Args:
        credentials: where to, and as whom.
        name: shown to people by ``nats server report connections``.
        wait: keep trying until a server is there; otherwise fail at once.
        on_reconnect: called after each reconnection.

    Raises:
        BusUnreachable: no server answers (only without `wait`), or it refuses the login.
        ServerTooOld: it answers, but lacks what the bus is built on.
    """
    up = asyncio.Event()
    told = False
    last: BaseException | None = None

    async def disconnected() -> None:
        if up.is_set():
            up.clear()
            log.warning("bus_lost", url=credentials.url, action="waiting for the server to come back")

    async def reconnected() -> None:
        connection.up_since = asyncio.get_running_loop().time()
        up.set()
        log.info("bus_back", url=credentials.url)
        if on_reconnect is not None:
            await on_reconnect()

    async def failed(exc: Exception) -> None:
        nonlocal last
        last = exc
        # While nothing is connected every try reports here: bus_lost has said it once.
        if up.is_set():
            log.warning("bus_error", url=credentials.url, error=repr(exc))

    while True:
        try:
            nc = Driver()
            await nc.connect(
                credentials.servers,
                name=name,
                allow_reconnect=True,
                max_reconnect_attempts=1,
                reconnect_time_wait=RECONNECT_S,  # type: ignore[arg-type]  # seconds; a fraction is fine
                connect_timeout=2,
                pending_size=PENDING_BYTES,
                disconnected_cb=disconnected,
                reconnected_cb=reconnected,
                error_cb=failed,
                **credentials.connect_options(),
            )
            break
        except (driver.Error, OSError, TimeoutError) as exc:
            # The driver ends with "no servers available"; what went wrong came to the error callback before.
            why = last or exc
            if isinstance(why, (driver.AuthorizationError, ssl.SSLError)) or _REFUSED in str(why).lower():
                raise errors.BusUnreachable(credentials.url, f"login refused: {why}", "check the credentials") from exc
            if not wait:
                raise errors.BusUnreachable(credentials.url, _why(why)) from exc
            if not told:
                log.warning("bus_away", url=credentials.url, action="waiting for the server", error=_why(why))
                told = True
            await asyncio.sleep(RECONNECT_S)
    # The first connection must fail fast; every later one is retried for ever.
    nc.options["max_reconnect_attempts"] = -1
    up.set()
    found = nc.connected_server_version
    text = f"{found.major}.{found.minor}.{found.patch}"
    if version(text) < NEEDED:
        await nc.close()
        raise errors.ServerTooOld(text, ".".join(map(str, NEEDED)), FEATURE)
    connection = Connection(nc, credentials.url, up)
    return connection


#: What the server says to a wrong login; the driver has a class for it only once it is connected.
_REFUSED = "authorization violation"


def _why(exc: BaseException) -> str:
    return str(exc) or type(exc).__name__

"""One connection to the bus, that waits for the server instead of failing.

A connection that drops is made again for ever; :meth:`Connection.ready` waits until it stands. Requests that were under
way when it dropped stay unanswered, which is not the same as refused: whoever made them finds out by reading the log.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
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


#: What the server says to a wrong login; the driver has a class for it only once it is connected.
_REFUSED = "authorization violation"
#: What it says to a publish that the login may not make.
_DENIED = re.compile(r"permissions violation for publish to \"([^\"]+)\"", re.IGNORECASE)


class LoginRefused(errors.BusUnreachable):
    """A server answers, and does not know us: waiting cannot help."""


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
    """A client and what is asked of it everywhere. :func:`connect` makes one that stands."""

    def __init__(self, credentials: Credentials, name: str) -> None:
        self.nc = Driver()
        self.url = credentials.url
        self._credentials = credentials
        self._name = name
        self._up = asyncio.Event()
        #: What went wrong last; the driver's own exception only says "no servers available".
        self._last_error: BaseException | None = None
        #: Called with the subject of each publish that the server refused to this login.
        self.on_denied: list[Callable[[str], None]] = []
        #: Called when the connection stands again after a break: what was on its way then is lost.
        self.on_back: set[Callable[[], None]] = set()
        #: Loop time since which the connection stands without a break.
        self.up_since = asyncio.get_running_loop().time()

    async def open(self) -> None:
        """Connect, once.

        Raises:
            BusUnreachable: no server answers, or it refuses the login.
            ServerTooOld: it answers, but lacks what the bus is built on.
        """
        self.nc = Driver()
        try:
            await self.nc.connect(
                self._credentials.servers,
                name=self._name,
                allow_reconnect=True,
                max_reconnect_attempts=1,
                reconnect_time_wait=RECONNECT_S,  # type: ignore[arg-type]  # seconds; a fraction is fine
                connect_timeout=2,
                pending_size=PENDING_BYTES,
                disconnected_cb=self._disconnected,
                reconnected_cb=self._reconnected,
                error_cb=self._failed,
                **self._credentials.connect_options(),
            )
        except (driver.Error, OSError, TimeoutError) as exc:
            why = self._last_error or exc
            if isinstance(why, (driver.AuthorizationError, ssl.SSLError)) or _REFUSED in str(why).lower():
                raise LoginRefused(self.url, f"login refused: {why}", "check the credentials") from exc
            raise errors.BusUnreachable(self.url, str(why) or type(why).__name__) from exc
        # The first connection must fail fast; every later one is retried for ever.
        self.nc.options["max_reconnect_attempts"] = -1
        self.up_since = asyncio.get_running_loop().time()
        self._up.set()
        found = self.nc.connected_server_version
        text = f"{found.major}.{found.minor}.{found.patch}"
        if version(text) < NEEDED:
            await self.close()
            raise errors.ServerTooOld(text, ".".join(map(str, NEEDED)), FEATURE)

    async def _disconnected(self) -> None:
        if self._up.is_set():
            self._up.clear()
            log.warning("bus_lost", url=self.url, action="waiting for the server to come back")

    async def _reconnected(self) -> None:
        self.up_since = asyncio.get_running_loop().time()
        self._up.set()
        for listener in list(self.on_back):
            listener()
        log.info("bus_back", url=self.url)

    async def _failed(self, exc: Exception) -> None:
        self._last_error = exc
        denied = _DENIED.search(str(exc))
        if denied is not None:
            log.error("permission_denied", subject=denied[1], error=str(exc))
            for listener in self.on_denied:
                listener(denied[1])
            return
        # While nothing is connected every try reports here: bus_lost has said it once.
        if self._up.is_set():
            log.warning("bus_error", url=self.url, error=repr(exc))

    @property
    def certificate_ends(self) -> datetime | None:
        """When the certificate ends that the server has shown; None without TLS."""
        # The driver has no public way to what its transport knows.
        transport = getattr(self.nc._transport, "_io_writer", None)  # noqa: SLF001
        tls = transport.get_extra_info("ssl_object") if transport is not None else None
        shown = tls.getpeercert() if tls is not None else None
        if not shown or "notAfter" not in shown:
            return None
        return datetime.fromtimestamp(ssl.cert_time_to_seconds(shown["notAfter"]), UTC)

    @property
    def credentials(self) -> Credentials:
        """Where to, and as whom: for another connection like this one."""
        return self._credentials

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
    return tuple(int(part) for part in text.split("-", 1)[0].split(".") if part.isdecimal())


async def connect(credentials: Credentials, name: str, *, wait: bool = False) -> Connection:
    """Connect as `name`.

    Args:
        credentials: where to, and as whom.
        name: shown to people by ``nats server report connections``.
        wait: keep trying until a server is there; otherwise fail at once.

    Raises:
        BusUnreachable: no server answers (only without `wait`), or it refuses the login.
        ServerTooOld: it answers, but lacks what the bus is built on.
    """
    connection = Connection(credentials, name)
    told = False
    while True:
        try:
            await connection.open()
        except LoginRefused:
            raise
        except errors.BusUnreachable as exc:
            if not wait:
                raise
            if not told:
                log.warning("bus_away", url=exc.url, action="waiting for the server", error=exc.why)
                told = True
            await asyncio.sleep(RECONNECT_S)
        else:
            return connection

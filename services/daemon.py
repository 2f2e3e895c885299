"""The skeleton of every daemon: identity, the bus, a heartbeat with evidence, a stop that takes everything down in order.

A daemon waits for a server that is not there, and says so. Its teardown is a stack of named steps, last in first out; a
step that fails is logged and does not stop the ones below it, and the process then ends with status 1.
"""

from __future__ import annotations

import asyncio
import os
import platform
import re
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import structlog

from bus import errors, trips, upcasters
from bus.artifacts import Artifacts
from bus.author import Author
from bus.bucket import Bucket
from bus.connection import Connection, Credentials, connect
from bus.counters import Counters
from bus.events import daemon as ev
from bus.events.card import End
from bus.gate import Gate
from bus.ids import new_id
from bus.invocations import Invocations
from bus.liveness import Heartbeat, Liveness, before
from bus.publisher import Publisher
from bus.schedules import Schedules
from bus.store import Store
from bus.trips import Trips
from services import alive
from services.cards import Cards
from services.home import Home
from services.pulse import Pulse

log = structlog.get_logger()

T = TypeVar("T")

#: Seconds that a step of the teardown that is out of time gets to end.
_HEED_S = 1.0


def control_id(instance: str, host: str) -> str:
    """The token that names a daemon's seat in CONTROL: ``agent_runner-1_myhost``."""
    return f"{instance}_{re.sub(r'[^A-Za-z0-9-]', '-', host)}"[:128]


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What a daemon can show for its being alive."""

    last_message_at: datetime | None = None
    last_empty_at: datetime | None = None
    progress_at: datetime | None = None
    in_flight: int = 0
    handled: int = 0
    draining: bool = False


class Bus:
    """Everything on the bus that a process uses, over one connection."""

    def __init__(
        self, connection: Connection, publisher: Publisher, author: Author, *, also: tuple[str, ...] = ()
    ) -> None:
        self.connection = connection
        self.publisher = publisher
        self.author = author
        self.store = Store(connection, publisher)
        self.invocations = Invocations(self.store, author)
        self.gate = Gate(connection, self.store, self.bucket, also=also)
        publisher.gate = self.gate
        self.artifacts = Artifacts(connection, self.gate)
        self.schedules = Schedules(connection, publisher)
        self.counters = Counters(connection, publisher)
        self.trips = Trips(self.bucket(trips.BUCKET))
        self.liveness = Liveness(self.bucket("liveness"))
        self.cards = Cards(connection, self.store, author)

    def bucket(self, name: str) -> Bucket:
        """A key-value bucket by name."""
        return Bucket(name, self.connection, self.publisher, self.store)

    async def close(self) -> None:
        """Close gate, publisher and connection."""
        await self.gate.close()
        await self.publisher.close()
        await self.connection.close()


async def open_bus(
    credentials: Credentials, name: str, author: Author, *, wait: bool = False, also: tuple[str, ...] = ()
) -> Bus:
    """Connect and set up everything on one connection, with its gate open.

    Args:
        credentials: where to, and as whom.
        name: shown to people by the server.
        author: who writes the events.
        wait: keep trying until a server is there.
        also: what this client may write in a freeze beside :data:`bus.gate.ALWAYS`.

    Raises:
        BusUnreachable, ServerTooOld: see :func:`bus.connection.connect`.
    """
    upcasters.check()
    connection = await connect(credentials, name, wait=wait)
    publisher = Publisher(connection)
    await publisher.open()
    bus = Bus(connection, publisher, author, also=also)
    await bus.gate.open()
    return bus


class Teardown:
    """Named steps that undo what was set up, last in first out."""

    def __init__(self) -> None:
        self._steps: list[tuple[str, Callable[[], Awaitable[object]], float]] = []
        self.failed = False

    def push(self, name: str, step: Callable[[], Awaitable[object]], limit_s: float = 15.0) -> None:
        """Add a step; it may take `limit_s` seconds."""
        self._steps.append((name, step, limit_s))

    async def run(self) -> None:
        """Run all steps; a failing one is logged and the next one runs."""
        while self._steps:
            name, step, limit_s = self._steps.pop()
            # In a task of its own: one that does not heed its cancellation either must not hold up the steps below.
            task = asyncio.ensure_future(step())
            try:
                await asyncio.wait({task}, timeout=limit_s)
                late = not task.done()
            finally:
                task.cancel()
            await asyncio.wait({task}, timeout=_HEED_S)
            error = _failure(task)
            if late or error:
                self.failed = True
                log.error("teardown_failed", step=name, error=error or "late", limit_s=limit_s)


def _failure(task: asyncio.Future[object]) -> str:
    """What went wrong in a step; empty for nothing."""
    if not task.done():
        return "it does not heed its cancellation"
    if task.cancelled():
        return "cancelled"
    exc = task.exception()
    return "" if exc is None else repr(exc)


def _told_of(task: asyncio.Task[Any]) -> None:
    """A companion that ends by an error is missed from then on: that is told when it happens, not when the daemon ends."""
    if not task.cancelled() and (exc := task.exception()) is not None:
        log.error("companion_failed", name=task.get_name(), error=repr(exc), exc_info=exc)


class Daemon:
    """One running daemon."""

    def __init__(self, kind: str, instance: str, home: Path, bus: Bus, boot_id: str) -> None:
        self.kind = kind
        self.instance = instance
        self.home = home
        self.bus = bus
        self.boot_id = boot_id
        self.host = platform.node() or "localhost"
        self.started_at = datetime.now(UTC)
        # Read from the disk each time that it is asked for.
        self.version = version("systems")
        self.release = Home(home).release(sys.prefix)
        self.teardown = Teardown()
        #: Filled in by the daemon's own wiring.
        self.evidence: Callable[[], Evidence] = Evidence
        #: The revision of the registry that it runs with.
        self.config_revision: Callable[[], int] = int
        #: What people call one of its tasks: a runner names the invocation.
        self.task_name: Callable[[asyncio.Task[Any]], str] = lambda task: task.get_name()
        self._pulse: Pulse | None = None
        #: Why it ends, for its farewell.
        self._reason = "asked to"
        self._stopping = asyncio.Event()

    @property
    def seat(self) -> str:
        """The token that names its seat in CONTROL."""
        return control_id(self.instance, self.host)

    def stop(self) -> None:
        """Begin the end."""
        self._stopping.set()

    async def stopped(self) -> None:
        """Wait until somebody asked for the end."""
        await self._stopping.wait()

    def accompany(self, name: str, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Do something beside everything else until the teardown comes to it: the task, for whoever minds how it ends."""
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(_told_of)

        async def end() -> None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        self.teardown.push(name, end)
        return task

    async def goes_first(self) -> bool:
        """Whether no other daemon of its kind has started earlier; also where nobody can tell."""
        try:
            return before(self.heartbeat(), await self.bus.liveness.all()) is None
        except errors.BusError as exc:
            log.warning("turn_unread", error=str(exc))
            return True

    def heartbeat(self) -> Heartbeat:
        """What the daemon says of itself right now."""
        evidence = self.evidence()
        return Heartbeat(
            daemon=self.kind,
            instance=self.instance,
            boot_id=self.boot_id,
            host=self.host,
            home=Home(self.home).token,
            pid=os.getpid(),
            started_at=self.started_at,
            at=datetime.now(UTC),
            version=self.version,
            release=self.release,
            last_message_at=evidence.last_message_at,
            last_empty_at=evidence.last_empty_at,
            progress_at=evidence.progress_at,
            in_flight=evidence.in_flight,
            handled=evidence.handled,
            draining=evidence.draining,
            config_revision=self.config_revision(),
        )

    def hurry(self) -> None:
        """Beat at once: there is something that others wait for."""
        if self._pulse is not None:
            self._pulse.hurry()

    def _called(self, task: asyncio.Task[Any]) -> str:
        # Looked up when it is needed: the wiring may name tasks after the first beat.
        return self.task_name(task)

    def _pulse_failed(self) -> None:
        """Nobody could tell any more whether it lives: end, and be started anew."""
        self._reason, self.teardown.failed = "its pulse failed", True
        self.stop()

    async def announce(self) -> None:
        """Begin to beat, and write that we started."""
        pulse = self._pulse = Pulse(
            self.bus.connection.credentials,
            self.instance,
            make=self.heartbeat,
            task_name=self._called,
            failed=self._pulse_failed,
        )
        await self._answer()
        # Also of a start that is broken off.
        self.teardown.push("pulse", pulse.close, 6)
        await pulse.open()

        async def end() -> None:
            await pulse.close()
            await self.bus.liveness.end(self.kind, self.boot_id)
            await self._write(ev.Stopped(daemon=self.kind, boot_id=self.boot_id, reason=self._reason))

        self.teardown.push("heartbeat", end, 6)
        await self._write(
            ev.Started(daemon=self.kind, boot_id=self.boot_id, host=self.host, pid=os.getpid(), version=self.version)
        )
        await self.bus.cards.close(self.seat, End.BACK, self.boot_id)

    async def _answer(self) -> None:
        """Say that we live to whoever asks, from the loop that does the work."""
        asked = await alive.answer(self.bus.connection, self.boot_id)
        self.teardown.push("alive", lambda: self.bus.connection.nc.unsink(asked), 2)

    async def _write(self, event: ev.DaemonEvent) -> None:
        await self.bus.store.append(self.bus.author.control(self.seat, event))


@asynccontextmanager
async def daemon(kind: str, instance: str, home: Path, credentials: Credentials) -> AsyncIterator[Daemon]:
    """A daemon from its first connection to the end of its teardown.

    SIGTERM and SIGINT ask for the end; so does the end of the process that started it, through its leash.
    """
    boot_id = new_id()
    structlog.contextvars.bind_contextvars(daemon=instance, boot=boot_id[-6:])
    bus = await open_bus(credentials, instance, Author(f"/{kind}/{boot_id}", actor=kind), wait=True)
    running = Daemon(kind, instance, home, bus, boot_id)
    running.teardown.push("bus", bus.close, 5)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, running.stop)
    try:
        yield running
    finally:
        await running.teardown.run()
        log.info("stopped", clean=not running.teardown.failed)

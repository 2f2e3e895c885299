"""What every worker of a runner shares: the bus, the registry, the keeper, and the runner's identity."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, TypeVar

import structlog
from nats.errors import Error as DriverError

from bus import errors, subjects
from bus.artifacts import Artifacts
from bus.author import Author
from bus.connection import Connection
from bus.events.invocation import InvocationEvent
from bus.gate import Gate
from bus.invocation import Invocation
from bus.invocations import Invocations, Written
from bus.liveness import Liveness
from bus.refusal import GuardRefused, Reason
from bus.store import Append, Store
from bus.subjects import Ref
from bus.trips import Trips
from services.fleet.registry import Registry
from services.fleet.spec import OnFreeze, Role
from services.requests.requests import Requests
from services.runner.handler import Handler
from services.runner.keeper import Keeper
from services.runner.parking import Parking
from services.runner.quota import Quota
from services.runner.running import Running, Stop
from services.runner.spool import Spool
from services.runner.turns import Turns

log = structlog.get_logger()

_T = TypeVar("_T")

#: What refuses a write for a while, and nobody's work for good.
_PASSING = frozenset({Reason.FROZEN, Reason.UNVERIFIED_FLAG})

#: Seconds until an append is tried again that the server refused for reasons of its own.
_AGAIN_S = 1.0
#: The same for the first time after a freeze: flags are cleared a moment before the server takes writes again.
_SOON_S = 0.05


class LeftForLater(Exception):
    """Nothing may be written before this runner ends: its claim stands, and its result lies in the spool."""


class Desk:
    """Shared by the workers of one runner process."""

    def __init__(
        self,
        *,
        connection: Connection,
        store: Store,
        author: Author,
        registry: Registry,
        requests: Requests,
        artifacts: Artifacts,
        gate: Gate,
        trips: Trips,
        liveness: Liveness,
        spool: Spool,
        quota: Quota,
        boot_id: str,
        runner: str,
        build: Callable[[Role], Handler],
        environment: Mapping[str, str],
    ) -> None:
        self.connection = connection
        self.store = store
        self.author = author
        self.registry = registry
        self.requests = requests
        self.artifacts = artifacts
        self.gate = gate
        self.trips = trips
        self.liveness = liveness
        self.spool = spool
        self.parking = Parking(self.answer)
        self.turns = Turns(gate)
        self.quota = quota
        #: Tasks that wait for room under a cap; a drain ends their waiting.
        self.reserving: set[asyncio.Task[None]] = set()
        self.invocations = Invocations(store, author, quota.settle)
        self.keeper = Keeper()
        self.boot_id = boot_id
        #: Instance name, for people.
        self.runner = runner
        #: Makes a handler from a role.
        self.build = build
        #: What every child process gets: server, credentials, state directory.
        self.environment = environment
        #: True: no new claims.
        self.draining = False
        self._loop = asyncio.get_running_loop()
        self._chores: set[asyncio.Task[None]] = set()

    def monotonic(self) -> float:
        """Seconds, as the event loop counts them; from any thread."""
        return time.monotonic()

    def answer(self, reply: str, what: bytes) -> None:
        """Acknowledge or refuse a delivery. While the server is away it waits in the client's buffer."""
        try:
            self.connection.nc.send(reply, what)
        except DriverError as exc:
            # The event is in the log already; a delivery that comes again is dropped by the log's own rule.
            log.warning("answer_unsent", reply=reply, error=repr(exc))

    async def append(
        self,
        ref: Ref,
        state: Invocation,
        decided: list[InvocationEvent],
        cause: str,
        also: list[Append] | None = None,
        *,
        refused: Callable[[], Awaitable[None]] | None = None,
    ) -> Written:
        """Append under the fence, for as long as it takes.

        A server that takes nothing now (its disk is full, its stream is frozen) must not cost a result that was paid for.

        Raises:
            SequenceConflict: somebody else was quicker.
        """
        return await self.insist(
            ref, lambda: self.invocations.append(ref, state, decided, cause=cause, also=also or ()), refused=refused
        )

    async def insist(
        self, ref: Ref, write: Callable[[], Awaitable[_T]], *, refused: Callable[[], Awaitable[None]] | None = None
    ) -> _T:
        """Write until the server takes it, or says that somebody else was quicker.

        Args:
            ref: whose.
            write: one try.
            refused: called before the wait when a freeze refuses it: keeps what would be written.

        Raises:
            LeftForLater: a freeze refuses it, and this runner ends.
        """
        again_s = _SOON_S
        while True:
            try:
                return await write()
            except errors.SequenceConflict:
                raise
            except (GuardRefused, errors.StreamFrozen) as exc:
                if isinstance(exc, GuardRefused) and exc.refusal.reason not in _PASSING:
                    raise
                if refused is not None:
                    await refused()
                log.info("write_waits", invocation=ref.id, reason=str(exc))
                await self._opened(again_s)
                again_s = min(_AGAIN_S, 2 * again_s)
            except (errors.ServerError, errors.Unanswered) as exc:
                log.error("server_takes_nothing", invocation=ref.id, error=str(exc), again_s=_AGAIN_S)
                await asyncio.sleep(_AGAIN_S)

    async def _opened(self, again_s: float) -> None:
        """Wait for the gate, and a moment more.

        Raises:
            LeftForLater: this runner ends before.
        """
        while self.gate.closed:
            if self.draining:
                raise LeftForLater
            await self.gate.changed(_AGAIN_S)
        await asyncio.sleep(again_s)

    def heed(self) -> None:
        """The switch or a trip has changed: stop the handlers whose role says so, as soon as a freeze begins."""
        if not self.gate.switch.frozen:
            return
        now, refusal = self._loop.time(), self.gate.refusal()
        for running in list(self.keeper.running.values()):
            running.frozen_by = running.frozen_by or refusal
            if running.role.role.on_freeze is OnFreeze.STOP:
                running.stop(Stop.FREEZE, now)

    def call_soon(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call something on the runner's loop; from any thread."""
        self._loop.call_soon_threadsafe(function, *arguments)

    def announce(self, running: Running) -> None:
        """Publish a handler's progress note for people who watch: plain NATS, not kept. Callable from any thread."""
        self._loop.call_soon_threadsafe(self.answer, subjects.progress(running.ref), running.note.encode())

    def retire(self, handler: Handler, users: list[asyncio.Task[None]]) -> None:
        """Close a handler that was replaced, once nobody uses it any more."""

        async def close() -> None:
            if users:
                await asyncio.wait(users)
            await handler.close()

        self.chore(close())

    def chore(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something on the side; its failure is logged, and closing waits for it."""
        task = asyncio.create_task(work)
        self._chores.add(task)
        task.add_done_callback(self._chore_done)

    def _chore_done(self, task: asyncio.Task[None]) -> None:
        self._chores.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            log.warning("chore_failed", error=repr(exc))

    async def close(self) -> None:
        """Wait for what runs on the side."""
        await self.parking.close()
        if self._chores:
            await asyncio.wait(self._chores, timeout=5)

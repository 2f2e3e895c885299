"""The claims that a runner holds: renewed while their handlers make progress, ended when they do not.

One task looks after all of them, instead of a timer for each: at ten thousand invocations a second a timer each would
cost more than the work. A renewal and a delayed NAK of the same claim never cross, because a claim is taken out of here
before its NAK is sent, and both go out over one connection in that order.
"""

from __future__ import annotations

import asyncio

import structlog

from services.runner.running import Running, Stop

log = structlog.get_logger()

#: Seconds between two looks: how late a time limit may fire.
ROUND_S = 0.2


class Keeper:
    """Holds the running claims by invocation id."""

    def __init__(self) -> None:
        self.running: dict[str, Running] = {}
        self._empty = asyncio.Event()
        self._empty.set()
        #: The other way round: there is something to look after.
        self._holds = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self.running)

    def open(self) -> None:
        """Start looking after claims."""
        self._task = asyncio.create_task(self._rounds(), name="keeper")

    async def close(self) -> None:
        """Stop; claims still held are no longer renewed."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def add(self, running: Running) -> None:
        """Hold a claim."""
        self.running[running.ref.id] = running
        self._empty.clear()
        self._holds.set()

    def remove(self, running: Running) -> None:
        """Let a claim go: from here on nothing renews it."""
        # A claim that was swept from us may have come back to us: the younger one stays.
        if self.running.get(running.ref.id) is running:
            del self.running[running.ref.id]
        if not self.running:
            self._empty.set()
            self._holds.clear()

    def stop(self, id_: str, reason: Stop) -> None:
        """Tell the handler of an invocation to end, if it runs here."""
        running = self.running.get(id_)
        if running is not None:
            running.stop(reason, asyncio.get_running_loop().time())

    async def empty(self) -> None:
        """Wait until no claim is held."""
        await self._empty.wait()

    async def _rounds(self) -> None:
        while True:
            await self._holds.wait()
            await asyncio.sleep(ROUND_S)
            now = asyncio.get_running_loop().time()
            for running in list(self.running.values()):
                self._look(running, now)

    def _look(self, running: Running, now: float) -> None:
        role = running.role.role
        if running.stop_reason is None and not running.settling:
            if now - running.started_at > role.timeout:
                running.stop(Stop.TIMEOUT, now)
            elif now - running.progress_at > role.progress_timeout:
                running.stop(Stop.HUNG, now)
        if running.holds(now):
            if now - running.renewed_at > role.ack_wait / 3:
                running.renew(now)
        elif now - running.told_at > role.grace + 1 and running.stop_reason is not None:
            # It swallowed its cancellation. Ask again; without renewals the claim runs out at the server.
            log.warning("handler_ignores_stop", invocation=running.ref.id, role=running.role.path)
            running.stop(running.stop_reason, now)

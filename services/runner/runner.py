"""agent_runner: claims and runs the invocations of every registered role.

On SIGTERM it drains: it asks for nothing more, gives each running handler its role's grace, and puts back what is not done
by then. On kill -9 nothing is lost: its claims are swept by the warden, and its results so far are in the log.
It never restarts itself.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from nats.aio.subscription import Subscription

from bus import errors, subjects
from bus.events import invocation as ev
from bus.follower import Follower
from bus.store import INVOCATIONS, Recorded, read
from services import parked
from services.fleet.spec import SANDBOX
from services.receipts import Held
from services.runner import leftovers
from services.runner.desk import Desk
from services.runner.running import Stop
from services.runner.worker import Worker

log = structlog.get_logger()

#: Seconds between two looks whether the spool is empty.
_LOOK_S = 0.02
#: How others end a claim.
_ENDS = ("inv.*.*.*.cancelled", "inv.*.*.*.swept")


class Runner:
    """One runner process' work: all projects but the drills', or `only` one; of the drills' project the role `canary`, by which it is proven."""

    def __init__(self, desk: Desk, *, only: str = "", canary: str = "") -> None:
        self._desk = desk
        self._only = only
        self._canary = canary
        self.workers: dict[tuple[str, str], Worker] = {}
        self._changes: asyncio.Queue[str] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._watch: asyncio.Task[None] | None = None
        self._handled_before = 0
        self._asked: Subscription | None = None

    async def open(self) -> None:
        """Start a worker for each role, and follow the registry."""
        desk = self._desk
        info = await desk.connection.api(f"STREAM.INFO.{INVOCATIONS}")
        ends = Follower(desk.connection, INVOCATIONS, _ENDS, start=info["state"]["last_seq"] + 1)
        self._watch = asyncio.create_task(self._follow_ends(ends), name="runner_ends")
        desk.registry.on_change = self._changes.put_nowait
        desk.keeper.open()
        desk.gate.listeners.append(desk.heed)
        self._asked = await parked.answer(desk.connection, desk.parking.holds)
        if not desk.gate.closed:
            await self._settle_leftovers()
        for key in list(desk.registry.roles):
            await self._reconcile(*key)
        self._task = asyncio.create_task(self._follow_registry(), name="runner_registry")
        log.info("runner_ready", roles=len(self.workers), boot_id=desk.boot_id)

    async def run(self) -> None:
        """Until the end; what goes wrong in following the registry and the log ends the runner, or it would go on deaf."""
        await asyncio.gather(*filter(None, (self._task, self._watch)))

    async def drain(self) -> None:
        """Take nothing more; give what runs its grace; put back the rest."""
        desk = self._desk
        desk.draining = True
        desk.turns.end()
        for task in desk.reserving:
            task.cancel()
        await asyncio.gather(*(worker.puller.drain() for worker in self.workers.values()))
        log.info("draining", in_flight=len(desk.keeper))
        graces = {running.role.role.grace for running in desk.keeper.running.values()}
        begun = asyncio.get_running_loop().time()
        for grace in sorted(graces):
            left = begun + grace - asyncio.get_running_loop().time()
            if left > 0:
                try:
                    async with asyncio.timeout(left):
                        await desk.keeper.empty()
                except TimeoutError:
                    log.info("grace_over", grace_s=grace)
            for running in list(desk.keeper.running.values()):
                if running.role.role.grace <= grace:
                    running.stop(Stop.DRAIN, asyncio.get_running_loop().time())

    async def close(self) -> None:
        """End everything that is still open, after a drain."""
        for task in filter(None, (self._task, self._watch)):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        for worker in self.workers.values():
            await worker.close()
        if self._asked is not None:
            await self._desk.connection.nc.unsink(self._asked)
        await self._desk.keeper.close()
        await self._desk.quota.close()
        await self._desk.close()

    def stopped(self) -> Held:
        """What is in hand as a freeze begins."""
        running = list(self._desk.keeper.running.values())
        cut = sum(one.stop_reason is Stop.FREEZE for one in running)
        return Held(cut=cut, running=len(running) - cut, held=len(running), spooled=len(self._desk.spool))

    async def settle(self) -> Held:
        """Wait until what a freeze held back is written, also what an earlier boot left: how much that was."""
        desk = self._desk
        waiting = [one for one in desk.keeper.running.values() if one.settling or one.stop_reason is Stop.FREEZE]
        spooled = len(desk.spool) + await self._settle_leftovers()
        while not desk.gate.closed and any(desk.keeper.running.get(one.ref.id) is one for one in waiting):
            await asyncio.sleep(_LOOK_S)
        return Held(held=len(waiting), spooled=spooled)

    async def _settle_leftovers(self) -> int:
        while not self._desk.gate.closed:
            try:
                return await leftovers.settle(self._desk)
            except errors.StreamFrozen:
                await asyncio.sleep(_LOOK_S)  # flags are cleared a moment before the server takes writes again
            except errors.BusError as exc:
                log.warning("spool_waits", error=str(exc))
                return 0
        return 0

    @property
    def handled(self) -> int:
        """Results written since the start."""
        return self._handled_before + sum(worker.handled for worker in self.workers.values())

    def evidence(self) -> tuple[datetime | None, datetime | None]:
        """When a message was last delivered here, and when the server last answered an empty pull."""
        pullers = [worker.puller for worker in list(self.workers.values())]
        return (
            _wall(max((p.last_message_at for p in pullers if p.last_message_at is not None), default=None)),
            _wall(max((p.last_empty_at for p in pullers if p.last_empty_at is not None), default=None)),
        )

    def progress_at(self) -> datetime | None:
        """When a handler in hand last gave a sign of progress."""
        return _wall(max((one.progress_at for one in list(self._desk.keeper.running.values())), default=None))

    def task_name(self, task: asyncio.Task[Any]) -> str:
        """The invocation whose handler a task runs, else the task's own name; from any thread."""
        for running in list(self._desk.keeper.running.values()):
            if running.task is task:
                return f"{running.role.path} {running.ref.id}"
        return task.get_name()

    async def _follow_registry(self) -> None:
        while True:
            key = await self._changes.get()
            self._desk.quota.wake()
            kind, _, name = key.partition(".")
            if kind == "roles":
                project, _, role = name.partition(".")
                await self._reconcile(project, role)

    def _serves(self, project: str, name: str) -> bool:
        if self._only:
            return project == self._only
        return project != SANDBOX or name == self._canary

    async def _reconcile(self, project: str, name: str) -> None:
        if not self._serves(project, name):
            return
        role = self._desk.registry.roles.get((project, name))
        worker = self.workers.get((project, name))
        if role is None:
            if worker is not None:
                del self.workers[project, name]
                # On the side: what still runs for it must not keep other changes waiting.
                self._desk.chore(self._leave(worker))
        elif worker is None:
            worker = Worker(self._desk, role)
            self.workers[project, name] = worker
            await worker.open()
            log.info("role_joined", role=role.path, revision=role.revision)
        else:
            await worker.change(role)
            log.info("role_changed", role=role.path, revision=role.revision)

    async def _leave(self, worker: Worker) -> None:
        await worker.close()
        self._handled_before += worker.handled
        log.info("role_left", role=worker.role.path)

    async def _follow_ends(self, ends: Follower) -> None:
        """Stop what others have ended.

        Followed in the log and not merely heard: a cancel that the server refuses must stop nobody, and one that was written
        while this runner was cut off must reach it when it is back.
        """
        async for batch in ends.batches():
            for delivery in batch:
                # Only an event stops a handler; rubbish is the warden's to report.
                record = read(delivery.seq, delivery.subject, datetime.now(UTC), delivery.data)
                if record.data is not None:
                    self._ended(record)

    def _ended(self, record: Recorded) -> None:
        ref, _ = subjects.parse_event(record.subject)
        running = self._desk.keeper.running.get(ref.id)
        # What lies before our claim has ended somebody else's, or an earlier one of ours.
        if running is not None and running.ref == ref and running.state.last_seq < record.seq:
            self._desk.keeper.stop(ref.id, Stop.CANCELLED if isinstance(record.data, ev.Cancelled) else Stop.LOST)


def _wall(loop_time: float | None) -> datetime | None:
    if loop_time is None:
        return None
    # Not by the running loop: a stuck runner's evidence is read beside it. Its seconds are those of the monotonic clock.
    return datetime.now(UTC) - timedelta(seconds=time.monotonic() - loop_time)

"""Keeps programs running, within a restart intensity each; one that exceeds it stays down and the others go on.

A program is started again after any end that nobody asked for, whatever its status: a daemon has no reason to end by itself.
Programs start in the order in which they are added and stop in the reverse. Nothing waits for a report: see
:mod:`services.launcher.reporter`. The end of this process ends them all, by their leashes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine
from enum import StrEnum
from types import TracebackType
from typing import Any, Self

import msgspec
import structlog

from bus import errors
from services.fleet.daemons import Restart, RestartBy
from services.launcher.intensity import GiveUp, decide_restart, recent
from services.launcher.program import Program
from services.launcher.reporter import Reporter

log = structlog.get_logger()

#: Status of a program that could not be started: what a shell says of a command that it cannot run.
NOT_STARTED = 127

#: Seconds for a reporter to hear what is left when it is let go.
REPORT_LIMIT_S = 5.0

#: One call of a Reporter's method.
Report = Callable[[Reporter], Coroutine[Any, Any, None]]


class State(StrEnum):
    """Where a child stands."""

    STARTING = "starting"
    RUNNING = "running"
    #: Ended, and waits for its restart.
    WAITING = "waiting"
    STOPPING = "stopping"
    #: Down because somebody asked for it.
    STOPPED = "stopped"
    #: Down until a person starts it: it exceeded the intensity, or only a person restarts it.
    GAVE_UP = "gave_up"


class ChildStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A child, as ``{"op": "status"}`` answers it."""

    name: str
    state: State
    #: 0 while it does not run.
    pid: int
    #: Starts after the first one.
    restarts: int
    #: Status of its last end, negative for a signal; None if it never ended.
    last_status: int | None
    #: Why its last start failed, in one sentence; empty if it did not.
    error: str
    #: The command that brings it back, if it is down.
    command: str


class _Kept:
    """A program and what has happened to it."""

    def __init__(self, program: Program, command: str, by: RestartBy) -> None:
        self.program = program
        self.command = command
        self.by = by
        self.state = State.STARTING
        self.exits: tuple[float, ...] = ()
        self.starts = 0
        self.pid = 0
        self.last_status: int | None = None
        self.error = ""
        self.stop_asked = self.restart_asked = False
        #: Ends a wait before a restart.
        self.wake = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    @property
    def is_down(self) -> bool:
        return self.task is None or self.task.done()

    def status(self) -> ChildStatus:
        return ChildStatus(
            name=self.program.name,
            state=self.state,
            pid=self.pid if self.state in {State.RUNNING, State.STOPPING} else 0,
            restarts=max(self.starts - 1, 0),
            last_status=self.last_status,
            error=self.error,
            command=self.command,
        )


class Supervisor:
    """Use as ``async with``: leaving stops every child. A child that was given up on raises nothing; it is reported."""

    def __init__(self, restart: Restart, *reporters: Reporter, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._restart = restart
        self._monotonic = monotonic
        self._children: dict[str, _Kept] = {}
        self._first = reporters
        self._reporters: dict[Reporter, tuple[asyncio.Queue[Report], asyncio.Task[None]]] = {}
        self._hurried = False
        self._tasks = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        for reporter in self._first:
            self.listen(reporter)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self.stop_all()
        finally:
            for child in self._children.values():  # what is still there if the stop was cancelled
                child.program.kill()
                await child.program.wait()
            for reporter in tuple(self._reporters):
                await self.unlisten(reporter)
            if isinstance(exc, asyncio.CancelledError):  # perhaps by the group itself, because a task failed
                await self._tasks.__aexit__(exc_type, exc, traceback)
            else:  # an error of the body goes on as it is, not wrapped into a group
                await self._tasks.__aexit__(None, None, None)

    def listen(self, reporter: Reporter) -> None:
        """Tell a reporter everything from now on."""
        reports: asyncio.Queue[Report] = asyncio.Queue()
        self._reporters[reporter] = (reports, self._tasks.create_task(self._tell(reporter, reports)))

    async def unlisten(self, reporter: Reporter, limit_s: float = REPORT_LIMIT_S) -> None:
        """Tell a reporter what it has not heard yet, for at most `limit_s` seconds, and then nothing more."""
        reports, task = self._reporters.pop(reporter)
        try:
            async with asyncio.timeout(limit_s):
                await reports.join()
        except TimeoutError:
            log.warning("reports_dropped", reporter=type(reporter).__name__, count=reports.qsize() + 1)
        finally:
            task.cancel()

    async def add(self, program: Program, command: str, by: RestartBy = RestartBy.ALWAYS) -> None:
        """Start a program, and keep it running from then on.

        Args:
            program: not started yet, under a name of its own.
            command: what a person runs when it was given up on.
            by: who restarts it.

        Raises:
            BusError, OSError: its very first start failed; it is not kept.
        """
        if program.name in self._children:
            raise errors.Conflict(f"expected a new child, got: {program.name} is already supervised")
        child = _Kept(program, command, by)
        await program.start()
        self._children[program.name] = child
        self._started(child)
        child.task = self._tasks.create_task(self._keep(child, running=True), name=program.name)

    def intensity(self, restart: Restart) -> None:
        """Judge exits by another restart intensity from now on."""
        self._restart = restart

    def status(self) -> list[ChildStatus]:
        """All children, in their order of start."""
        return [child.status() for child in self._children.values()]

    def start(self, name: str) -> None:
        """Bring a child back that is down, with a clean record; one that waits for its restart gets it now.

        Raises:
            UnknownName: there is no such child.
            Conflict: it is being stopped at this moment.
        """
        child = self._child(name)
        if child.stop_asked and not child.is_down:
            raise errors.Conflict(
                f"expected {name} to run or to be down, got: it is being stopped; start it when it is down"
            )
        child.exits = ()
        child.wake.set()
        if child.is_down:
            child.stop_asked = child.restart_asked = False
            child.state = State.STARTING
            child.task = self._tasks.create_task(self._begin(child), name=name)

    async def stop(self, name: str) -> None:
        """Stop a child and wait until its tree is gone. It stays down until :meth:`start`.

        Raises:
            UnknownName: there is no such child.
        """
        child = self._child(name)
        child.stop_asked = True
        child.wake.set()
        if child.task is not None and not child.task.done():
            self._end(child)
            await asyncio.wait({child.task})
        child.state = State.STOPPED

    def request_restart(self, name: str) -> None:
        """Stop a child and start it again at once; that is no failure and does not count. One that is down is started.

        Raises:
            UnknownName: there is no such child.
        """
        child = self._child(name)
        if child.is_down or child.state is State.WAITING:
            self.start(name)
            return
        child.restart_asked = True
        self._end(child)

    def kill(self, name: str, pid: int) -> bool:
        """End a child that hangs, now, if it is still that process; its end counts like any other that nobody asked for.

        Raises:
            UnknownName: there is no such child.
        """
        child = self._child(name)
        if child.state is not State.RUNNING or child.pid != pid:
            return False
        child.program.kill()
        return True

    async def stop_all(self, keep: Collection[str] = ()) -> None:
        """Stop all children but those in `keep`, the last started first, each before the next."""
        for name in reversed([name for name in self._children if name not in keep]):
            await self.stop(name)

    def hurry(self) -> None:
        """Give no more grace: kill what is stopping now, and what will be stopped later."""
        self._hurried = True
        for child in self._children.values():
            if child.state is State.STOPPING:
                child.program.kill()

    def _child(self, name: str) -> _Kept:
        if name not in self._children:
            raise errors.UnknownName("child", name, self._children)
        return self._children[name]

    def _end(self, child: _Kept) -> None:
        if child.state is not State.WAITING:
            child.state = State.STOPPING
        if self._hurried:
            child.program.kill()
        else:
            child.program.terminate()

    def _started(self, child: _Kept) -> None:
        child.starts += 1
        child.error = ""
        child.pid = pid = child.program.pid
        name = child.program.name
        child.state = State.RUNNING
        self._report(lambda reporter: reporter.child_started(name, pid))

    async def _begin(self, child: _Kept) -> None:
        """Start, and keep; a start that fails counts as an exit."""
        await self._keep(child, running=await self._start(child))

    async def _start(self, child: _Kept) -> bool:
        child.state = State.STARTING
        try:
            await child.program.start()
        except (errors.BusError, OSError) as exc:
            child.error = str(exc)
            log.warning("child_not_started", name=child.program.name, error=child.error)
            return False
        self._started(child)
        return True

    async def _keep(self, child: _Kept, *, running: bool) -> None:
        """Wait for the end, decide, start again; until it stays down."""
        while True:
            if running and (child.stop_asked or child.restart_asked):
                self._end(child)  # asked while it was being started, when there was nothing to end yet
            child.last_status = status = await child.program.wait() if running else NOT_STARTED
            if child.stop_asked:
                child.state = State.STOPPED
                return
            if child.restart_asked:
                child.restart_asked = False
            elif not await self._restart_follows(child, child.pid if running else 0, status):
                return
            running = await self._start(child)

    async def _restart_follows(self, child: _Kept, pid: int, status: int) -> bool:
        """Count an exit nobody asked for; True after the delay, False if it stays down."""
        now, name, command = self._monotonic(), child.program.name, child.command
        child.exits = (*recent(child.exits, now, self._restart), now)
        decision = decide_restart(child.exits, now, self._restart, child.by)
        if isinstance(decision, GiveUp):
            gave_up = decision
            child.state = State.GAVE_UP
            self._report(lambda reporter: reporter.child_exited(name, pid, status, None))
            self._report(lambda reporter: reporter.child_gave_up(name, pid, gave_up, status, command))
            return False
        delay = decision.delay_s
        child.state = State.WAITING
        child.wake.clear()
        self._report(lambda reporter: reporter.child_exited(name, pid, status, delay))
        try:
            async with asyncio.timeout(delay):
                await child.wake.wait()
        except TimeoutError:
            return True
        if child.stop_asked:
            child.state = State.STOPPED
            return False
        return True

    def _report(self, tell: Report) -> None:
        for reports, _ in self._reporters.values():
            reports.put_nowait(tell)

    async def _tell(self, reporter: Reporter, reports: asyncio.Queue[Report]) -> None:
        while True:
            tell = await reports.get()
            try:
                await tell(reporter)
            except Exception:  # a report that fails must not end the supervision
                log.exception("report_failed", reporter=type(reporter).__name__)
            reports.task_done()

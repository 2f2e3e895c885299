"""A daemon's pulse: its heartbeats, from a thread beside the event loop that does the work.

A loop that blocks must not stop the beats, or nobody could tell a stuck daemon from a dead one; and a beat must not hide that
the loop blocks. So the thread has an event loop and a connection of its own, asks the working loop for its evidence before
each beat, and says for how long that has not turned, and in which task and line it stands. Only while it stands the thread
looks at its evidence by itself.

What stops the beats all the same: a stopped process, and C code that never lets go of the interpreter. While the server is
away a beat waits; what was not sent is not made up for.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

import msgspec
import structlog

from bus import errors
from bus.bucket import Bucket
from bus.connection import Credentials, connect
from bus.liveness import BEAT_S, Heartbeat, Liveness
from bus.publisher import Publisher
from bus.store import Store

log = structlog.get_logger()

#: Seconds between two turns of a loop that are looked at: a shorter lateness may go unnoticed.
TURN_S = 0.5
#: Seconds that a loop may owe a turn before it counts as stuck, and not merely as busy.
STUCK_S = 1.0
#: Seconds between beats while there is something to see: the loop stands still, or nothing has been handled yet.
EAGER_S = BEAT_S / 4
#: Seconds for which the working loop may take to give its evidence.
_ANSWER_S = 0.25
#: Seconds that news wait for more of them before they are told.
_TOGETHER_S = 0.05
#: Seconds that the thread gets to end.
_END_S = 3.0
#: Code that is not the fleet's: a line in it says less than the line that called it.
_FOREIGN = tuple(str(Path(sysconfig.get_path(name))) for name in ("stdlib", "purelib"))


class Loop:
    """How an event loop turns. Made on it and run by it; read from any thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._turned = time.monotonic()
        self._worst = 0.0

    async def run(self) -> None:
        """Turn, for ever."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(TURN_S)
            self._turned = time.monotonic()
            self._worst = max(self._worst, self._turned - before - TURN_S)

    @property
    def owes_s(self) -> float:
        """Seconds by which a turn is overdue; 0 while it turns."""
        return max(0.0, time.monotonic() - self._turned - TURN_S)

    def worst_s(self) -> float:
        """Seconds that it was late at worst since somebody asked last."""
        worst, self._worst = max(self._worst, self.owes_s), 0.0
        return worst

    def place(self, name: Callable[[asyncio.Task[object]], str]) -> str:
        """Where it stands: the task that it runs, as `name` calls it, and the line of code that this has come to."""
        task = asyncio.current_task(self._loop)
        frame = sys._current_frames().get(self._thread)  # noqa: SLF001 (the one way to see another thread's stack)
        line = _line(frame) if frame is not None else ""
        # Without a task it is a callback that blocks, or the process was stopped while its loop waited.
        return f"{name(task)}: {line}" if task is not None else f"no task: {line}"


def _line(innermost: FrameType) -> str:
    """The innermost line of the fleet's own code, else the innermost line: ``handlers.py:12 in work``."""
    frames = list(_outwards(innermost))
    frame = next((one for one in frames if not one.f_code.co_filename.startswith((*_FOREIGN, "<"))), innermost)
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} in {frame.f_code.co_name}"


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


class Pulse:
    """The thread that beats for a daemon."""

    def __init__(
        self,
        credentials: Credentials,
        name: str,
        *,
        make: Callable[[], Heartbeat],
        task_name: Callable[[asyncio.Task[object]], str],
        failed: Callable[[], None],
    ) -> None:
        """Make it, on the loop that does the work.

        Args:
            credentials: where to, and as whom.
            name: of its connection, for people.
            make: called on the working loop, and in the thread while that is stuck: what the daemon says of itself.
            task_name: called in the thread: what people call a task of the working loop.
            failed: called on the working loop when the thread has ended by an error, which is in the log.
        """
        self.loop = Loop()
        self._credentials = credentials
        self._name = name
        self._make = make
        self._task_name = task_name
        self._failed = failed
        self._last = make()
        self._asked: asyncio.Future[Heartbeat] | None = None
        self._work = asyncio.get_running_loop()
        self._own: asyncio.AbstractEventLoop | None = None
        self._news = asyncio.Event()
        self._over = False
        self._began: asyncio.Future[None] = self._work.create_future()
        self._thread = threading.Thread(target=self._main, name="pulse", daemon=True)
        self._turning: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Begin; returns when the first heartbeat is stored.

        Raises:
            BusError: the first heartbeat was refused.
        """
        self._turning = asyncio.create_task(self.loop.run(), name="turns")
        self._thread.start()
        await self._began

    def hurry(self) -> None:
        """Beat at once: there is something that others wait for."""
        self._tell(self._news.set)

    async def close(self) -> None:
        """End; when this returns no beat comes any more."""
        self._over = True
        self._tell(self._news.set)
        if self._thread.ident is not None:
            # The loop must turn meanwhile: the thread may be asking it.
            await asyncio.to_thread(self._thread.join, _END_S)
            if self._thread.is_alive():
                log.error("pulse_goes_on", limit_s=_END_S)
        if self._turning is not None:
            self._turning.cancel()
            await asyncio.gather(self._turning, return_exceptions=True)

    def _tell(self, function: Callable[[], object]) -> None:
        own = self._own
        if own is not None:
            with contextlib.suppress(RuntimeError):  # it has ended meanwhile, and hears nothing more
                own.call_soon_threadsafe(function)

    # ---- in the thread

    def _main(self) -> None:
        try:
            asyncio.run(self._run())
        except BaseException as exc:  # the thread's end: whoever waits must learn of it, whatever it is
            log.exception("pulse_failed")
            error = exc
            self._work.call_soon_threadsafe(self._fail, error)

    def _fail(self, error: BaseException) -> None:
        if not self._began.done():
            self._began.set_exception(error)
        self._failed()

    async def _run(self) -> None:
        self._own = asyncio.get_running_loop()
        connection = await connect(self._credentials, f"{self._name} pulse", wait=True)
        publisher = Publisher(connection)
        await publisher.open()
        liveness = Liveness(Bucket("liveness", connection, publisher, Store(connection, publisher)))
        try:
            await liveness.beat(await self._now())
            self._work.call_soon_threadsafe(self._began.set_result, None)
            while not self._over:
                await self._wait()
                if not self._over:
                    await self._beat(liveness)
        finally:
            await publisher.close()
            await connection.close()

    async def _wait(self) -> None:
        """Until a beat is due: after its time, at news, and early while there is something to see."""
        begun = time.monotonic()
        while not self._over and time.monotonic() - begun < BEAT_S:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(EAGER_S):
                    await self._news.wait()
                await asyncio.sleep(_TOGETHER_S)  # several changes in a row are told by one beat
                self._news.clear()
                return
            if not _is_settled(self._last) or self.loop.owes_s > STUCK_S:
                return

    async def _beat(self, liveness: Liveness) -> None:
        try:
            await liveness.beat(await self._now())
        except errors.BusError as exc:
            log.warning("heartbeat_unsent", error=str(exc))

    async def _now(self) -> Heartbeat:
        """The working loop's heartbeat, or the last that it gave while it does not answer; and how that turns now."""
        if self._asked is None:
            asked = self._asked = asyncio.get_running_loop().create_future()
            self._work.call_soon_threadsafe(self._answer, asked)
        await asyncio.wait({self._asked}, timeout=_ANSWER_S)
        if self._asked.done():
            self._last, self._asked = self._asked.result(), None
        owes = self.loop.owes_s
        stuck = owes if owes > STUCK_S else 0.0
        if stuck:
            # What it took in hand just before it got stuck is known here alone. Nothing changes while it stands.
            with contextlib.suppress(RuntimeError):  # it turns again, and something has changed under our eyes
                self._last = self._make()
        return msgspec.structs.replace(
            self._last,
            at=datetime.now(UTC),
            loop_lag_s=round(self.loop.worst_s(), 3),
            stuck_s=round(stuck, 3),
            stuck_in=self.loop.place(self._task_name) if stuck else "",
        )

    def _answer(self, asked: asyncio.Future[Heartbeat]) -> None:
        """On the working loop."""
        try:
            made = self._make()
        except Exception as exc:  # noqa: BLE001 (it is raised where it was asked for)
            error = exc
            self._tell(lambda: asked.set_exception(error))
        else:
            self._tell(lambda: asked.set_result(made))


def _is_settled(beat: Heartbeat) -> bool:
    """There is evidence to show, or never will be: whoever waits for a start waits for that."""
    return beat.daemon == "launcher" or beat.last_message_at is not None or beat.last_empty_at is not None

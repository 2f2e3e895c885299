"""The launcher kills a daemon of which nothing shows any more that it works: the judgement is :func:`services.launcher.signs.judge`.

What the launcher hears of its children goes through the bus. So silence counts only while its own heartbeat comes back through
the same bus, and not for the time in which the launcher itself stood still; and before anything is done the daemon is asked
directly, over the loop that does its work. A child whose settings leave the restart to a person is left alone, and a card says so.

The embedded server says nothing of itself: it counts as hung when no beat of ours comes back and its port does not greet.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import msgspec
import structlog

from bus import errors
from bus.events.card import End, Opened, Reason
from bus.liveness import Heartbeat
from bus.server import EmbeddedServer, greeting
from services import alive
from services.daemon import Daemon, control_id
from services.fleet.daemons import Daemons, RestartBy
from services.health.daemons import LATE_S
from services.home import Home
from services.launcher import signs as judging
from services.launcher.signs import Deaf, Hung, Signs
from services.launcher.supervisor import ChildStatus, State, Supervisor
from services.ops.kill import KillDaemon
from services.ops.performing import perform

log = structlog.get_logger()

#: Seconds between two looks.
LOOK_S = 1.0
#: Seconds that a round may be late before the time in between counts as ours.
_LATE_S = 3.0
#: Seconds that a daemon has to answer whether it lives.
_ANSWER_S = 2.0
WHO = "launcher"


class Watchdog:
    """Watches the children of one launcher."""

    def __init__(
        self,
        running: Daemon,
        supervisor: Supervisor,
        settings: Callable[[], Daemons],
        command: Callable[[str, str, str], str],
    ) -> None:
        """Make it.

        Args:
            running: the launcher as a daemon.
            supervisor: of the children.
            settings: how they are run.
            command: what a person runs, from a verb (``start``, ``restart``), an instance and a reason.
        """
        self._running = running
        self._bus = running.bus
        self._supervisor = supervisor
        self._settings = settings
        self._command = command
        self._home = Home(running.home).token
        #: What was seen of each process, by pid.
        self._signs: dict[int, Signs] = {}
        #: Boot ids about which a card was handed.
        self._carded: dict[str, Reason] = {}
        now = time.monotonic()
        self._own_at = self._since = self._looked_at = now

    async def run(self) -> None:
        """For ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow())
            group.create_task(self._rounds())

    async def _follow(self) -> None:
        async with aclosing(self._bus.liveness.watch()) as signs:
            async for sign in signs:
                if sign.heartbeat is not None:
                    self._hear(sign.heartbeat)

    def _hear(self, beat: Heartbeat) -> None:
        if (beat.host, beat.home) != (self._running.host, self._home):
            return
        now, age = time.monotonic(), (datetime.now(UTC) - beat.at).total_seconds()
        if beat.boot_id == self._running.boot_id:
            self._own_at = now
            return
        known = self._signs.get(beat.pid)
        if known is None or known.boot_id not in {"", beat.boot_id}:
            known = Signs(started_at=now)
        self._signs[beat.pid] = judging.after_beat(known, beat, now, age)

    async def _rounds(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            now = time.monotonic()
            if now - self._looked_at > LOOK_S + _LATE_S:
                self._since = now  # we stood still ourselves
            self._looked_at = now
            children = {child.name: child for child in self._supervisor.status() if child.state is State.RUNNING}
            self._signs = {
                child.pid: self._signs.get(child.pid) or Signs(started_at=now) for child in children.values()
            }
            if now - self._own_at > LATE_S:
                self._since = now  # it is the bus that is silent
                await self._look_at_server(children.get(EmbeddedServer.name))
                continue
            for child in children.values():
                if child.name != EmbeddedServer.name:
                    await self._look(child)
            self._looked_at = time.monotonic()

    async def _look(self, child: ChildStatus) -> None:
        signs, now = self._signs[child.pid], time.monotonic()
        try:
            match judging.judge(signs, now, self._since, self._settings().watchdog):
                case Hung() as hung:
                    await self._hung(child, signs, hung)
                case Deaf() as deaf:
                    await self._deaf(child, signs, deaf)
                case None:
                    await self._well(child, signs)
        except errors.BusError as exc:
            log.warning("watchdog_hindered", name=child.name, pid=child.pid, error=str(exc), again_s=LOOK_S)

    async def _well(self, child: ChildStatus, signs: Signs) -> None:
        reason = self._carded.get(signs.boot_id)
        if reason is not None:
            await self._bus.cards.close(self._seat(child), End.HEARD, signs.boot_id, only=reason)
            # Only now: a server that does not answer must not leave a card that nobody closes.
            del self._carded[signs.boot_id]

    async def _hung(self, child: ChildStatus, signs: Signs, hung: Hung) -> None:
        if signs.boot_id and await alive.ask(self._bus.connection, signs.boot_id, timeout=_ANSWER_S):
            log.info("silent_daemon_answers", name=child.name, pid=child.pid, silent_s=hung.silent_s)
            self._signs[child.pid] = msgspec.structs.replace(signs, answered_at=time.monotonic())
            return
        saw = judging.told(signs, time.monotonic())
        why = f"nothing has shown for {hung.silent_s:.0f} s that it works ({hung.allowed_s:g} s are allowed): {saw}"
        if self._settings().restart_by(child.name) is RestartBy.HUMAN:
            await self._hand(child, signs, Reason.HUNG, f"{why}; only a person restarts it", hung.silent_s)
            return
        log.error("daemon_hangs", name=child.name, pid=child.pid, why=why, action="killing it")
        facts: dict[str, Any] = {
            "boot_id": signs.boot_id,
            "silent_s": hung.silent_s,
            "allowed_s": hung.allowed_s,
            "freshest": hung.sign.value,
            "told": saw,
        }
        action = KillDaemon(
            child.name,
            child.pid,
            facts,
            lambda: self._supervisor.kill(child.name, child.pid),
            lambda: self._gone(child),
        )
        await perform(self._bus, action, who=WHO, why=why)

    async def _gone(self, child: ChildStatus) -> int:
        while True:
            now = next(one for one in self._supervisor.status() if one.name == child.name)
            if now.state is not State.RUNNING or now.pid != child.pid:
                return now.last_status or 0
            await asyncio.sleep(LOOK_S / 20)

    async def _deaf(self, child: ChildStatus, signs: Signs, deaf: Deaf) -> None:
        why = f"it beats and its event loop turns, but nothing has reached it for {deaf.deaf_s:.0f} s; look at `systems drift` first"
        await self._hand(child, signs, Reason.DEAF, why, deaf.deaf_s)

    async def _hand(self, child: ChildStatus, signs: Signs, reason: Reason, why: str, age_s: float) -> None:
        if self._carded.get(signs.boot_id) is reason:
            return
        card = Opened(
            instance=child.name,
            host=self._running.host,
            reason=reason,
            why=why,
            command=self._command("restart", child.name, reason.value),
            since=datetime.now(UTC) - timedelta(seconds=age_s),
            pid=child.pid,
            boot_id=signs.boot_id,
            by=WHO,
        )
        await self._bus.cards.hand(self._seat(child), card)
        self._carded[signs.boot_id] = reason

    def _seat(self, child: ChildStatus) -> str:
        return control_id(child.name, self._running.host)

    async def _look_at_server(self, server: ChildStatus | None) -> None:
        """No beat of ours comes back: a server that does not greet either, for as long as a daemon may be silent, hangs."""
        silent = time.monotonic() - self._own_at
        if server is None or silent <= self._settings().watchdog.silent:
            return
        port = urlsplit(self._bus.connection.url).port
        if port is None or await greeting(port) is not None:
            return  # it lives, and takes nothing: its disk may be full
        # No event can be written before this: the bus itself is what hangs. Its exit is one, as soon as another server is there.
        log.error("server_hangs", pid=server.pid, silent_s=round(silent, 1), action="killing it")
        self._supervisor.kill(server.name, server.pid)
        self._own_at = time.monotonic()

"""Restarting a daemon: drain, stop, start, and a gate that only evidence under a new boot id opens.

SIGTERM is the drain: a runner takes nothing more, gives what runs its grace, and puts back the rest. The launcher, which
supervises the daemon, does the stopping and the starting; here its word is not believed until the new process has heard from
the bus.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from bus import errors
from bus.events.card import Opened, Reason
from bus.liveness import Heartbeat
from bus.server import EmbeddedServer
from services.daemon import Bus
from services.health.daemons import State, state_of
from services.home import Home
from services.launcher import control
from services.launcher.supervisor import ChildStatus
from services.launcher.supervisor import State as Child
from services.ops.operation import No
from services.ops.performing import ActionFailed
from services.release.plan import relaunch

#: Name of the variable that tells a process which daemon started it.
INSIDE = "SYSTEMS_DAEMON"
#: Seconds between two looks.
_LOOK_S = 0.05
LAUNCHER = "launcher"
#: Seconds that a daemon gets to be alive again, after the grace of the one before it.
ALIVE_S = 60.0


def inside(environ: Mapping[str, str], home: Home) -> str:
    """The daemon of this fleet that the process was started by, directly or not; empty for none."""
    here = environ.get("SYSTEMS_HOME", "")
    return environ.get(INSIDE, "") if here == str(home.path) else ""


def forbidden(name: str, within: str, home: Home, why: str, file: str = "") -> No | None:
    """Why a daemon may not be restarted from here. Pure.

    Args:
        name: the daemon.
        within: the daemon that started the process that asks; empty for none.
        home: the fleet's.
        why: the reason that was given, which the command repeats.
        file: the fleet file that was applied last; empty for one that nobody knows.
    """
    if name == LAUNCHER:
        reason = "expected a daemon that the launcher supervises, got: the launcher itself, which takes everything down with it"
        return No(reason, relaunch(home, file))
    if within == name:
        return from_inside(name, home.command("restart", name, "--reason", why))
    return None


def from_inside(name: str, command: str) -> No:
    """The refusal to somebody that a daemon itself has started; `command` is what a person runs. Pure."""
    return No(f"expected somebody outside of {name} to restart it, got: a handler that it runs itself", command)


def with_card(no: No, name: str, beat: Heartbeat, why: str, now: datetime) -> No:
    """The refusal with the card of the person who is to do it; `beat` is the daemon's own. Pure."""
    card = Opened(
        instance=name,
        host=beat.host,
        reason=Reason.INSIDE,
        why=f"a handler that it runs itself {why}",
        command=no.command,
        since=now,
        pid=beat.pid,
        boot_id=beat.boot_id,
    )
    return msgspec.structs.replace(no, card=card)


class RestartDaemon:
    """One daemon of this home, restarted."""

    name = "restart"
    policy = ""

    def __init__(
        self, bus: Bus, home: Home, daemon: str, why: str, *, within: str, limit_s: float, file: str = ""
    ) -> None:
        """Make it.

        Args:
            bus: where everything happens.
            home: the fleet's.
            daemon: which one.
            why: the reason that is given.
            within: the daemon that the process belongs to; empty for none.
            limit_s: seconds that the whole may take.
            file: the fleet file that was applied last; empty for one that nobody knows.
        """
        self._file = file
        self._bus = bus
        self._home = home
        self._why = why
        self._within = within
        self.target = daemon
        self.limit_s = limit_s

    @property
    def lock(self) -> str:
        """A daemon is restarted once at a time."""
        return f"daemon {self.target}"

    async def check(self) -> No | None:
        """Not from inside, and not the launcher."""
        no = forbidden(self.target, self._within, self._home, self._why, self._file)
        beat = await self._beat(0) if no is not None and self._within == self.target else None
        if no is None or beat is None:
            return no
        return with_card(no, self.target, beat, f"asks for its restart: {self._why}", self._bus.author.now())

    async def carry_out(self, _id: str) -> dict[str, Any]:
        """Drain, stop, start, and wait for evidence."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        before, old = await self._child(), await self._beat(0)
        evidence: dict[str, Any] = {"before": _told(before, old)}
        answer = await control.ask(self._home, control.RestartChild(self.target))
        if not answer.ok:
            raise ActionFailed(answer.error, evidence)
        try:
            async with asyncio.timeout(self.limit_s):
                child = await self._started(before, evidence)
                evidence["up_after_s"] = round(loop.time() - begun, 3)
                beat = await self._alive(child, old)
        except TimeoutError as exc:
            child = await self._child()
            raise ActionFailed(
                f"expected {self.target} to be alive by evidence under a new boot id within {self.limit_s:g} s, got: "
                f"{child.state}, pid {child.pid or 'none'}; look into {self._home.logs / self.target}.log",
                evidence | {"after": _told(child, None)},
            ) from exc
        evidence |= {"after": _told(child, beat), "alive_after_s": round(loop.time() - begun, 3)}
        return evidence

    async def _child(self) -> ChildStatus:
        children = (await control.ask(self._home, control.Status())).children
        found = next((child for child in children if child.name == self.target), None)
        if found is None:
            raise errors.UnknownName("daemon", self.target, [child.name for child in children])
        return found

    async def _started(self, before: ChildStatus, evidence: dict[str, Any]) -> ChildStatus:
        """The process that came after, once it runs."""
        while True:
            child = await self._child()
            if child.state is Child.RUNNING and child.pid not in (0, before.pid):
                return child
            if child.state is Child.GAVE_UP:
                reason = child.error or f"it ended with status {child.last_status}"
                raise ActionFailed(
                    f"{self.target} was given up on: {reason}; when it is repaired run: {child.command}",
                    evidence | {"after": _told(child, None)},
                )
            await asyncio.sleep(_LOOK_S)

    async def _alive(self, child: ChildStatus, old: Heartbeat | None) -> Heartbeat | None:
        """The heartbeat that proves it; for the server, that it answers."""
        if self.target == EmbeddedServer.name:
            await self._bus.connection.ready()
            await self._bus.connection.api("INFO")
            return None
        while True:
            # A process that died meanwhile has another pid now.
            child = await self._child()
            beat = await self._beat(child.pid)
            fresh = beat is not None and (old is None or beat.boot_id != old.boot_id)
            if beat is not None and fresh and state_of(beat, datetime.now(UTC)) is State.ALIVE:
                return beat
            await asyncio.sleep(_LOOK_S)

    async def _beat(self, pid: int) -> Heartbeat | None:
        """The newest heartbeat of the seat; of one process for a `pid` other than 0."""
        beats = [
            beat
            for beat in await self._bus.liveness.all()
            if beat.instance == self.target and beat.home == self._home.token and (not pid or beat.pid == pid)
        ]
        return max(beats, key=lambda beat: beat.started_at, default=None)


def _told(child: ChildStatus, beat: Heartbeat | None) -> dict[str, Any]:
    said: dict[str, Any] = {"pid": child.pid, "state": child.state.value}
    if beat is not None:
        facts = ("boot_id", "version", "in_flight", "handled", "last_message_at", "last_empty_at", "config_revision")
        said |= {name: getattr(beat, name) for name in facts}
    return msgspec.to_builtins(said, str_keys=True)  # type: ignore[no-any-return]  # a dict stays one

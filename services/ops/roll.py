"""One daemon is started from another release: the step of which a roll-out and a return are made.

What it is to be started from is written down first, so that a launcher that dies meanwhile does the right thing at its next
start. Then it is drained, stopped and started, and must be alive by the evidence of its own heartbeat, from the release that
was meant. On the way to a new release more is asked: a canary invocation must complete, and for some time nothing that was
rolled may end.
"""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from bus import errors
from bus.liveness import Heartbeat
from services.daemon import Bus
from services.health.daemons import State, state_of
from services.home import Home
from services.launcher import control
from services.launcher.reporter import describe
from services.launcher.supervisor import ChildStatus
from services.launcher.supervisor import State as Child
from services.ops import flight
from services.ops.operation import No
from services.ops.performing import ActionFailed
from services.ops.restart import from_inside, with_card
from services.release.release import INSTALLED, Releases

#: Seconds between two looks.
_LOOK_S = 0.05
#: Seconds that a daemon gets to be alive, after the grace of the one before it.
ALIVE_S = 60.0
#: Characters of a daemon's last words that an error shows.
_WORDS = 400


class Ended(errors.BusError):
    """A daemon ended by itself, or was not to be seen, before its step was over."""


class Roll:
    """One daemon, from one release to another."""

    policy = ""

    def __init__(
        self,
        bus: Bus,
        home: Home,
        daemon: str,
        release: str,
        who: str,
        *,
        version: str = "",
        grace: float,
        watch_s: float = 0.0,
        back: bool = False,
        person: str = "",
        rolled: Mapping[str, int] = {},
    ) -> None:
        """A step.

        Args:
            bus: where.
            home: the fleet's.
            daemon: what is rolled.
            release: what it is to run.
            who: on whose behalf.
            version: of the release, where it is known.
            grace: seconds that it gets to stop.
            watch_s: seconds for which it and those before it must stay up afterwards.
            back: it is a return to what was good: alive is enough.
            person: the command that a person runs instead; empty if it can be done from here.
            rolled: the process ids of the daemons that were rolled before it, by name.
        """
        self.name = "roll-back" if back else "roll-out"
        self.target = daemon
        self.lock = f"daemon {daemon}"
        self.limit_s = grace + ALIVE_S + (0.0 if back else flight.LIMIT_S + watch_s + ALIVE_S)
        self._bus = bus
        self._home = home
        self._release = release
        self._version = version
        self._who = who
        self._grace = grace
        self._watch_s = watch_s
        self._back = back
        self._person = person
        self._pids = dict(rolled)
        self._releases = Releases(home)
        record = home.launcher()
        self._launcher = record.release if record is not None else ""
        self._host = platform.node() or "localhost"

    @property
    def pids(self) -> dict[str, int]:
        """The processes that were rolled so far, this one with them."""
        return self._pids

    async def check(self) -> No | None:
        """Not from inside: whoever stops itself sees nothing of what comes after."""
        if not self._person:
            return None
        no = from_inside(self.target, self._person)
        beats = [beat for beat in await self._bus.liveness.all() if self._is_ours(beat)]
        if not beats:
            return no
        beat = max(beats, key=lambda beat: beat.started_at)
        return with_card(no, self.target, beat, f"rolls {self._release} out", self._bus.author.now())

    async def carry_out(self, _id: str) -> dict[str, Any]:
        """Do the step."""
        begun = asyncio.get_running_loop().time()
        evidence: dict[str, Any] = {"release": self._release}
        try:
            before = await self._child(self.target)
            evidence["before"] = {"pid": before.pid, "state": before.state.value}
            self._releases.use(self._releases.current() | {self.target: self._release})
            answer = await control.ask(self._home, control.RestartChild(self.target))
            if not answer.ok:
                raise Ended(answer.error)
            child = await self._started(before)
            self._pids[self.target] = child.pid
            beat = await self._alive(child.pid)
            evidence["after"] = {"pid": child.pid, "boot_id": beat.boot_id, "version": beat.version}
            evidence["alive_after_s"] = round(asyncio.get_running_loop().time() - begun, 3)
            if not self._back:
                evidence["canary"] = await self._canary()
                evidence["watched_s"] = await self._watch()
        except errors.BusError as exc:
            raise ActionFailed(str(exc), evidence) from exc
        return evidence

    async def _child(self, name: str) -> ChildStatus:
        children = (await control.ask(self._home, control.Status())).children
        found = next((child for child in children if child.name == name), None)
        if found is None:
            raise errors.UnknownName("daemon", name, [child.name for child in children])
        return found

    async def _started(self, before: ChildStatus) -> ChildStatus:
        """The process that came after, once it runs."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._grace + ALIVE_S
        while loop.time() < until:
            child = await self._child(self.target)
            if child.state is Child.RUNNING and child.pid not in (0, before.pid):
                return child
            if child.error or child.state is Child.GAVE_UP:
                raise Ended(f"{self.target} could not be started: {child.error or describe(child.last_status or 0)}")
            await asyncio.sleep(_LOOK_S)
        raise Ended(f"expected {self.target} to stop and start within {self._grace + ALIVE_S:g} s, got: {child.state}")

    async def _alive(self, pid: int) -> Heartbeat:
        """The heartbeat of a process that proves that it works, and from which release."""
        loop = asyncio.get_running_loop()
        until = loop.time() + ALIVE_S
        beat: Heartbeat | None = None
        while loop.time() < until:
            await self._up()
            beat = next((b for b in await self._bus.liveness.all() if b.pid == pid and self._is_ours(b)), None)
            if beat is not None and state_of(beat, datetime.now(UTC)) is State.ALIVE:
                if not runs(beat, self._release, self._version, self._launcher):
                    raise Ended(
                        f"expected {self.target} to run {self._release}, got: version {beat.version}, "
                        f"release {beat.release or INSTALLED}"
                    )
                return beat
            await asyncio.sleep(_LOOK_S)
        seen = state_of(beat, datetime.now(UTC)).value if beat is not None else "no heartbeat"
        raise Ended(
            f"expected {self.target} to be alive by evidence within {ALIVE_S:g} s, got: {seen}; {self._words()}"
        )

    def _is_ours(self, beat: Heartbeat) -> bool:
        return (beat.instance, beat.host, beat.home) == (self.target, self._host, self._home.token)

    async def _up(self) -> None:
        """Everything that was rolled still runs in the process that it was started in.

        Raises:
            Ended: something does not.
        """
        children = {child.name: child for child in (await control.ask(self._home, control.Status())).children}
        for name, pid in self._pids.items():
            child = children[name]
            if child.state is not Child.RUNNING or child.pid != pid:
                how = "another process runs" if child.last_status is None else describe(child.last_status)
                raise Ended(f"{name} (pid {pid}) ended by itself: {child.error or how}; {self._words(name)}")

    async def _canary(self) -> dict[str, object]:
        """A piece of work through the daemon itself, if it is a runner, else through one of the others."""
        runners = [child.name for child in (await control.ask(self._home, control.Status())).children]
        runners = [name for name in runners if name.startswith("agent_runner")]
        if not runners:
            return {"skipped": "no runner here"}
        by = self.target if self.target in runners else runners[0]
        flown = asyncio.create_task(flight.fly(self._bus, self._home, self._host, by, self._who))
        watched = asyncio.create_task(self._until_down())
        try:
            await asyncio.wait({flown, watched}, return_when=asyncio.FIRST_COMPLETED)
            if flown.done():
                return {"by": by, **flown.result()}
            raise watched.result()
        finally:
            for task in (flown, watched):
                task.cancel()
            await asyncio.gather(flown, watched, return_exceptions=True)

    async def _until_down(self) -> Ended:
        """Wait until something that was rolled ends: what."""
        while True:
            try:
                await self._up()
            except Ended as exc:
                return exc
            await asyncio.sleep(_LOOK_S)

    async def _watch(self) -> float:
        """Let time pass over everything that was rolled; the last look is at the evidence."""
        try:
            async with asyncio.timeout(self._watch_s):
                raise await self._until_down()
        except TimeoutError:
            await self._alive(self._pids[self.target])
        return self._watch_s

    def _words(self, name: str = "") -> str:
        """Where a daemon says why, and what it said last."""
        file = self._home.logs / f"{name or self.target}.log"
        try:
            lines = file.read_text(errors="replace").strip().splitlines()
        except OSError:
            return f"see {file}"
        return f"{file} ends with: {said(lines[-1])[:_WORDS] if lines else 'nothing'}"


def said(line: str) -> str:
    """What a line of a log says: of our own, which are JSON, the error, else the event. Pure."""
    try:
        facts = msgspec.json.decode(line, type=dict[str, Any])
    except msgspec.DecodeError:
        return line
    return str(facts.get("error") or facts.get("event") or line)


def runs(beat: Heartbeat, release: str, version: str, launcher: str) -> bool:
    """Whether a daemon runs a release, by its own word; versions that do not tell their release tell their version. Pure.

    `launcher` is the release that the launcher runs itself, which is what its installation means.
    """
    if release == INSTALLED:
        return beat.release == launcher
    return beat.release == release or (not beat.release and beat.version == version)

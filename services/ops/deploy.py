"""Rolling a release out over the daemons of one home, and back if it does not hold.

One daemon after the other, each an action of its own (:class:`services.ops.roll.Roll`). The first that fails ends the
roll-out: what was rolled goes back to what it was started from before, in reverse order, and the release counts as bad, so
that nobody rolls it out again by accident and nothing turns in circles. What is returned to is not proven again beyond being
alive: when that fails too a person is told what to run, and no third release is tried.

The launcher is not rolled: it holds everything else. Nor is a daemon from inside of itself; both end as commands for a
person. Whoever rolls out and dies leaves daemons of two releases, which the panel shows; one of them that does not hold is started
from what it was before by the launcher itself, and the next roll-out goes on or comes back from there.
"""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from bus import errors
from bus.liveness import Heartbeat
from bus.server import EmbeddedServer
from services.daemon import Bus
from services.fleet.spec import SANDBOX
from services.home import Home
from services.launcher import control
from services.ops.operation import No
from services.ops.performing import ActionFailed, ActionRefused, perform
from services.ops.roll import Roll, runs
from services.release import canary
from services.release import plan as planning
from services.release.install import install
from services.release.plan import LAUNCHER, Plan, Step
from services.release.release import INSTALLED, Release, Releases, Standing, release_of
from services.release.wheel import Wheel

#: Seconds for making the environment of a release.
INSTALL_S = 600.0


class Deploy:
    """A release, onto every daemon of this home."""

    name = "deploy"
    policy = ""

    def __init__(
        self,
        bus: Bus,
        home: Home,
        what: Wheel | Release | None,
        who: str,
        why: str,
        *,
        within: str,
        grace: float,
        watch_s: float,
        fleet: str = "",
        again: bool = False,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """A roll-out.

        Args:
            bus: where.
            home: the fleet's.
            what: a wheel, a release that is there, or None for the installation that the launcher runs in.
            who: on whose behalf.
            why: in their words.
            within: the daemon that this process belongs to; empty for none.
            grace: seconds that a daemon gets to stop.
            watch_s: seconds of watching after each step.
            fleet: the fleet file, for the command that a person gets.
            again: also if the release is bad.
            say: told each step as it begins and ends.
        """
        self.target = INSTALLED if what is None else what.release if isinstance(what, Wheel) else what.name
        self._bus = bus
        self._home = home
        self._what = what
        self._who = who
        self._why = why
        self._within = within
        self._grace = grace
        self._watch_s = watch_s
        self._fleet = fleet
        self._again = again
        self._say = say
        self._releases = Releases(home)
        self._host = platform.node() or "localhost"
        self.limit_s = INSTALL_S

    @property
    def lock(self) -> str:
        """One roll-out at a time in each home."""
        return f"the releases of {self._home.path} on {self._host}"

    async def plan(self) -> Plan:
        """What would be done, as everything stands now."""
        beats = await self._beats()
        daemons = [child.name for child in (await control.ask(self._home, control.Status())).children]
        known, version = self._known(), self._version(beats)
        record = self._home.launcher()
        launcher = record.release if record is not None else ""
        return Plan(
            release=self.target,
            version=version,
            standing=known.standing.value if known is not None else "" if self._what is None else Standing.NEW.value,
            steps=planning.steps(
                [name for name in daemons if name != EmbeddedServer.name],
                self._releases.current(),
                [name for name, beat in beats.items() if runs(beat, self.target, version, launcher)],
                self.target,
                self._within,
                self.command,
            ),
            watch_s=self._watch_s,
            relaunch=self._relaunch(),
        )

    async def check(self) -> No | None:
        """Not a release that is known to be bad, and not while no work may be done."""
        known = self._known()
        if known is not None and known.standing is Standing.BAD and not self._again:
            since = f"{known.judged_at:%Y-%m-%d %H:%M:%S} UTC" if known.judged_at is not None else "some time"
            reason = f"expected a release that holds, got: {known.name} failed on {since}: {known.because}"
            return No(reason, f"{self.command} --again")
        refusal = self._bus.gate.refusal(role=f"{SANDBOX}/{canary.PREFIX}")
        if refusal is not None:
            return No(
                f"expected that work may be done, because a canary has to complete, got: {refusal.sentence}",
                refusal.command,
            )
        count = len((await self.plan()).steps)
        step = Roll(self._bus, self._home, "", self.target, self._who, grace=self._grace, watch_s=self._watch_s)
        self.limit_s = INSTALL_S + 2 * count * step.limit_s
        return None

    async def carry_out(self, id_: str) -> dict[str, Any]:
        """Make the release, roll it out step by step, and back if a step fails."""
        evidence: dict[str, Any] = {"release": self.target}
        if isinstance(self._what, Wheel):
            self._say(f"making the release {self.target}")
            made = await asyncio.to_thread(install, self._releases, self._what, self._who, datetime.now(UTC))
            evidence |= {"version": made.version, "digest": made.digest, "own": made.own}
        plan = await self.plan()
        before = self._releases.begin(self._releases.current())
        evidence |= {"before": before, "steps": []}
        await self._roll(plan, before, id_, evidence)
        settled = planning.settled(self._releases.current(), plan)
        self._releases.use(settled)
        self._releases.end()
        left = [{"who": step.daemon, "command": step.command} for step in plan.steps if step.command]
        launcher = [{"who": LAUNCHER, "command": plan.relaunch}] if plan.relaunch else []
        if not left:
            self._releases.judge(self.target, Standing.GOOD, "", datetime.now(UTC))
        return evidence | {"after": settled, "left": [*left, *launcher]}

    async def _roll(self, plan: Plan, before: dict[str, str], id_: str, evidence: dict[str, Any]) -> None:
        """Every step; what fails is taken back.

        Raises:
            ActionFailed: a step failed; says what became of the rest.
        """
        pids: dict[str, int] = {}
        rolled: list[Step] = []
        for step in plan.steps:
            if step.kept:
                continue
            roll = self._step(step.daemon, step.after, plan.version, rolled=pids, person=step.command)
            try:
                if not step.command:
                    rolled.append(step)
                evidence["steps"].append(await self._perform(roll, f"deploy {id_}: {self._why}"))
            except ActionRefused as exc:
                if not step.command:
                    await self._back(step, exc, rolled[:-1], before, id_, evidence)
                evidence["steps"].append({"daemon": step.daemon, "left": exc.command})
            except errors.BusError as exc:
                await self._back(step, exc, rolled, before, id_, evidence)
            pids = roll.pids

    async def _back(
        self,
        failed: Step,
        because: errors.BusError,
        rolled: Sequence[Step],
        before: dict[str, str],
        id_: str,
        evidence: dict[str, Any],
    ) -> None:
        """Everything as it was, the last one rolled first; always ends with what failed.

        Raises:
            ActionFailed: always.
        """
        self._say(f"{failed.daemon} failed: {because}")
        verdict = f"{failed.daemon}: {because}"
        self._releases.judge(self.target, Standing.BAD, verdict, datetime.now(UTC))
        self._releases.use(before)
        stuck: list[str] = []
        evidence["failed"] = {"daemon": failed.daemon, "because": str(because)}
        evidence["returned"] = []
        for step in reversed(rolled):
            roll = self._step(step.daemon, release_of(before, step.daemon), "", back=True)
            try:
                evidence["returned"].append(await self._perform(roll, f"deploy {id_} failed at {failed.daemon}"))
            except errors.BusError as exc:
                evidence["returned"].append({"daemon": step.daemon, "error": str(exc)})
                stuck.append(self._home.command("start", step.daemon))
        self._releases.use(before)
        self._releases.end()
        told = f"{self.target} was not rolled out, because {verdict}"
        if stuck:
            raise ActionFailed(
                f"{told}; what was there before did not come back either; run: {'; '.join(stuck)}", evidence
            )
        names = ", ".join(step.daemon for step in rolled) or "nothing"
        bad = "" if self.target == INSTALLED else f"; {self.target} counts as bad from now on"
        raise ActionFailed(f"{told}; taken back: {names}{bad}", evidence)

    def _step(self, daemon: str, release: str, version: str, **more: Any) -> Roll:
        watch_s = 0.0 if more.get("back") else self._watch_s
        return Roll(
            self._bus,
            self._home,
            daemon,
            release,
            self._who,
            version=version,
            grace=self._grace,
            watch_s=watch_s,
            **more,
        )

    async def _perform(self, roll: Roll, why: str) -> dict[str, Any]:
        self._say(f"{roll.name} of {roll.target}")
        done = await perform(self._bus, roll, who=self._who, why=why)
        seen = msgspec.json.decode(done.evidence) if done.evidence is not None else {}
        self._say(f"{roll.target} is alive after {seen['alive_after_s']:.1f} s: pid {seen['after']['pid']}")
        return {"daemon": roll.target, "operation": done.id, **seen}

    def _relaunch(self) -> str:
        """How a person has the launcher itself run the release; empty if it does."""
        record = self._home.launcher()
        if record is None or self.target in (INSTALLED, record.release):
            return ""
        return planning.relaunch(self._home, self._fleet, str(self._releases.command(self.target)))

    async def _beats(self) -> dict[str, Heartbeat]:
        beats = sorted(await self._bus.liveness.all(), key=lambda beat: beat.started_at)
        return {beat.instance: beat for beat in beats if beat.home == self._home.token and beat.host == self._host}

    def _known(self) -> Release | None:
        if isinstance(self._what, Wheel):
            return self._releases.find(self._what.digest)
        return self._what

    def _version(self, beats: dict[str, Heartbeat]) -> str:
        if self._what is not None:
            return self._what.version
        return beats[LAUNCHER].version if LAUNCHER in beats else ""

    @property
    def command(self) -> str:
        """What a person runs to have the same done."""
        what = str(self._what.file) if isinstance(self._what, Wheel) else self.target
        return self._home.command("deploy", what, "--reason", self._why or "TEXT")

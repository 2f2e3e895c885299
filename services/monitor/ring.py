"""Who watches the watcher: each kind of daemon watches the next, and the launcher the sweeps themselves.

launcher > agent_runner > slack_mirror > warden > projector > launcher; a kind that a fleet does not have is left out, and the
one before it watches the one after. What is found is a finding like any other, opened and closed under its fence, so that
several watchers of one kind say it once. Not noticed from inside: that all of them are gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from datetime import datetime
from pathlib import Path

import msgspec
import structlog

from bus import errors
from bus.events import daemon as daemons
from bus.events import finding as ev
from bus.events.card import End, Opened, Reason
from bus.events.finding import CloseReason, Evidence, Kind, Severity
from bus.events.sweep import Finished
from bus.liveness import BEAT_S, Heartbeat
from bus.store import CONTROL, Recorded
from services.daemon import Bus, control_id
from services.fleet.entries import FILE_KEY, MONITOR_KEY, AppliedFile
from services.fleet.spec import Monitor
from services.health.daemons import STUCK_S
from services.home import Home
from services.monitor.finding import Finding, opened
from services.monitor.ledger import scope

log = structlog.get_logger()

#: Who watches whom.
ORDER = ("launcher", "agent_runner", "slack_mirror", "warden", "projector")
LAUNCHER = "launcher"
#: Who also watches that sweeps come.
SWEEP_WATCHERS = frozenset({LAUNCHER, "slack_mirror"})
#: Seconds between two looks, at most.
LOOK_S = 5.0
#: Seconds without a beat after which a daemon does not count as there.
_SILENT_S = 3.5 * BEAT_S
#: Looks in a row that must find nobody: one that is just being restarted is not silent.
_LOOKS = 2


def watched(kind: str, expected: Collection[str]) -> str:
    """The kind that a kind watches: the next one round the ring that the fleet has; empty for none. Pure."""
    if kind not in ORDER:
        return ""
    place = ORDER.index(kind)
    following = (*ORDER[place + 1 :], *ORDER[:place])
    return next((one for one in following if one in expected), "")


def is_silent(kind: str, beats: Collection[Heartbeat], now: datetime) -> bool:
    """Whether nobody of a kind beats, or whoever does is stuck. Pure."""
    return not any(
        beat.daemon == kind and (now - beat.at).total_seconds() <= _SILENT_S and beat.stuck_s <= STUCK_S
        for beat in beats
    )


def why_silent(kind: str, beats: Collection[Heartbeat], now: datetime) -> str:
    """What is known of a kind that is silent, for people. Pure."""
    stuck = [beat for beat in beats if beat.daemon == kind and (now - beat.at).total_seconds() <= _SILENT_S]
    if not stuck:
        return f"no {kind} beats"
    held = max(stuck, key=lambda beat: beat.stuck_s)
    return f"no {kind} works: it beats, and its event loop has stood still for {held.stuck_s:.0f} s in {held.stuck_in}"


def late_by(last: datetime | None, since: datetime, now: datetime, limits: Monitor) -> float:
    """Seconds by which a sweep is overdue; 0 when it is not. Pure.

    Args:
        last: when the last one finished.
        since: when the watcher began to watch: what was not due in its time it cannot miss.
        now: wall time.
        limits: how often, and how late is late.
    """
    waited = (now - max(since, last or since)).total_seconds()
    return max(0.0, waited - limits.every) if waited > limits.every + limits.grace else 0.0


def launching(home: Home, file: str, pid: int) -> str:
    """What a person runs to have a launcher again. Pure.

    One that hangs holds the home's lock, so it goes first; its children end with it, by their leashes.
    """
    return (f"kill -9 {pid}; " if pid else "") + home.launch(file)


class Ring:
    """One daemon's place in the ring."""

    def __init__(self, bus: Bus, kind: str, instance: str, started_at: datetime, home: Path) -> None:
        self._bus = bus
        self._kind = kind
        self._instance = instance
        self._started_at = started_at
        self._home = Home(home)
        self._silent = 0

    async def run(self) -> None:
        """For ever; a look that the server does not answer is made again."""
        pause = LOOK_S
        while True:
            await asyncio.sleep(pause)
            try:
                limits = await self._limits()
                pause = min(LOOK_S, limits.every / 4)
                await self._watch_neighbour()
                if self._kind in SWEEP_WATCHERS:
                    await self._watch_sweeps(limits)
            except errors.BusError as exc:
                log.warning("ring_unwatched", error=str(exc), again_s=pause)

    async def _limits(self) -> Monitor:
        entry = await self._bus.bucket("registry").get(MONITOR_KEY)
        if entry is None:
            return Monitor()
        try:
            return msgspec.json.decode(entry.value, type=Monitor)
        except msgspec.DecodeError as exc:
            log.error("monitor_settings_unreadable", error=str(exc), action="going by the defaults")
            return Monitor()

    async def _watch_neighbour(self) -> None:
        beats = await self._bus.liveness.all()
        there = {beat.daemon for beat in beats}
        neighbour = watched(self._kind, there)
        if neighbour != watched(self._kind, ORDER):
            # Somebody in between does not beat: the record says whether it should. Asked for only then, because it costs a
            # read for each seat, and most looks find everybody.
            neighbour = watched(self._kind, there | await self._owed())
        if not neighbour:
            return
        if not is_silent(neighbour, beats, self._bus.author.now()):
            self._silent = 0
            await self._over(Kind.DAEMON_SILENT, neighbour)
            await self._heard(neighbour, beats)
            return
        self._silent += 1
        if self._silent >= _LOOKS:
            why = why_silent(neighbour, beats, self._bus.author.now())
            await self.gone(neighbour, why)
            if neighbour == LAUNCHER:
                await self._hand_over(why)

    async def _owed(self) -> set[str]:
        """The kinds that should be there: the last word about one of their seats is not that it was asked to stop."""
        return {kind_of(last) for last in (await self._lasts()).values() if not isinstance(last.data, daemons.Stopped)}

    async def _lasts(self) -> dict[str, Recorded]:
        """The last word about each seat."""
        info = await self._bus.connection.api(f"STREAM.INFO.{CONTROL}", {"subjects_filter": "ctl.daemon.>"})
        seats = sorted({subject.split(".")[2] for subject in info["state"].get("subjects") or {}})
        lasts = await asyncio.gather(*(self._bus.store.last(CONTROL, f"ctl.daemon.{seat}.*") for seat in seats))
        return {
            seat: last for seat, last in zip(seats, lasts, strict=True) if last is not None and last.data is not None
        }

    async def gone(self, kind: str, why: str, command: str = "") -> None:
        """Say that nobody of a kind is there: once, in one sentence."""
        now = self._bus.author.now()
        await self._found(
            Finding(
                kind=Kind.DAEMON_SILENT,
                severity=Severity.ULTRA,
                subject=kind,
                title=why,
                since=now,
                detail=f"said by {self._instance}, its neighbour in the watch ring",
                command=command or "systems status",
                by=self._instance,
            )
        )

    async def _hand_over(self, why: str) -> None:
        """Nobody supervises the daemons of a host any more, and nobody but a person starts a launcher."""
        entry = await self._bus.bucket("registry").get(FILE_KEY)
        file = msgspec.json.decode(entry.value, type=AppliedFile).path if entry is not None else ""
        for seat, last in (await self._lasts()).items():
            if not isinstance(last.data, daemons.Started) or last.data.daemon != LAUNCHER:
                continue
            started = last.data
            card = Opened(
                instance=LAUNCHER,
                host=started.host,
                reason=Reason.SILENT,
                why=f"{why}; nobody restarts what dies there",
                command=launching(self._home, file, started.pid),
                since=self._bus.author.now(),
                pid=started.pid,
                boot_id=started.boot_id,
                by=self._instance,
            )
            await self._bus.cards.hand(seat, card)

    async def _heard(self, kind: str, beats: Collection[Heartbeat]) -> None:
        """What was said to be silent and beats again under the same boot id waits for nobody."""
        for beat in beats if kind == LAUNCHER else ():
            seat = control_id(beat.instance, beat.host)
            if beat.daemon == LAUNCHER and await self._bus.cards.close(
                seat, End.HEARD, beat.boot_id, only=Reason.SILENT
            ):
                log.info("launcher_heard_again", host=beat.host, boot_id=beat.boot_id)

    async def _watch_sweeps(self, limits: Monitor) -> None:
        last = await self._bus.store.last(CONTROL, "ctl.sweep.*.finished")
        at = last.stored_at if last is not None and isinstance(last.data, Finished) else None
        late = late_by(at, self._started_at, self._bus.author.now(), limits)
        if not late:
            await self._over(Kind.SWEEP_LATE, "sweep")
            return
        ended = f"the last one finished at {at:%Y-%m-%d %H:%M:%S} UTC" if at is not None else "there was none yet"
        await self._found(
            Finding(
                kind=Kind.SWEEP_LATE,
                severity=Severity.CONCERN,
                subject="sweep",
                title=f"a sweep is due every {limits.every:g} s, and none has finished in time",
                since=self._bus.author.now(),
                detail=f"{ended}; said by {self._instance}",
                value=round(late, 1),
                evidence=(Evidence(CONTROL, last.seq),) if last is not None else (),
                command="systems sweep",
                by=self._instance,
            )
        )

    # ---- the record

    async def _found(self, found: Finding) -> None:
        last = await self._bus.store.last(CONTROL, scope(found.fingerprint))
        if _is_open(last):
            return
        await self._append(found.fingerprint, opened(found, ""), last)
        log.error("ring_broken", kind=found.kind.value, subject=found.subject, title=found.title)

    async def _over(self, kind: Kind, subject: str) -> None:
        print_ = Finding(
            kind=kind, severity=Severity.CONCERN, subject=subject, title="", since=self._started_at
        ).fingerprint
        last = await self._bus.store.last(CONTROL, scope(print_))
        if not _is_open(last):
            return
        await self._append(print_, ev.Closed(reason=CloseReason.GONE, by=self._instance), last)
        log.info("ring_whole", kind=kind.value, subject=subject)

    async def _append(self, print_: str, event: ev.Opened | ev.Closed, last: Recorded | None) -> None:
        envelope = self._bus.author.control(print_, event)
        try:
            await self._bus.store.append(envelope, expect=last.seq if last is not None else 0, scope=scope(print_))
        except errors.SequenceConflict:
            log.info("finding_overtaken", fingerprint=print_, what=type(event).__name__)


def _is_open(last: Recorded | None) -> bool:
    return last is not None and not isinstance(last.data, ev.Closed)


def kind_of(last: Recorded) -> str:
    """The kind of daemon that a record of ``ctl.daemon.<instance>_<host>.<event>`` is about."""
    instance = last.subject.split(".")[2].rpartition("_")[0]
    head, _, number = instance.rpartition("-")
    return head if head and number.isdigit() else instance

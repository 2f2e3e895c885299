"""The fleet-health panel: what is there, what waits, what failed, and the verdict.

Gathered from the live bus in one go. What could not be seen is named in `unseen` and is never nominal: a panel that shows
green because it could not look is worse than none.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from enum import StrEnum

import msgspec
from nats import errors as driver

from bus import errors, flags, subjects
from bus.events import daemon as daemon_events
from bus.events.finding import Kind, Severity
from bus.liveness import BEAT_S, Heartbeat
from bus.puller import EXPIRES_S
from bus.store import CONTROL, DEAD_LETTERS, INVOCATIONS, Recorded
from services import freezes, roster
from services.config import drift
from services.config.drift import ConfigLine
from services.daemon import Bus, control_id
from services.fleet.registry import Registry
from services.freezes import Freeze
from services.guards import proofs
from services.guards.proofs import GuardLine
from services.launcher.reporter import describe
from services.monitor.status import Status, last_sweep
from services.projector import line as tables
from services.projector.line import TablesLine
from services.quota.lines import QuotaLine
from services.warden import stranded
from services.warden.warden import Facts

#: Seconds without a beat after which a daemon is late.
LATE_S = 2.5 * BEAT_S
#: Seconds for which an exit is shown, and a concern: the launcher counts restarts over the same time.
RECENT_EXIT_S = 300.0
#: Seconds without a message or an answered empty pull after which a beating daemon is deaf: three pulls went unanswered.
DEAF_S = 3 * EXPIRES_S

#: Kinds of finding that the panel judges by itself, by what it sees now.
_SEEN_LIVE = frozenset({
    Kind.BUS_DOWN, Kind.DAEMON_DOWN, Kind.DAEMON_LATE, Kind.DAEMON_DEAF, Kind.DAEMON_ENDED, Kind.NO_RUNNER, Kind.DEAD_LETTERS,
    Kind.FROZEN, Kind.FREEZE_UNANSWERED, Kind.WRITTEN_FROZEN, Kind.REFUSED, Kind.PAUSED, Kind.SPEND_UNVERIFIED, Kind.DRILL_FAILED,
})  # fmt: skip
#: How the unseen part begins that is only on its way.
NEWEST = "the newest"


class State(StrEnum):
    """How a daemon is."""

    STARTING = "starting"
    ALIVE = "alive"
    LATE = "late"
    DEAF = "deaf"
    DOWN = "down"


class Verdict(StrEnum):
    """How the fleet is."""

    NOMINAL = "nominal"
    CONCERN = "concern"
    ULTRA = "ultra"


class DaemonLine(msgspec.Struct, frozen=True, kw_only=True):
    """A daemon, with the evidence for its state."""

    name: str
    state: State
    daemon: str
    host: str = ""
    pid: int = 0
    boot_id: str = ""
    version: str = ""
    #: Revision of the settings that it runs with; 0 for none.
    config_revision: int = 0
    #: Seconds since its last beat, since it last handled a message, since an empty pull was answered; None for never.
    beat_age_s: float | None = None
    message_age_s: float | None = None
    empty_age_s: float | None = None
    in_flight: int = 0
    handled: int = 0
    loop_lag_s: float = 0.0
    #: When its process last ended by itself or was killed, if that was lately, and how.
    exited_at: datetime | None = None
    exit_status: int = 0
    #: What a person has to know or do.
    note: str = ""


class RoleLine(msgspec.Struct, frozen=True, kw_only=True):
    """A role's work."""

    role: str
    #: Waits to be handed out.
    backlog: int = 0
    #: Handed out and not finished: running, or waiting for a retry.
    in_flight: int = 0
    #: Pull requests open at the server; 0 means that nobody asks for this role's work, None that nobody can tell.
    waiting_pulls: int | None = 0
    completed: int = 0
    failed: int = 0


class ErrorLine(msgspec.Struct, frozen=True, kw_only=True):
    """One of the last failures."""

    at: datetime
    role: str
    invocation: str
    kind: str
    message: str


class TripLine(msgspec.Struct, frozen=True, kw_only=True):
    """A standing refusal."""

    key: str
    scope: str
    sentence: str


class Panel(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that `systems status` shows."""

    at: datetime
    verdict: Verdict
    #: Why it is not nominal, the worst first.
    reasons: tuple[str, ...]
    daemons: tuple[DaemonLine, ...]
    roles: tuple[RoleLine, ...]
    dead_letters: int
    oldest_in_flight_s: float | None
    oldest_in_flight: str
    last_errors: tuple[ErrorLine, ...]
    kill_switch: Freeze
    guards: tuple[GuardLine, ...]
    #: Guards that have tripped and stay so.
    trips: tuple[TripLine, ...] = ()
    #: Spend caps; None when there are none, or nobody can tell.
    quota: tuple[QuotaLine, ...] | None = None
    #: The projector's tables; None when nobody can tell, or there is none.
    tables: TablesLine | None = None
    #: The last sweep of the monitor, the next one, and what is open; None when it was not asked.
    monitor: Status | None = None
    #: The settings in effect, and where they differ from the fleet file and from what daemons run with.
    config: ConfigLine | None = None
    #: What could not be looked at, and why.
    unseen: tuple[str, ...] = ()
    #: Of a past moment: what no log can tell of it. Neither good nor bad.
    unrecorded: tuple[str, ...] = ()

    @property
    def waits(self) -> tuple[str, ...]:
        """What waits for a person, each with what that person runs."""
        said: list[str] = [
            f"{line.name}: {line.note}" for line in self.daemons if line.state is State.DOWN and line.note
        ]
        if self.dead_letters:
            said.append(f"{self.dead_letters:,} dead letter{'s' if self.dead_letters > 1 else ''}: systems dlq ls")
        if self.kill_switch.mode is flags.Mode.HARD:
            said.append("a hard freeze: systems thaw --hard")
        said += [f"a stopped run tree: systems loop clear {t.key[5:]}" for t in self.trips if t.key.startswith("tree.")]
        for found in self.monitor.findings if self.monitor is not None else ():
            said += [f"{found.fingerprint}: {proposal}" for proposal in found.proposals]
            if found.kind == Kind.RAISED and not found.silenced_by:
                said.append(f"{found.title}: systems findings close {found.fingerprint} --reason TEXT")
        return tuple(said)


def state_of(beat: Heartbeat, now: datetime) -> State:
    """A daemon's state by its heartbeat's evidence."""
    if (now - beat.at).total_seconds() > LATE_S:
        return State.LATE
    seen = [at for at in (beat.last_message_at, beat.last_empty_at) if at is not None]
    if beat.daemon == "launcher":
        return State.ALIVE
    if not seen:
        return State.STARTING if (now - beat.started_at).total_seconds() < DEAF_S else State.DEAF
    return State.DEAF if (now - max(seen)).total_seconds() > DEAF_S else State.ALIVE


def line_of(beat: Heartbeat, now: datetime) -> DaemonLine:
    """A heartbeat as a line of the panel."""

    def age(at: datetime | None) -> float | None:
        return None if at is None else round(max(0.0, (now - at).total_seconds()), 3)

    state = state_of(beat, now)
    return DaemonLine(
        name=beat.instance,
        state=state,
        daemon=beat.daemon,
        host=beat.host,
        pid=beat.pid,
        boot_id=beat.boot_id,
        version=beat.version,
        config_revision=beat.config_revision,
        beat_age_s=age(beat.at),
        message_age_s=age(beat.last_message_at),
        empty_age_s=age(beat.last_empty_at),
        in_flight=beat.in_flight,
        handled=beat.handled,
        loop_lag_s=beat.loop_lag_s,
        note="draining" if beat.draining else "",
    )


def judge(panel: Panel) -> tuple[Verdict, tuple[str, ...]]:
    """The verdict and its reasons, the worst first. Pure."""
    ultra: list[str] = []
    concern: list[str] = []
    runners = [d for d in panel.daemons if d.daemon == "agent_runner" and d.state in (State.ALIVE, State.STARTING)]
    backlog = sum(role.backlog for role in panel.roles)
    if not runners:
        (ultra if backlog else concern).append(f"no agent_runner is alive; {backlog:,} invocations wait")
    for line in panel.daemons:
        if line.state is State.DOWN and line.note:
            ultra.append(f"{line.name} is down: {line.note}")
        elif line.state not in (State.ALIVE, State.STARTING):
            concern.append(f"{line.name} is {line.state}" + (f": {line.note}" if line.note else ""))
    concern += [
        f"{line.name} ended {(panel.at - line.exited_at).total_seconds():.0f} s ago ({describe(line.exit_status)}) and was restarted"
        for line in panel.daemons
        if line.exited_at is not None and line.state is not State.DOWN
    ]
    if panel.daemons and all(line.state is State.LATE for line in panel.daemons):
        ultra.append(
            "no heartbeat of any daemon was stored lately: the server may have no room left; see logs/nats-server.log"
        )
    if panel.dead_letters:
        letters = "dead letter waits" if panel.dead_letters == 1 else "dead letters wait"
        concern.append(f"{panel.dead_letters:,} {letters} for a person: systems dlq ls")
    _judge_freeze(panel, ultra, concern)
    concern += [
        f"{line.scope}: spend of this {line.window} cannot be verified ({line.problem}); its work waits"
        for line in panel.quota or ()
        if line.problem
    ]
    concern += [trip.sentence for trip in panel.trips]
    concern += [
        f"the last drill of the {guard.name} failed: {guard.proof.got}"
        for guard in panel.guards
        if guard.proof is not None and not guard.proof.passed
    ]
    if panel.tables is not None and panel.tables.concern:
        concern.append(panel.tables.concern)
    _judge_findings(panel, ultra, concern)
    concern += _config_concerns(panel.config)
    concern += [f"not seen: {what}" for what in panel.unseen]
    verdict = Verdict.ULTRA if ultra else Verdict.CONCERN if concern else Verdict.NOMINAL
    return verdict, tuple(ultra + concern)


def _judge_findings(panel: Panel, ultra: list[str], concern: list[str]) -> None:
    """What only a sweep can see; the rest is judged above by what is seen now."""
    tabled = any(line.daemon == "projector" for line in panel.daemons)
    for found in panel.monitor.findings if panel.monitor is not None else ():
        if found.cause or found.silenced_by or found.kind in _SEEN_LIVE or (found.kind == Kind.UNSEEN and not tabled):
            continue
        said = found.title + (f": {found.command}" if found.command else "")
        (ultra if found.severity == Severity.ULTRA else concern).append(said)


def _config_concerns(config: ConfigLine | None) -> list[str]:
    if config is None:
        return []
    found = [
        f"{one.key} at revision {one.revision} is refused: {one.sentence}; {_kept(one.kept)}" for one in config.refused
    ]
    if config.file_fault:
        found.append(
            f"the fleet file cannot be used, the last good one is in effect: {' | '.join(config.file_fault.splitlines())}"
        )
    return found + [f"{name} has not taken up revision {config.revision}" for name in config.behind]


def _kept(revision: int) -> str:
    return f"revision {revision} is in effect" if revision else "nothing is in effect in its place"


def _judge_freeze(panel: Panel, ultra: list[str], concern: list[str]) -> None:
    switch = panel.kill_switch
    if switch.overdue:
        ultra.append(
            f"no receipt of the freeze from {', '.join(switch.overdue)}: nobody can say that they have stopped"
        )
    if switch.writes:
        ultra.append(f"{switch.writes:,} events were stored after the freeze: see what wrote them with `systems tail`")
    if switch.mode is not flags.Mode.CLEAR or switch.thawing:
        said = switch.reason or switch.text
        concern.append(
            f"the kill switch: {switch.told}"
            + (f" ({switch.by}: {said})" if switch.by else f" ({said})" if said else "")
        )
    if switch.problem:
        concern.append(switch.problem)


async def gather(bus: Bus, registry: Registry, *, findings: bool = True) -> Panel:
    """Look at everything; without `findings` the monitor is not asked, because it is the one that looks.

    Raises:
        BusUnreachable: there is no server to ask.
    """
    now = datetime.now(UTC)
    unseen: list[str] = []
    beats, facts, dead, switch = await asyncio.gather(
        bus.liveness.all(), _facts(bus, unseen), _dead_letters(bus), freezes.read(bus)
    )
    roles = await asyncio.gather(*(_role(bus, project, name, facts) for project, name in registry.roles))
    daemons = await _daemons(bus, beats, now)
    oldest = facts.running[0] if facts is not None and facts.running else None
    panel = Panel(
        at=now,
        verdict=Verdict.NOMINAL,
        reasons=(),
        daemons=tuple(daemons),
        roles=tuple(roles),
        dead_letters=dead,
        oldest_in_flight_s=oldest.age_s if oldest else None,
        oldest_in_flight=oldest.invocation if oldest else "",
        last_errors=_errors(facts),
        kill_switch=switch,
        quota=await _quota(bus, unseen),
        tables=await tables.look(bus, beats, now, unseen),
        trips=tuple(
            TripLine(key=key, scope=trip.scope, sentence=trip.sentence)
            for key, trip in sorted((await bus.trips.all()).items())
        ),
        guards=await proofs.look(
            bus,
            armed=facts is not None and facts.lag == 0,
            trips=facts.trips if facts is not None else None,
        ),
        monitor=await _monitor(bus, unseen) if findings else None,
        config=await drift.line(bus, registry, beats),
        unseen=tuple(unseen),
    )
    verdict, reasons = judge(panel)
    return msgspec.structs.replace(panel, verdict=verdict, reasons=reasons)


async def _warden(bus: Bus, subject: str, what: str, unseen: list[str]) -> bytes | None:
    """The warden's answer; None, and a word about what is not seen, when there is none."""
    try:
        return (await bus.connection.nc.request(subject, b"", timeout=2)).data
    except (driver.NoRespondersError, driver.TimeoutError) as exc:
        unseen.append(f"{what} (the warden does not answer: {type(exc).__name__})")
        return None


async def _facts(bus: Bus, unseen: list[str]) -> Facts | None:
    answer = await _warden(bus, "fleet.status", "claims in flight and last errors", unseen)
    if answer is None:
        return None
    facts = msgspec.json.decode(answer, type=Facts)
    if facts.lag > 0:
        unseen.append(f"{NEWEST} {facts.lag:,} events (the warden is still reading the log)")
    return facts


async def _quota(bus: Bus, unseen: list[str]) -> tuple[QuotaLine, ...] | None:
    answer = await _warden(bus, "quota.status", "spend caps", unseen)
    return None if answer is None else msgspec.json.decode(answer, type=tuple[QuotaLine, ...]) or None


async def _monitor(bus: Bus, unseen: list[str]) -> Status:
    answer = await _warden(bus, "monitor.status", "findings", unseen)
    if answer is None:
        return Status(last=await last_sweep(bus), next_at=None, findings=())
    return msgspec.json.decode(answer, type=Status)


async def _dead_letters(bus: Bus) -> int:
    info = await bus.connection.api(f"STREAM.INFO.{DEAD_LETTERS}")
    return int(info["state"]["messages"])


async def _role(bus: Bus, project: str, name: str, facts: Facts | None) -> RoleLine:
    consumer: stranded.Consumer | None = None
    try:
        info = await bus.connection.api(f"CONSUMER.INFO.{INVOCATIONS}.{subjects.role_consumer(project, name)}")
        consumer = stranded.read(info)
    except errors.ServerError:
        # Registered, and its consumer not made yet: nothing waits on what does not exist.
        consumer = None
    path = f"{project}/{name}"
    events = next((r.events for r in facts.roles if r.role == path), {}) if facts is not None else {}
    return RoleLine(
        role=path,
        backlog=consumer.pending if consumer else 0,
        in_flight=consumer.ack_pending if consumer else 0,
        waiting_pulls=consumer.waiting if consumer else 0,
        completed=events.get("completed", 0),
        failed=events.get("failed", 0),
    )


async def _daemons(bus: Bus, beats: list[Heartbeat], now: datetime) -> list[DaemonLine]:
    """Those that beat, and those that should: their last word in CONTROL was not that they were asked to stop."""
    newest: dict[str, Heartbeat] = {}
    for beat in sorted(beats, key=lambda b: b.started_at):
        newest[control_id(beat.instance, beat.host)] = beat
    exits = await asyncio.gather(*(bus.store.last(CONTROL, f"ctl.daemon.{seat}.exited") for seat in newest))
    lines = [with_exit(line_of(beat, now), exited, now) for beat, exited in zip(newest.values(), exits, strict=True)]
    lines += [missing(seat, last) for seat, last in (await roster.silent(bus, beats)).items()]
    return sorted(lines, key=lambda line: (line.daemon != "launcher", line.name))


def with_exit(line: DaemonLine, exited: Recorded | None, now: datetime) -> DaemonLine:
    """The line with the last exit of its seat, if that was lately."""
    if exited is None or exited.data is None or (now - exited.stored_at).total_seconds() > RECENT_EXIT_S:
        return line
    return msgspec.structs.replace(line, exited_at=exited.stored_at, exit_status=exited.data.status)


def missing(seat: str, last: daemon_events.DaemonEvent) -> DaemonLine:
    """The line of a daemon that does not beat, by its last event. Pure."""
    name = seat.rpartition("_")[0]
    kind = name.rpartition("-")[0] or name
    match last:
        case daemon_events.GaveUp():
            note = f"restarted too often ({last.exits} exits in {last.period_s:g} s); run: {last.command}"
            return DaemonLine(name=name, state=State.DOWN, daemon=kind, host=last.host, note=note)
        case daemon_events.Exited():
            return DaemonLine(name=name, state=State.DOWN, daemon=kind, host=last.host, pid=last.pid)
        case daemon_events.Started():
            return DaemonLine(
                name=name, state=State.DOWN, daemon=kind, host=last.host, pid=last.pid, boot_id=last.boot_id
            )
        case daemon_events.Stopped():
            return DaemonLine(name=name, state=State.DOWN, daemon=kind)


def _errors(facts: Facts | None) -> tuple[ErrorLine, ...]:
    if facts is None:
        return ()
    return tuple(
        ErrorLine(at=e.at, role=e.role, invocation=e.invocation, kind=e.kind, message=e.message)
        for e in facts.last_errors[:5]
    )

"""Looks at the live bus in one go, and puts the panel together."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import msgspec
from nats import errors as driver

from bus import errors, subjects
from bus.liveness import Heartbeat
from bus.store import CONTROL, DEAD_LETTERS, INVOCATIONS
from services import freezes, roster
from services.config import drift
from services.daemon import Bus, control_id
from services.fleet.registry import Registry
from services.fleet.spec import SANDBOX
from services.guards import proofs
from services.health.daemons import DaemonLine, line_of, missing, with_exit
from services.health.panel import ErrorLine, Panel, RoleLine, TripLine, Verdict
from services.health.verdict import judge
from services.incident import line as incidents
from services.monitor.status import Status, last_sweep
from services.projector import line as tables
from services.quota.lines import QuotaLine
from services.warden import stranded
from services.warden.facts import Facts

#: How the unseen part begins that is only on its way.
NEWEST = "the newest"


async def gather(bus: Bus, registry: Registry, *, findings: bool = True) -> Panel:
    """Look at everything; without `findings` the monitor is not asked, because it is the one that looks.

    Raises:
        BusUnreachable: there is no server to ask.
    """
    now = datetime.now(UTC)
    unseen: list[str] = []
    # Together: one that does not answer is waited for once, not once for each question.
    (beats, facts, dead, switch, cards), (quota, trips, monitor, open_incidents) = await asyncio.gather(
        asyncio.gather(
            bus.liveness.all(), _facts(bus, unseen), _dead_letters(bus), freezes.read(bus), bus.cards.waiting()
        ),
        asyncio.gather(
            _quota(bus, unseen),
            bus.trips.all(),
            _monitor(bus, unseen) if findings else _nothing(),
            incidents.look(bus, now) if findings else _nothing(),
        ),
    )
    roles, daemons, tabled, guards, config = await asyncio.gather(
        asyncio.gather(*(_role(bus, project, name, facts) for project, name in registry.roles)),
        _daemons(bus, beats, now),
        tables.look(bus, beats, now, unseen),
        proofs.look(bus, armed=facts is not None and facts.lag == 0, trips=facts.trips if facts is not None else None),
        drift.line(bus, registry, beats),
    )
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
        quota=quota,
        tables=tabled,
        trips=tuple(TripLine(key=key, scope=trip.scope, sentence=trip.sentence) for key, trip in sorted(trips.items())),
        guards=guards,
        monitor=monitor,
        incidents=open_incidents or (),
        config=config,
        cards=cards,
        unseen=tuple(sorted(unseen)),
    )
    verdict, reasons = judge(panel)
    return msgspec.structs.replace(panel, verdict=verdict, reasons=reasons)


async def _nothing() -> None:
    """What nobody asks for."""


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
    lines = {seat: line_of(beat, now) for seat, beat in newest.items()}
    lines |= {seat: missing(seat, last) for seat, last in (await roster.silent(bus, beats)).items()}
    exits = await asyncio.gather(*(bus.store.last(CONTROL, f"ctl.daemon.{seat}.exited") for seat in lines))
    return sorted(
        (with_exit(line, exited, now) for line, exited in zip(lines.values(), exits, strict=True)),
        key=lambda line: (line.daemon != "launcher", line.name),
    )


def _errors(facts: Facts | None) -> tuple[ErrorLine, ...]:
    if facts is None:
        return ()
    return tuple(
        ErrorLine(at=e.at, role=e.role, invocation=e.invocation, kind=e.kind, message=e.message)
        for e in [e for e in facts.last_errors if not e.role.startswith(f"{SANDBOX}/")][:5]
    )

"""The fleet-health panel of a past moment: from tables folded up to it, by the same judge and in the same words as live.

Daemons, roles, dead letters and errors come from the tables; the freeze, standing trips, guards and spend from the events
themselves, by the folds that the warden decides with. What was never written down (heartbeats, open pull requests) is named
and not made up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import msgspec

from bus import trips
from bus.bucket import Entry
from bus.events import daemon as daemon_events
from bus.events import freeze as freeze_events
from bus.events import guard as guard_events
from bus.events import loop as loop_events
from bus.events import quota as quota_events
from bus.events import registry as registry_events
from bus.flags import Mode
from bus.refusal import Refusal
from bus.server import EmbeddedServer
from bus.spend import Calendar, Key, scope_text
from bus.store import CONTROL, INVOCATIONS, Recorded, read
from projections.past import Past
from services import cards, freezes
from services.fleet.registry import Registry
from services.freezes import Freeze
from services.guards import pauses, proofs
from services.guards.proofs import GuardLine
from services.health.daemons import DaemonLine, State, missing, with_exit
from services.health.panel import ErrorLine, Panel, RoleLine, TripLine, Verdict
from services.health.verdict import judge
from services.incident import line as incidents
from services.loop import breaker as loops
from services.loop.tree import Trip as TreeTrip
from services.quota import breaker, caps, lines, prices
from services.quota.breaker import Why
from services.quota.lines import QuotaLine
from services.quota.spend import BURN_MINUTES, Spend

#: What the log does not hold of any moment.
UNRECORDED = (
    "heartbeats (whether a daemon that had started was late, deaf, or gone without a word)",
    "open pull requests (who was asking for a role's work); what was handed out and not claimed yet counts as backlog",
)
_ENDS = ("claimed", "completed", "failed", "swept", "released", "cancelled", "dead_lettered")


def panel(then: Past) -> Panel:
    """Everything that `systems status` shows of a moment, as far as it was written down."""
    registry = _registry(then)
    standing = _standing(then)
    daemons = _daemons(then)
    alive = {line.boot_id: line.name for line in daemons if line.state is State.ALIVE and line.boot_id}
    warden = any(line.daemon == "warden" and line.state is State.ALIVE for line in daemons)
    oldest = _row(
        then,
        "SELECT id, last_claimed_at FROM hot.invocations WHERE state = 'running' ORDER BY last_claimed_at, claimed_seq LIMIT 1",
    )
    switch = _switch(then, alive, armed=warden)
    view = Panel(
        at=then.at,
        verdict=Verdict.NOMINAL,
        reasons=(),
        daemons=tuple(daemons),
        roles=tuple(_roles(then, registry)),
        dead_letters=_row(then, "SELECT count(*) FROM hot.invocations WHERE state = 'dead_lettered'")[0],
        oldest_in_flight_s=(then.at - _utc(oldest[1])).total_seconds() if oldest else None,
        oldest_in_flight=oldest[0] if oldest else "",
        last_errors=tuple(_errors(then)),
        kill_switch=switch,
        guards=tuple(_guards(then, armed=warden)),
        trips=tuple(
            TripLine(key=key, scope=refusal.scope, sentence=refusal.sentence)
            for key, refusal in sorted(standing.items())
        ),
        quota=_quota(then, registry, standing),
        incidents=incidents.lines(records(then, "noun = 'incident'"), then.at),
        cards=tuple(card for card in cards.fold(records(then, "noun = 'card'")) if card.closed_at is None),
        unrecorded=UNRECORDED,
    )
    verdict, reasons = judge(view)
    return msgspec.structs.replace(view, verdict=verdict, reasons=reasons)


def records(then: Past, where: str, parameters: Sequence[Any] = (), *, order: str = "seq") -> Iterator[Recorded]:
    """Events of the log at that moment, as everybody else reads them. `where` is SQL over the log's columns."""
    cursor = then.connection.cursor()
    try:
        cursor.execute(
            f"SELECT seq, subject, stored_at, raw FROM hot.log WHERE problem IS NULL AND {where} ORDER BY {order}",  # noqa: S608 (our own text)
            list(parameters),
        )
        while rows := cursor.fetchmany(10_000):
            for seq, subject, stored_at, raw in rows:
                yield read(seq, subject, _utc(stored_at), raw)
    finally:
        cursor.close()


def _row(then: Past, sql: str) -> Any:
    return then.connection.execute(sql).fetchone()


def _utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC)


def _last(then: Past, where: str, parameters: Sequence[Any] = ()) -> Recorded | None:
    return next(records(then, where, parameters, order="seq DESC LIMIT 1"), None)


def _registry(then: Past) -> Registry:
    """What was registered, by the journal of its changes."""
    newest: dict[str, Entry] = {}
    for record in records(then, "noun = 'registry'"):
        match record.data:
            case registry_events.Changed(key=key, value=value, revision=revision):
                newest[key] = Entry(key=key, value=bytes(value), revision=revision, created=record.stored_at)
            case registry_events.Removed(key=key):
                newest.pop(key, None)
            case _:
                pass
    return Registry(entries=newest.values())


def _daemons(then: Past) -> list[DaemonLine]:
    """Each seat by its last event, as the live panel knows those that do not beat."""
    lasts: dict[str, Recorded] = {}
    exits: dict[str, Recorded] = {}
    for record in records(then, "noun = 'daemon'"):
        seat = record.subject.split(".")[2]
        lasts[seat] = record
        if isinstance(record.data, daemon_events.Exited):
            exits[seat] = record
    found: list[DaemonLine] = []
    for seat, record in sorted(lasts.items()):
        match record.data:
            case daemon_events.Stopped():
                continue
            case daemon_events.Started(daemon=EmbeddedServer.name):
                continue
            case daemon_events.Started() as data:
                line = DaemonLine(
                    name=seat.rpartition("_")[0],
                    state=State.ALIVE,
                    daemon=data.daemon,
                    host=data.host,
                    pid=data.pid,
                    boot_id=data.boot_id,
                    version=data.version,
                )
            case data:
                line = missing(seat, data)
        found.append(with_exit(line, exits.get(seat), then.at))
    return sorted(found, key=lambda line: (line.daemon != "launcher", line.name))


def _roles(then: Past, registry: Registry) -> Iterator[RoleLine]:
    work = {
        f"{project}/{role}": (queued, flight)
        for project, role, queued, flight in then.connection.execute(
            "SELECT project, role, count(*) FILTER (state = 'queued'), count(*) FILTER (state IN ('running', 'waiting')) "
            "FROM hot.invocations GROUP BY ALL"
        ).fetchall()
    }
    ends = {
        f"{project}/{role}": (completed, failed)
        for project, role, completed, failed in then.connection.execute(
            "SELECT project, role, count(*) FILTER (event = 'completed'), count(*) FILTER (event = 'failed') "
            "FROM hot.log WHERE noun = 'invocation' AND event IN ('completed', 'failed') GROUP BY ALL"
        ).fetchall()
    }
    for registered in registry.roles.values():
        queued, flight = work.get(registered.path, (0, 0))
        completed, failed = ends.get(registered.path, (0, 0))
        yield RoleLine(
            role=registered.path,
            backlog=queued,
            in_flight=flight,
            waiting_pulls=None,
            completed=completed,
            failed=failed,
        )


def _errors(then: Past) -> Iterator[ErrorLine]:
    rows = then.connection.execute(
        "SELECT stored_at, project, role, key, error_kind, error_message FROM hot.log "
        "WHERE noun = 'invocation' AND event = 'failed' ORDER BY seq DESC LIMIT 5"
    ).fetchall()
    for at, project, role, id_, kind, message in rows:
        yield ErrorLine(at=_utc(at), role=f"{project}/{role}", invocation=id_, kind=kind, message=message)


def _switch(then: Past, alive: dict[str, str], *, armed: bool) -> Freeze:
    """The kill switch, by the record of the last freeze: the flag itself is no event."""
    clear = Freeze(mode=Mode.CLEAR, armed=armed)
    found = list(records(then, "noun = 'freeze'"))
    newest = freezes.newest_of(record.subject.split(".")[2] for record in found)
    mine = [record for record in found if record.subject.split(".")[2] == newest]
    base = clear
    for record in mine:
        match record.data:
            case freeze_events.Frozen() as data:
                base = Freeze(
                    mode=Mode(data.mode),
                    armed=armed,
                    id=newest,
                    since=record.stored_at,
                    until=data.until,
                    reason=data.reason,
                    by=data.by,
                )
            case freeze_events.Changed(mode=mode):
                base = msgspec.structs.replace(base, mode=Mode(mode))
            case freeze_events.Thawing(reason=reason, by=by):
                base = msgspec.structs.replace(clear, thawing=True, reason=reason, by=by)
            case freeze_events.Thawed():
                base = msgspec.structs.replace(clear, reason=base.reason if base.thawing else "", by=base.by)
            case _:
                pass
    if base.mode is Mode.CLEAR:
        return base
    last = _row(then, f"SELECT max(seq) FROM hot.log WHERE stream = '{INVOCATIONS}'")[0] or 0  # noqa: S608 (our own text)
    return freezes.told(base, mine, alive, held=True, last_seq=last)


def _standing(then: Past) -> dict[str, Refusal]:
    """Every trip that stood, in the words that it was refused with."""
    found: dict[str, Refusal] = {}
    for record in records(then, "noun IN ('quota', 'loop', 'guard')"):
        id_ = record.subject.split(".")[2]
        match record.data:
            case quota_events.Tripped() as data:
                found[caps.trip_key(data.key)] = _capped(data, record.stored_at)
            case quota_events.Reset(key=key):
                found.pop(caps.trip_key(key), None)
            case loop_events.Tripped() as data:
                found[trips.tree_key(id_)] = loops.refusal(id_, _tree(data, record))
            case loop_events.Cleared():
                found.pop(trips.tree_key(id_), None)
            case guard_events.Paused() as data:
                source, actor = (record.event.source, record.event.actor) if record.event is not None else ("", "")
                found[_pause_key(data.role)] = pauses.of_event(data, source, actor, record.stored_at)
            case guard_events.Resumed(role=role):
                found.pop(_pause_key(role), None)
            case _:
                pass
    return {key: refusal for key, refusal in found.items() if refusal.stands(then.at)}


def _capped(data: quota_events.Tripped, since: datetime) -> Refusal:
    key = Key.parse(data.key)
    line = breaker.Line(
        key=data.key,
        scope=scope_text(key.scope),
        unit=key.unit,
        window="tree" if data.until is None else key.window.partition("_")[0],
        cap=data.cap,
        used=data.used,
        held=data.held,
        until=data.until,
    )
    why = Why.FULL if data.used >= data.cap else Why.NO_ROOM
    return breaker.refusal(breaker.Trip(line=line, why=why, needed=data.needed, role=data.role), since)


def _tree(data: loop_events.Tripped, record: Recorded) -> TreeTrip:
    return TreeTrip(
        reason=data.reason,
        count=data.count,
        limit=data.limit,
        role=data.role,
        invocation=data.invocation,
        seq=record.seq,
        at=record.stored_at,
        tokens=data.tokens,
        usd_micros=data.usd_micros,
        descendants=data.descendants,
    )


def _pause_key(role: str) -> str:
    project, _, name = role.partition("/")
    return trips.pause_key(project, name)


def _guards(then: Past, *, armed: bool) -> Iterator[GuardLine]:
    newest = freezes.newest_of(
        key for (key,) in then.connection.execute("SELECT DISTINCT key FROM hot.log WHERE noun = 'freeze'").fetchall()
    )
    for guard in proofs.GUARDS:
        noun, event = guard.filter.split(".")[1], guard.filter.rpartition(".")[2]
        where, parameters = "stream = ? AND noun = ? AND event = ?", [guard.stream, noun, event]
        if guard.stream == INVOCATIONS:
            parameters[1] = "invocation"
        if noun == "freeze":
            # Drills throw a switch of their own.
            where, parameters = f"{where} AND key = ?", [*parameters, newest]
        last = _last(then, where, parameters)
        drilled = _last(then, "stream = ? AND noun = 'drill' AND key = ?", [CONTROL, guard.drill])
        yield proofs.line(guard, proofs.trip_of(last), drilled, armed=armed)


def _quota(then: Past, registry: Registry, standing: dict[str, Refusal]) -> tuple[QuotaLine, ...] | None:
    """Every cap in the window of that moment."""
    covers = caps.all_covers(registry, then.at)
    if not covers:
        return None
    calendar = Calendar(registry.quota.time_zone)
    spend = _spend(then, registry, calendar, [cover.window for cover in covers])
    found: list[QuotaLine] = []
    for cover in covers:
        line = lines.line_of(cover, spend, calendar, then.at)
        if line is not None:
            burn = spend.burn(cover.scope, cover.unit, then.at)
            found.append(lines.shown(line, burn, then.at, tripped=caps.trip_key(line.key) in standing))
    return tuple(found) or None


def _spend(then: Past, registry: Registry, calendar: Calendar, windows: Sequence[str]) -> Spend:
    """The fold of spend, over no more of the log than the widest window needs."""
    spend = Spend(calendar.ids, partial(prices.counted, prices=registry.quota.prices))
    starts = [calendar.span(window, then.at).start for window in windows if window != "tree"]
    start = min([*starts, then.at - timedelta(minutes=BURN_MINUTES + 1)]).replace(tzinfo=None)
    # And all of an invocation that was in work when the window began: its claim is older.
    where = (
        "noun = 'invocation' AND list_contains(?, event) AND (stored_at >= ? OR key IN "
        "(SELECT id FROM hot.invocations WHERE first_claimed_at < ? AND since >= ?))"
    )
    for record in records(then, where, [list(_ENDS), start, start, start]):
        spend.take(record)
    return spend

"""What is wrong, rule by rule: what was seen and the thresholds of ``[monitor]`` in, findings out. Pure.

One function for each rule. :data:`RULES` names for each the part of the fleet that it needs to have seen and the kinds that it
can find: where that part is unseen the rule is silent, and what it had found before stays open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import NamedTuple

from bus import flags
from bus.events import finding as ev
from bus.events import message, quota, schedule
from bus.events.finding import Evidence, Kind, Severity
from services.cards import is_urgent
from services.daemon import control_id
from services.fleet.spec import Monitor
from services.health.daemons import DaemonLine, State
from services.launcher.reporter import describe
from services.monitor.finding import Finding
from services.monitor.seen import ConsumerSeen, LettersSeen, Part, Said, Seen

CONCERN, ULTRA = Severity.CONCERN, Severity.ULTRA

#: Seconds within which a daemon that ended is back, at the longest delay of the launcher and a slow start.
BACK_S = 30.0

Findings = Iterator[Finding]


# ---- the server and the machine


def bus_down(seen: Seen, _limits: Monitor) -> Findings:
    """The server's process ended lately: what happened around that time goes back to it."""
    server = seen.server
    if server is None or server.ended_at is None:
        return
    yield Finding(
        kind=Kind.BUS_DOWN,
        severity=CONCERN,
        subject="nats-server",
        title="nats-server ended and was started again",
        since=server.ended_at,
        evidence=(server.ended,) if server.ended is not None else (),
        command="systems tail 'ctl.daemon.>' --since 10m",
    )


def storage(seen: Seen, limits: Monitor) -> Findings:
    """The disk, the server's store, or a stream that is bounded has little room left."""
    server = seen.server
    if server is None:
        return
    left = {"disk": server.disk_left, "store": server.store_left}
    for stream in server.streams:
        # A frozen stream is bounded to one byte: that is the kill switch and no shortage.
        if stream.max_bytes > 1:
            left[stream.name] = 1 - stream.bytes / stream.max_bytes
    for what, part in left.items():
        if part is None or part >= limits.storage_left:
            continue
        yield Finding(
            kind=Kind.STORAGE_LOW,
            severity=ULTRA if part < limits.storage_gone else CONCERN,
            subject=what,
            title=f"{part:.1%} of the room of {what} is left",
            since=seen.at,
            value=round(100 * (1 - part), 1),
            detail="without room the server stores nothing more: no work is accepted, claimed or finished",
            command="df -h",
        )


def memory(seen: Seen, limits: Monitor) -> Findings:
    """The machine has little memory left."""
    left = seen.server.memory_left if seen.server is not None else None
    if left is not None and left < limits.memory_left:
        yield Finding(
            kind=Kind.MEMORY_LOW,
            severity=CONCERN,
            subject=seen.host,
            title=f"{left:.1%} of the memory of {seen.host} is left",
            since=seen.at,
            value=round(100 * (1 - left), 1),
            command="free -m",
        )


def peers(seen: Seen, _limits: Monitor) -> Findings:
    """A copy of a stream is away: one more and nothing is stored."""
    away: dict[str, list[str]] = {}
    for stream in seen.server.streams if seen.server is not None else ():
        for peer in stream.away:
            away.setdefault(peer, []).append(stream.name)
    for peer, streams in sorted(away.items()):
        yield Finding(
            kind=Kind.PEER_LOST,
            severity=CONCERN,
            subject=peer,
            title=f"server {peer} is away: {len(streams)} streams have a copy less",
            since=seen.at,
            value=len(streams),
            detail=", ".join(sorted(streams)),
            command="nats server report jetstream",
        )


def clock(seen: Seen, limits: Monitor) -> Findings:
    """The server's clock and ours differ: ages, windows and due times are wrong by that much."""
    skew = seen.server.skew_s if seen.server is not None else 0.0
    if abs(skew) > limits.clock_skew:
        yield Finding(
            kind=Kind.CLOCK_SKEW,
            severity=CONCERN,
            subject=seen.host,
            title=f"the clock of the server is {abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} that of {seen.host}",
            since=seen.at,
            value=round(abs(skew), 1),
            command="timedatectl",
        )


def certificate(seen: Seen, limits: Monitor) -> Findings:
    """The server's certificate ends soon, or has ended."""
    ends = seen.server.certificate_ends if seen.server is not None else None
    if ends is None or ends - seen.at > timedelta(seconds=limits.certificate):
        return
    over = ends <= seen.at
    yield Finding(
        kind=Kind.CERTIFICATE_ENDS,
        severity=ULTRA if over else CONCERN,
        subject="nats-server",
        title=f"the server's certificate {'ended' if over else 'ends'} at {ends:%Y-%m-%d %H:%M} UTC",
        since=seen.at,
    )


# ---- daemons


def daemons(seen: Seen, limits: Monitor) -> Findings:
    """By evidence of work: gone is down, beating too late is late, beating without any work or answer is deaf."""
    for line in seen.panel.daemons if seen.panel is not None else ():
        subject = f"{line.name}@{line.host}" if line.host else line.name
        shown = seen.daemons.get(control_id(line.name, line.host))
        evidence = (shown.evidence,) if shown is not None else ()
        if line.state is State.DOWN:
            yield _down(line, subject, seen.at, shown)
        elif line.state is State.LATE:
            yield Finding(
                kind=Kind.DAEMON_LATE,
                severity=CONCERN,
                subject=subject,
                title=f"{line.name} is late: its last beat is {line.beat_age_s or 0:.0f} s old",
                since=seen.at - timedelta(seconds=line.beat_age_s or 0),
                evidence=evidence,
                detail=f"pid {line.pid}, {line.in_flight} in hand; it may be stopped, swapped out or very busy",
                command=f"systems restart {line.name}",
            )
        elif line.state is State.DEAF:
            yield _deaf(line, subject, seen.at, evidence)
        elif max(line.loop_lag_s, line.stuck_s) > limits.loop_lag:
            yield Finding(
                kind=Kind.DAEMON_LATE,
                severity=CONCERN,
                subject=subject,
                title=f"{line.name} is slow: its event loop was late by {max(line.loop_lag_s, line.stuck_s):.1f} s"
                + (f" in {line.stuck_in}" if line.stuck_in else ""),
                since=seen.at,
                value=max(line.loop_lag_s, line.stuck_s),
                evidence=evidence,
                detail=f"pid {line.pid}, {line.in_flight} in hand; a handler may block it, or the machine is too busy",
            )
        if line.exited_at is not None and line.state is not State.DOWN:
            yield Finding(
                kind=Kind.DAEMON_ENDED,
                severity=CONCERN,
                subject=subject,
                title=f"{line.name} ended ({describe(line.exit_status)}) and was restarted",
                since=line.exited_at,
                evidence=_exit_and(line, evidence),
                command="systems tail 'ctl.daemon.>' --since 10m",
            )


def _deaf(line: DaemonLine, subject: str, at: datetime, evidence: tuple[Evidence, ...]) -> Finding:
    heard = [age for age in (line.message_age_s, line.empty_age_s) if age is not None]
    if line.stuck_s:
        age_s, what = line.stuck_s, f"its event loop has stood still for {line.stuck_s:.0f} s in {line.stuck_in}"
        why = "what stands there blocks everything else that it does"
    else:
        age_s = min(heard, default=0.0)
        what = f"nothing has reached it for {age_s:.0f} s" if heard else "nothing has ever reached it"
        why = "its consumers or its login may be gone"
    return Finding(
        kind=Kind.DAEMON_DEAF,
        severity=CONCERN,
        subject=subject,
        title=f"{line.name} is deaf: it beats, and {what}",
        since=at - timedelta(seconds=age_s),
        evidence=evidence,
        detail=f"pid {line.pid}, {line.handled} handled since its start; {why}",
        command=f"systems restart {line.name}",
    )


def _down(line: DaemonLine, subject: str, at: datetime, last: Said | None) -> Finding:
    since = last.at if last is not None else at
    # The launcher brings it back within seconds, or says that it has given up.
    lasting = bool(line.note) or (at - since).total_seconds() > BACK_S
    return Finding(
        kind=Kind.DAEMON_DOWN,
        severity=ULTRA if lasting else CONCERN,
        subject=subject,
        title=f"{line.name} is down" + (f": {line.note}" if line.note else ""),
        since=since,
        evidence=_exit_and(line, (last.evidence,) if last is not None else ()),
        command=f"systems start {line.name}",
    )


def _exit_and(line: DaemonLine, last: tuple[Evidence, ...]) -> tuple[Evidence, ...]:
    """What shows that a daemon ended: its exit, which its restart may already have followed as the last word about it."""
    shown = {Evidence("CONTROL", line.exited_seq), *last} if line.exited_seq else last
    return tuple(sorted(shown, key=lambda one: one.seq))


def cards(seen: Seen, _limits: Monitor) -> Findings:
    """A daemon waits for a person: what is said of it elsewhere goes back to that."""
    for card in seen.panel.cards if seen.panel is not None else ():
        yield Finding(
            kind=Kind.PERSON_NEEDED,
            severity=ULTRA if is_urgent(card) else CONCERN,
            subject=f"{card.instance}@{card.host}",
            title=f"{card.sentence}: a person is needed",
            since=card.since,
            evidence=(Evidence("CONTROL", card.seq),),
            detail=f"said by {card.by}" if card.by else "",
            command=card.command,
        )


def no_runner(seen: Seen, _limits: Monitor) -> Findings:
    """Nobody claims work."""
    panel = seen.panel
    if panel is None or seen.settling:
        return
    runners = [line for line in panel.daemons if line.daemon == "agent_runner"]
    if any(line.state in (State.ALIVE, State.STARTING) or _coming_back(seen, line) for line in runners):
        return
    backlog = sum(role.backlog for role in panel.roles)
    yield Finding(
        kind=Kind.NO_RUNNER,
        severity=ULTRA if backlog else CONCERN,
        subject="agent_runner",
        title=f"no agent_runner is alive; {backlog:,} invocations wait",
        since=seen.at,
        value=backlog,
        command="systems start agent_runner-1",
    )


def _coming_back(seen: Seen, line: DaemonLine) -> bool:
    last = seen.daemons.get(control_id(line.name, line.host))
    return (
        line.state is State.DOWN
        and not line.note
        and last is not None
        and (seen.at - last.at).total_seconds() <= BACK_S
    )


# ---- work


def consumers(seen: Seen, limits: Monitor) -> Findings:
    """Each role's consumer: nobody asks, too much waits, what is handed out belongs to nothing, or work is stranded."""
    for role in seen.consumers:
        # A full house asks for no more; only one that holds nothing and asks for nothing has no one in it.
        if role.waiting == 0 and role.ack_pending == 0 and not seen.settling:
            yield _of_role(
                seen,
                role,
                Kind.NO_CONSUMERS,
                f"zero consumers on {role.role}: {role.pending:,} wait and nobody asks for them",
                role.pending,
            )
        if role.pending > limits.backlog:
            yield _of_role(seen, role, Kind.BACKLOG, f"{role.pending:,} invocations of {role.role} wait", role.pending)
        if role.ack_pending and not role.unfinished and Part.WORK not in seen.blind:
            yield _of_role(
                seen,
                role,
                Kind.CONSUMER_STUCK,
                f"{role.ack_pending:,} deliveries of {role.role} are handed out and belong to no unfinished work",
                role.ack_pending,
            )
        if role.stranded:
            yield _of_role(
                seen,
                role,
                Kind.STRANDED,
                f"{len(role.stranded):,} invocations of {role.role} wait for a delivery that will not come",
                len(role.stranded),
                detail=" ".join(role.stranded[:20]),
            )


def _of_role(
    seen: Seen,
    role: ConsumerSeen,
    kind: Kind,
    title: str,
    value: float,
    *,
    detail: str = "",
) -> Finding:
    return Finding(
        kind=kind,
        severity=CONCERN,
        subject=role.role,
        title=title,
        since=seen.at,
        value=value,
        detail=detail,
        command="systems roles",
    )


def claims(seen: Seen, limits: Monitor) -> Findings:
    """A claim is older than its role's timeout and the limit explain."""
    oldest: dict[str, Finding] = {}
    for claim in seen.claims:
        if claim.age_s <= max(limits.claim_age, 1.2 * claim.timeout_s) or claim.role in oldest:
            continue
        oldest[claim.role] = Finding(
            kind=Kind.CLAIM_OLD,
            severity=CONCERN,
            subject=claim.role,
            title=f"a claim of {claim.role} is {claim.age_s / 3600:.1f} h old",
            since=claim.since,
            value=round(claim.age_s / 3600, 2),
            detail=f"invocation {claim.invocation}; its role allows {claim.timeout_s:g} s for an attempt",
            command=f"systems show {claim.invocation}",
        )
    yield from oldest.values()


def dead_letters(seen: Seen, limits: Monitor) -> Findings:
    """Work that was given up on waits for a person: each new one is told, many at once and very old ones are ultra."""
    for letters in seen.letters:
        if not letters.count:
            continue
        age_s = (seen.at - letters.oldest_at).total_seconds() if letters.oldest_at is not None else 0.0
        surge, old = letters.lately >= limits.dead_letter_surge, age_s > limits.dead_letter_age
        of = f" of {letters.role}" if letters.role else ""
        noun, verb = ("dead letter", "waits") if letters.count == 1 else ("dead letters", "wait")
        yield Finding(
            kind=Kind.DEAD_LETTERS,
            severity=ULTRA if surge or old else CONCERN,
            subject=letters.role or "all roles",
            title=f"{letters.count:,} {noun}{of} {verb} for a person",
            since=letters.oldest_at or seen.at,
            value=letters.count,
            detail=_letters_detail(letters, age_s, limits),
            evidence=(Evidence("DEAD_LETTERS", letters.last_seq),) if letters.last_seq else (),
            command="systems dlq ls",
        )


def _letters_detail(letters: LettersSeen, age_s: float, limits: Monitor) -> str:
    return f"{letters.lately:,} came within the last {limits.lately:g} s; the oldest has waited for {age_s:.0f} s"


def errors(seen: Seen, limits: Monitor) -> Findings:
    """An error that was never seen before, or one that comes much more often than usual."""
    for error in seen.errors:
        subject = f"{error.role} {error.fingerprint}"
        evidence = (Evidence("INVOCATIONS", error.last_seq),)
        if (seen.at - error.first_at).total_seconds() <= limits.lately:
            yield Finding(
                kind=Kind.ERROR_NEW,
                severity=CONCERN,
                subject=subject,
                title=f"{error.role} fails in a new way: {error.kind}",
                since=error.first_at,
                value=error.lately,
                detail=error.message,
                evidence=evidence,
                command=f"systems tail 'inv.{error.role.replace('/', '.')}.*.failed' --since 1h",
            )
        elif error.lately >= limits.errors and error.lately >= limits.error_factor * error.usual:
            yield Finding(
                kind=Kind.ERROR_RATE,
                severity=CONCERN,
                subject=subject,
                title=f"{error.role} fails {error.lately:,} times with {error.kind}, usual are {error.usual:.1f}",
                since=seen.at,
                value=error.lately,
                detail=error.message,
                evidence=evidence,
                command=f"systems tail 'inv.{error.role.replace('/', '.')}.*.failed' --since 1h",
            )


# ---- guards


def kill_switch(seen: Seen, _limits: Monitor) -> Findings:
    """The fleet is frozen or thawing; somebody owes a receipt; something was written all the same."""
    if seen.panel is None:
        return
    switch = seen.panel.kill_switch
    since = switch.since or seen.at
    if switch.mode is not flags.Mode.CLEAR or switch.thawing or switch.problem:
        yield Finding(
            kind=Kind.FROZEN,
            severity=CONCERN,
            subject="kill switch",
            title=f"the kill switch: {switch.told}" + (f" ({switch.problem})" if switch.problem else ""),
            since=since,
            detail=f"{switch.by}: {switch.reason or switch.text}" if switch.by else switch.reason or switch.text,
            command="systems thaw --reason TEXT",
        )
    for instance in switch.overdue:
        yield Finding(
            kind=Kind.FREEZE_UNANSWERED,
            severity=ULTRA,
            subject=instance,
            title=f"no receipt of the freeze from {instance}: nobody can say that it has stopped",
            since=since,
        )
    if switch.writes:
        yield Finding(
            kind=Kind.WRITTEN_FROZEN,
            severity=ULTRA,
            subject="INVOCATIONS",
            title=f"{switch.writes:,} events were stored after the freeze",
            since=since,
            value=switch.writes,
            evidence=(Evidence("INVOCATIONS", switch.seq),),
            command=f"systems tail 'inv.>' --since {switch.seq + 1}",
        )


def trips(seen: Seen, _limits: Monitor) -> Findings:
    """A guard has tripped and stands, or a person has paused a role."""
    for trip in seen.panel.trips if seen.panel is not None else ():
        paused = trip.key.startswith("pause.")
        yield Finding(
            kind=Kind.PAUSED if paused else Kind.REFUSED,
            severity=CONCERN,
            subject=trip.scope if paused else trip.key,
            title=trip.sentence,
            since=seen.at,
            command=_ends_trip(trip.key, trip.scope),
        )


def _ends_trip(key: str, scope: str) -> str:
    kind, _, rest = key.partition(".")
    match kind:
        case "pause":
            return f"systems resume {scope}"
        case "tree":
            return f"systems loop clear {rest} --reason TEXT"
        case _:
            return "systems quota"


def spend(seen: Seen, _limits: Monitor) -> Findings:
    """A cap whose numbers cannot be trusted: its work waits."""
    for line in (seen.panel.quota or ()) if seen.panel is not None else ():
        if line.problem:
            yield Finding(
                kind=Kind.SPEND_UNVERIFIED,
                severity=CONCERN,
                subject=line.key,
                title=f"{line.scope}: spend of this {line.window} cannot be verified",
                since=seen.at,
                detail=line.problem,
                command="systems quota",
            )


def counters(seen: Seen, _limits: Monitor) -> Findings:
    """A spend counter did not agree with the log and was corrected."""
    for key, said in _by_id(seen, quota.Repaired).items():
        last = said[-1]
        yield Finding(
            kind=Kind.COUNTER_REPAIRED,
            severity=CONCERN,
            subject=key,
            title=f"the counter {last.data.key} differed from the log and was corrected",
            since=said[0].at,
            value=len(said),
            detail=f"counter {last.data.counter}, log {last.data.log}: {last.data.why}",
            evidence=tuple(one.evidence for one in said[-ev.EVIDENCE_LIMIT :]),
            command="systems quota",
        )


def drills(seen: Seen, limits: Monitor) -> Findings:
    """A guard whose last drill failed, or that nobody has proven for long."""
    born = seen.server.born if seen.server is not None else None
    for guard in seen.panel.guards if seen.panel is not None else ():
        proof = guard.proof
        if proof is not None and not proof.passed:
            yield Finding(
                kind=Kind.DRILL_FAILED,
                severity=ULTRA,
                subject=guard.name,
                title=f"the last drill of the {guard.name} failed",
                since=proof.at,
                detail=proof.got,
                command="systems drill all",
            )
            continue
        proven = proof.at if proof is not None else born
        if proven is not None and (seen.at - proven).total_seconds() > limits.drill_age:
            yield Finding(
                kind=Kind.DRILL_OLD,
                severity=CONCERN,
                subject=guard.name,
                title=f"the {guard.name} was "
                + (f"last proven at {proven:%Y-%m-%d}" if proof is not None else "never proven"),
                since=proven + timedelta(seconds=limits.drill_age),
                command="systems drill all",
            )


# ---- the record, the shape, the tables


def missed(seen: Seen, _limits: Monitor) -> Findings:
    """A due time of a schedule passed without a request, and not because the one before it still ran."""
    late = {
        key: [one for one in said if one.data.reason is schedule.MissReason.TOO_LATE]
        for key, said in _by_id(seen, schedule.Missed).items()
    }
    for key, said in late.items():
        if not said:
            continue
        last = said[-1].data
        yield Finding(
            kind=Kind.SCHEDULE_MISSED,
            severity=CONCERN,
            subject=key,
            title=f"{last.project}/{last.role} was not asked at {len(said):,} due times of {last.schedule}",
            since=said[0].at,
            value=len(said),
            evidence=tuple(one.evidence for one in said[-ev.EVIDENCE_LIMIT :]),
            command="systems tail 'ctl.schedule.>' --since 1h",
        )


def rubbish(seen: Seen, _limits: Monitor) -> Findings:
    """Messages that are no events lie in the log: somebody writes past the rules."""
    said = [one for one in seen.said if isinstance(one.data, message.Rejected)]
    if said:
        yield Finding(
            kind=Kind.RUBBISH,
            severity=CONCERN,
            subject=said[-1].data.stream,
            title=f"{len(said):,} messages in {said[-1].data.stream} are no events",
            since=said[0].at,
            value=len(said),
            detail=f"{said[-1].data.subject}: {said[-1].data.reason}",
            evidence=tuple(Evidence(one.data.stream, one.data.seq) for one in said[-ev.EVIDENCE_LIMIT :]),
            command="systems tail 'ctl.message.>' --since 1h",
        )


def drift(seen: Seen, _limits: Monitor) -> Findings:
    """A stream, a bucket or a consumer is not as declared."""
    for step in seen.steps:
        fields = ", ".join(f"{c.field} {c.before} instead of {c.after}" for c in step.changes)
        yield Finding(
            kind=Kind.DRIFT,
            severity=CONCERN,
            subject=step.name,
            title=f"{step.name} is not as declared"
            if step.action == "update"
            else f"{step.name} is to be {step.action}d",
            since=seen.at,
            value=max(1, len(step.changes)),
            detail=fields if step.action == "update" else "",
            command="systems plan",
        )


def tables(seen: Seen, limits: Monitor) -> Findings:
    """What the tables say is old."""
    if seen.lag_events and seen.lag_s > limits.projection_lag:
        yield Finding(
            kind=Kind.PROJECTION_LATE,
            severity=CONCERN,
            subject="tables",
            title=f"the tables are {seen.lag_events:,} events and {seen.lag_s:.0f} s behind the log",
            since=seen.at - timedelta(seconds=seen.lag_s),
            value=round(seen.lag_s),
        )


def archive(seen: Seen, _limits: Monitor) -> Findings:
    """The archive lacks sequences that it should hold, or cannot be read."""
    for gap in seen.gaps:
        yield Finding(
            kind=Kind.ARCHIVE_GAP,
            severity=ULTRA,
            subject=f"{gap.stream} {gap.first}",
            title=f"the archive of {gap.stream} lacks the sequences {gap.first:,} to {gap.last:,}",
            since=seen.at,
            detail=gap.why,
            evidence=(Evidence(gap.stream, gap.first), Evidence(gap.stream, gap.last)),
        )


# ---- what others say, and what nobody can


def raised(seen: Seen, _limits: Monitor) -> Findings:
    """Somebody on the bus says that something is wrong; said again it is the same finding."""
    for said in seen.raised:
        yield Finding(
            kind=Kind.RAISED,
            severity=said.data.severity,
            subject=f"{said.data.by}: {said.data.title}",
            title=said.data.title,
            since=said.at,
            detail=said.data.detail,
            evidence=(said.evidence, *said.data.evidence)[: ev.EVIDENCE_LIMIT],
            command=f"systems show {said.data.invocation}" if said.data.invocation else "",
            by=said.data.by,
        )


def ping(seen: Seen, _limits: Monitor) -> Findings:
    """The outside dead man's switch could not be called: nobody outside would notice our end."""
    if seen.ping_problem:
        yield Finding(
            kind=Kind.PING_FAILED,
            severity=CONCERN,
            subject="ping_url",
            title="the outside dead man's switch could not be called",
            since=seen.at,
            detail=seen.ping_problem,
        )


def unseen(seen: Seen, _limits: Monitor) -> Findings:
    """A part that could not be looked at: nobody may call it nominal."""
    for part in seen.unseen:
        yield Finding(
            kind=Kind.UNSEEN,
            severity=CONCERN,
            subject=part.part.value,
            title=f"not seen: {part.part.value}",
            since=seen.at,
            detail=part.why,
            command="systems start projector" if part.part in (Part.TABLES, Part.ARCHIVE) else "systems status",
        )


class Rule(NamedTuple):
    """A rule, what it needs to have seen, and what it can find."""

    judge: Callable[[Seen, Monitor], Findings]
    needs: Part | None
    kinds: tuple[Kind, ...]


RULES: tuple[Rule, ...] = (
    Rule(bus_down, Part.SERVER, (Kind.BUS_DOWN,)),
    Rule(storage, Part.SERVER, (Kind.STORAGE_LOW,)),
    Rule(memory, Part.SERVER, (Kind.MEMORY_LOW,)),
    Rule(peers, Part.SERVER, (Kind.PEER_LOST,)),
    Rule(clock, Part.SERVER, (Kind.CLOCK_SKEW,)),
    Rule(certificate, Part.SERVER, (Kind.CERTIFICATE_ENDS,)),
    Rule(daemons, Part.PANEL, (Kind.DAEMON_DOWN, Kind.DAEMON_LATE, Kind.DAEMON_DEAF, Kind.DAEMON_ENDED)),
    Rule(cards, Part.PANEL, (Kind.PERSON_NEEDED,)),
    Rule(no_runner, Part.PANEL, (Kind.NO_RUNNER,)),
    Rule(consumers, Part.PANEL, (Kind.NO_CONSUMERS, Kind.BACKLOG, Kind.CONSUMER_STUCK, Kind.STRANDED)),
    Rule(claims, Part.WORK, (Kind.CLAIM_OLD,)),
    Rule(dead_letters, Part.LETTERS, (Kind.DEAD_LETTERS,)),
    Rule(errors, Part.TABLES, (Kind.ERROR_NEW, Kind.ERROR_RATE)),
    Rule(kill_switch, Part.PANEL, (Kind.FROZEN, Kind.FREEZE_UNANSWERED, Kind.WRITTEN_FROZEN)),
    Rule(trips, Part.PANEL, (Kind.REFUSED, Kind.PAUSED)),
    Rule(spend, Part.PANEL, (Kind.SPEND_UNVERIFIED,)),
    Rule(counters, Part.RECORD, (Kind.COUNTER_REPAIRED,)),
    Rule(drills, Part.PANEL, (Kind.DRILL_FAILED, Kind.DRILL_OLD)),
    Rule(missed, Part.RECORD, (Kind.SCHEDULE_MISSED,)),
    Rule(rubbish, Part.RECORD, (Kind.RUBBISH,)),
    Rule(drift, Part.SHAPE, (Kind.DRIFT,)),
    Rule(tables, Part.TABLES, (Kind.PROJECTION_LATE,)),
    Rule(archive, Part.ARCHIVE, (Kind.ARCHIVE_GAP,)),
    Rule(raised, Part.RECORD, (Kind.RAISED,)),
    Rule(ping, None, (Kind.PING_FAILED,)),
    Rule(unseen, None, ()),
)


def judge(seen: Seen, limits: Monitor) -> list[Finding]:
    """All that is wrong with what was seen."""
    return [found for rule in RULES if rule.needs not in seen.blind for found in rule.judge(seen, limits)]


def hidden(seen: Seen, finding: Finding) -> bool:
    """Whether this look could not have seen a finding that is open."""
    if finding.kind is Kind.UNSEEN:
        return finding.subject in {part.value for part in seen.skipped}
    return any(finding.kind in rule.kinds and rule.needs in seen.blind for rule in RULES)


def _by_id(seen: Seen, kind: type) -> dict[str, list[Said]]:
    found: dict[str, list[Said]] = {}
    for said in seen.said:
        if isinstance(said.data, kind):
            found.setdefault(said.id, []).append(said)
    return found

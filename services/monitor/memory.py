"""What is known of findings from the sweeps before, and what one more sweep makes of it. Pure.

``evolve`` folds the events of one finding; ``compare`` holds a sweep's findings against what is known and says which events
follow. A finding that a sweep could not have seen stays as it is: not having looked is no good news.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime

import msgspec

from bus.events import finding as ev
from bus.events.finding import Change, CloseReason, Kind, Severity, UnsilenceReason
from bus.events.sweep import Counts, Verdict
from services.monitor.finding import Finding, changed, opened, rank

#: How many times larger or smaller a value must be to be told again.
_FACTOR = 2.0
#: Kinds of which each single one more or less is told.
_COUNTED = frozenset({Kind.DEAD_LETTERS})
#: Kinds that others say and end: a sweep neither finds nor closes them.
RING = frozenset({Kind.SWEEP_LATE, Kind.DAEMON_SILENT})
#: What explains what: root -> what it mutes wherever that is.
_EXPLAINS: dict[Kind, frozenset[Kind]] = {
    Kind.BUS_DOWN: frozenset({
        Kind.DAEMON_LATE, Kind.DAEMON_DEAF, Kind.DAEMON_SILENT, Kind.NO_RUNNER, Kind.NO_CONSUMERS, Kind.CONSUMER_STUCK,
        Kind.STRANDED, Kind.BACKLOG, Kind.CLAIM_OLD, Kind.PROJECTION_LATE, Kind.SWEEP_LATE, Kind.SPEND_UNVERIFIED, Kind.UNSEEN,
        Kind.SCHEDULE_MISSED,
    }),
    Kind.STORAGE_LOW: frozenset({Kind.DAEMON_LATE, Kind.DAEMON_SILENT, Kind.PROJECTION_LATE}),
    Kind.FROZEN: frozenset({
        Kind.NO_CONSUMERS, Kind.BACKLOG, Kind.CLAIM_OLD, Kind.CONSUMER_STUCK, Kind.STRANDED, Kind.REFUSED,
    }),
    Kind.NO_RUNNER: frozenset({Kind.NO_CONSUMERS, Kind.BACKLOG, Kind.CLAIM_OLD, Kind.CONSUMER_STUCK}),
}  # fmt: skip
#: What a daemon that is not there explains, by its kind.
_ABSENCE: dict[str, frozenset[Kind]] = {
    "warden": frozenset({Kind.SWEEP_LATE, Kind.SPEND_UNVERIFIED}),
    "agent_runner": frozenset({Kind.NO_RUNNER, Kind.NO_CONSUMERS}),
    "projector": frozenset({Kind.PROJECTION_LATE, Kind.UNSEEN}),
}
_DAEMON_GONE = (Kind.DAEMON_DOWN, Kind.DAEMON_LATE, Kind.DAEMON_DEAF, Kind.DAEMON_ENDED)


class Silence(msgspec.Struct, frozen=True, kw_only=True):
    """A person's word that a finding shall call nobody until then."""

    owner: str
    reason: str
    until: datetime


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """An open finding as the record has it."""

    finding: Finding
    silence: Silence | None = None

    @property
    def speaks(self) -> bool:
        """It may call people: nothing explains it, and nobody has silenced it."""
        return not self.finding.muted and self.silence is None


class Step(msgspec.Struct, frozen=True):
    """One event that follows."""

    fingerprint: str
    event: ev.Opened | ev.Changed | ev.Closed | ev.Silenced | ev.Unsilenced


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a sweep makes of what was known."""

    steps: tuple[Step, ...]
    #: All that is open afterwards, the worst first.
    known: tuple[Known, ...]
    counts: Counts

    @property
    def verdict(self) -> Verdict:
        """The worst of what nobody has silenced. What a root cause explains still counts: muting hides no severity."""
        return verdict(self.known)


def verdict(known: Iterable[Known]) -> Verdict:
    """The worst of what nobody has silenced."""
    worst = max((rank(k.finding.severity) for k in known if k.silence is None), default=-1)
    return (Verdict.NOMINAL, Verdict.CONCERN, Verdict.ULTRA)[worst + 1]


def evolve(known: Known | None, event: object) -> Known | None:
    """What is known of one finding after one more of its events; None: it is not open."""
    match event:
        case ev.Opened():
            found = Finding(
                kind=event.kind,
                severity=event.severity,
                subject=event.subject,
                title=event.title,
                since=event.since,
                detail=event.detail,
                evidence=event.evidence,
                value=event.value,
                command=event.command,
                cause=event.cause,
                by=event.by,
            )
            return Known(finding=found, silence=known.silence if known is not None else None)
        case ev.Closed():
            return None
    if known is None:
        return None
    match event:
        case ev.Changed():
            found = msgspec.structs.replace(
                known.finding,
                severity=event.severity,
                title=event.title,
                detail=event.detail,
                evidence=event.evidence,
                value=event.value,
                command=event.command,
                cause=event.cause,
            )
            return msgspec.structs.replace(known, finding=found)
        case ev.Silenced(owner=owner, reason=reason, until=until):
            return msgspec.structs.replace(known, silence=Silence(owner=owner, reason=reason, until=until))
        case ev.Unsilenced():
            return msgspec.structs.replace(known, silence=None)
        case _:
            return known


def gathered(found: Iterable[Finding]) -> dict[str, Finding]:
    """One finding for each fingerprint: the worst of those that say the same, with the evidence and the start of all."""
    by_print: dict[str, Finding] = {}
    for one in found:
        other = by_print.get(one.fingerprint)
        if other is None:
            by_print[one.fingerprint] = msgspec.structs.replace(one, evidence=one.evidence[: ev.EVIDENCE_LIMIT])
            continue
        worse, milder = (one, other) if _badness(one) > _badness(other) else (other, one)
        evidence = tuple(dict.fromkeys((*worse.evidence, *milder.evidence)))[: ev.EVIDENCE_LIMIT]
        by_print[one.fingerprint] = msgspec.structs.replace(
            worse, evidence=evidence, since=min(one.since, other.since), command=worse.command or milder.command
        )
    return by_print


def muted(found: Iterable[Finding]) -> list[Finding]:
    """The findings, each with the fingerprint of the one that explains it; a root is as bad as the worst that it explains."""
    items = list(found)
    explained = [msgspec.structs.replace(one, cause=_cause(one, items)) for one in items]
    worst: dict[str, Severity] = {}
    for one in explained:
        if one.cause:
            worst[one.cause] = max(worst.get(one.cause, one.severity), one.severity, key=rank)
    return [
        msgspec.structs.replace(one, severity=max(one.severity, worst.get(one.fingerprint, one.severity), key=rank))
        for one in explained
    ]


def _cause(child: Finding, found: list[Finding]) -> str:
    roots = [other for other in found if other.fingerprint != child.fingerprint and _explains(other, child)]
    # The one nearest to the ground: bus before runner before role.
    order = list(_EXPLAINS)
    roots.sort(key=lambda r: (order.index(r.kind) if r.kind in _EXPLAINS else len(order), r.fingerprint))
    return roots[0].fingerprint if roots else ""


def _explains(root: Finding, child: Finding) -> bool:
    if root.kind is Kind.UNSEEN or (root.kind is Kind.STORAGE_LOW and root.severity is not Severity.ULTRA):
        return False
    if child.kind in _EXPLAINS.get(root.kind, ()):
        return True
    if root.kind is Kind.PERSON_NEEDED:
        return child.kind in _DAEMON_GONE and child.subject == root.subject
    if root.kind is Kind.PAUSED:
        return child.kind in {Kind.NO_CONSUMERS, Kind.BACKLOG} and child.subject == root.subject
    if root.kind in _DAEMON_GONE:
        daemon = root.subject.partition("@")[0].rpartition("-")[0] or root.subject.partition("@")[0]
        explained = _ABSENCE.get(daemon, frozenset())
        if daemon == "projector" and child.kind is Kind.UNSEEN:
            return child.subject in {"tables", "archive"}
        if child.kind is Kind.DAEMON_SILENT:
            return child.subject == daemon
        return child.kind in explained
    return False


def compare(
    known: Mapping[str, Known],
    found: Iterable[Finding],
    *,
    hidden: Callable[[Finding], bool],
    now: datetime,
    sweep: str,
) -> Outcome:
    """Hold what a sweep found against what is known.

    Args:
        known: the open findings, by fingerprint.
        found: what the rules say now; several may say the same.
        hidden: whether this sweep could not have seen an open finding, which then stays as it is.
        now: wall time.
        sweep: its id.
    """
    kept = [k.finding for k in known.values() if k.finding.kind in RING or hidden(k.finding)]
    present = gathered([*found, *(one for one in kept)])
    present = {one.fingerprint: one for one in muted(present.values())}
    steps: list[Step] = []
    after: dict[str, Known] = {}
    tally = dict.fromkeys(("new", "still", "worse", "better", "gone"), 0)
    for print_, one in present.items():
        before = known.get(print_)
        if before is None:
            steps.append(Step(print_, opened(one, sweep)))
            tally["new"] += 1
            after[print_] = Known(finding=one)
            continue
        one = msgspec.structs.replace(one, since=before.finding.since)  # noqa: PLW2901 (it began when it was first seen)
        change = _change(before.finding, one)
        if change is None:
            tally["still"] += 1
            after[print_] = before
            continue
        tally[change.value if change.value in tally else "still"] += 1
        steps.append(Step(print_, changed(one, change, before.finding.value, sweep)))
        after[print_] = msgspec.structs.replace(before, finding=one)
    steps += _ended(known, present, now, sweep)
    tally["gone"] = sum(1 for print_ in known if print_ not in present)
    for print_, one_known in after.items():
        if one_known.silence is not None and one_known.silence.until <= now:
            steps.append(Step(print_, ev.Unsilenced(reason=UnsilenceReason.TIME, owner=one_known.silence.owner)))
            after[print_] = msgspec.structs.replace(one_known, silence=None)
    listed = tuple(sorted(after.values(), key=order))
    counts = Counts(
        **tally,
        muted=sum(1 for k in listed if k.finding.muted),
        silenced=sum(1 for k in listed if k.silence is not None),
        open=len(listed),
    )
    return Outcome(steps=tuple(steps), known=listed, counts=counts)


def _ended(known: Mapping[str, Known], present: Collection[str], now: datetime, sweep: str) -> list[Step]:
    steps: list[Step] = []
    for print_, before in known.items():
        if print_ in present:
            continue
        if before.silence is not None:
            # First: a silence must not outlive what it was about, also when we die between the two.
            steps.append(Step(print_, ev.Unsilenced(reason=UnsilenceReason.CLOSED, owner=before.silence.owner)))
        raised = before.finding.kind is Kind.RAISED
        reason = CloseReason.EXPIRED if raised else CloseReason.GONE
        open_s = max(0.0, (now - before.finding.since).total_seconds())
        steps.append(Step(print_, ev.Closed(reason=reason, open_s=round(open_s, 3), sweep=sweep)))
    return steps


def _change(before: Finding, now: Finding) -> Change | None:
    """What of a finding is worth an event; None for nothing."""
    if rank(now.severity) != rank(before.severity):
        return Change.WORSE if rank(now.severity) > rank(before.severity) else Change.BETTER
    if now.muted != before.muted or (now.muted and now.cause != before.cause):
        return Change.MUTED if now.muted else Change.UNMUTED
    if now.kind in _COUNTED and now.value != before.value:
        return Change.WORSE if now.value > before.value else Change.BETTER
    if now.value >= max(before.value, 1.0) * _FACTOR:
        return Change.WORSE
    if now.value * _FACTOR <= before.value and before.value > 1.0:
        return Change.BETTER
    return None


def calls(step: Step) -> bool:
    """Whether a step says that something is new or worse."""
    match step.event:
        case ev.Opened(cause=cause):
            return not cause
        case ev.Changed(change=change, cause=cause):
            return not cause and change in {Change.WORSE, Change.UNMUTED}
        case _:
            return False


def order(known: Known) -> tuple[object, ...]:
    """The worst first, what speaks before what does not, the oldest first."""
    found = known.finding
    return (-rank(found.severity), not known.speaks, found.since, found.fingerprint)


def _badness(found: Finding) -> tuple[int, float]:
    return rank(found.severity), found.value

"""A bad day of a fleet, as a log: of everything that somebody on call may ask for, something."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec

from bus.events import (
    card,
    daemon,
    decision,
    finding,
    freeze,
    guard,
    incident,
    invocation,
    loop,
    ops,
    quota,
    registry,
    schedule,
    sweep,
)
from tests.projections.written import Written, claimed, failed

USAGE = invocation.Usage(input_tokens=1000, output_tokens=100, model="trace")


def history() -> Written:
    """A bad day: of everything that somebody on call may ask for, something."""
    log = Written(datetime.now(UTC) - timedelta(minutes=30))
    log.control(
        "guards_quota",
        registry.Changed(
            key="guards.quota", revision=1, value=msgspec.Raw(b'{"prices":{"trace":{"input":2.5,"output":10}}}')
        ),
    )
    role = msgspec.Raw(b'{"handler":{"kind":"trace"},"timeout":60,"grace":5}')
    log.control("roles_shop_coder", registry.Changed(key="roles.shop.coder", revision=2, value=role))
    for seat in ("agent_runner-1_vm", "warden_vm"):
        kind = seat.partition("_vm")[0].partition("-")[0]
        log.control(seat, daemon.Started(daemon=kind, boot_id=f"boot-{seat[0]}", host="vm", pid=7))
    parent = log.done(tokens=5000)
    log.done("shop/reviewer", parent=parent.id, root=parent.id, depth=1)
    log.done(schedule="nightly")
    for digest in ("sha-256:aaaa", "sha-256:bbbb"):
        ref = log.asked("shop/writer")
        log.invocation(ref, claimed(prompt_digest=digest, registry_revision=3))
        log.invocation(ref, invocation.Completed(holder="boot-1", delivery=1, usage=USAGE, duration_ms=300))
    dead = log.asked("shop/broken")
    broke = failed("exit_1", "it broke", usage=USAGE, duration_ms=100)
    spent = invocation.DeathReason.ATTEMPTS_SPENT
    log.invocation(dead, claimed(), broke, invocation.DeadLettered(reason=spent, attempts=1, error=broke.error))
    swept = log.asked()
    log.invocation(
        swept,
        claimed(),
        invocation.Swept(holder="boot-1", delivery=1, age_s=2, reason=invocation.SweepReason.HOLDER_GONE),
    )
    overdue = log.asked()
    log.invocation(overdue, claimed(holder="boot-a"))
    log.control(
        "agent_runner-1_vm", daemon.Exited(daemon="agent_runner-1", host="vm", pid=7, boot_id="boot-a", status=-9)
    )
    log.control("r5", freeze.Frozen(mode="soft", seq=9, reason="enough", by="ann"), freeze.Thawed(frozen_s=3))
    log.control("shop", quota.Tripped(key="shop.tokens.day_2026-11-23", used=10, held=0, cap=10))
    log.control("shop_coder", guard.Paused(role="shop/coder", reason="we look"))
    log.control(
        parent.id,
        loop.Tripped(reason=loop.LoopReason.DEPTH, count=9, limit=8, role="shop/coder", invocation=parent.id),
    )
    missed = schedule.Missed(
        schedule="early", project="shop", role="coder", due=log.now(), reason=schedule.MissReason.OVERLAP
    )
    log.control("shop_coder_early", missed)
    looked_after(log)
    log.raw("inv.shop.coder.x.requested", b"rubbish")
    return log


def looked_after(log: Written) -> None:
    """What people and the monitor do about that day: a sweep, findings, actions, a card, a decision and its successor."""
    dead = finding.Opened(
        kind=finding.Kind.DEAD_LETTERS,
        severity=finding.Severity.CONCERN,
        title="1 dead letter",
        subject="shop/broken",
        since=log.now(),
        command="systems dlq ls",
    )
    gone = msgspec.structs.replace(
        dead, kind=finding.Kind.DAEMON_DOWN, title="a runner is down", subject="agent_runner-1"
    )
    worse = finding.Changed(
        change=finding.Change.WORSE,
        severity=finding.Severity.ULTRA,
        title="9 dead letters",
        command="systems dlq ls",
        value=9,
        was=1,
    )
    log.control("s1", sweep.Started(trigger=sweep.Trigger.DEMAND, why="ann"))
    log.control("f1", dead, worse)
    log.control("f2", gone, finding.Closed(reason=finding.CloseReason.GONE, open_s=2))
    log.control("f2", gone, finding.Silenced(owner="ann", reason="known", until=log.now()))
    done = sweep.Finished(
        trigger=sweep.Trigger.DEMAND,
        verdict=sweep.Verdict.ULTRA,
        counts=sweep.Counts(new=2, gone=1, open=2),
        took_ms=12.5,
        positions={},
        unseen=("the moon",),
    )
    log.control("s1", done)
    restart = ops.Requested(action="restart", target="warden", who="ann", why="tired")
    log.control(
        "o1", restart, ops.Started(limit_s=60), ops.Finished(ok=True, took_s=1.5, evidence=msgspec.Raw(b'{"pid":7}'))
    )
    log.control("o2", restart, ops.Refused(reason="not from inside"))
    handed = card.Opened(
        instance="warden",
        host="vm",
        reason=card.Reason.INSIDE,
        why="it cannot restart itself",
        command="systems restart warden",
        since=log.now(),
        operation="o2",
    )
    log.control("warden_vm", handed, card.Closed(reason=card.End.BACK, boot_id="boot-2", waited_s=1), handed)
    trouble(log)
    log.control("1", decision.Recorded(number=1, title="Two runners", by="ann", decision="two"))
    log.control("2", decision.Recorded(number=2, title="Four runners", by="bob", decision="four", supersedes=1))


def trouble(log: Written) -> None:
    """The incident of that day: nobody could be called, then ann had it, and closed it."""
    hit = incident.Impact(project="shop", reason="shop/broken: 9 dead letters")
    since = log.now() - timedelta(seconds=10)
    declared = incident.Declared(
        title="9 dead letters",
        severity=finding.Severity.ULTRA,
        by="monitor",
        since=since,
        finding="f1",
        kind=finding.Kind.DEAD_LETTERS,
        subject="shop/broken",
        affected=(hit,),
    )
    order = incident.PageDue(page="p1", person="ann", way="phone", carrier=incident.Carrier.APPRISE)
    failed = incident.Paged(page="p1", person="ann", way="phone", level=1, attempt=1, ok=False, error="no signal")
    called = incident.Paged(page="p2", person="ann", way="phone", level=1, attempt=2, ok=True)
    log.control("1", declared, order, failed, called, incident.Acknowledged(by="ann"))
    log.control(
        "1",
        incident.Affected(by="ann", added=(incident.Impact(project="ledger", reason="it waits", by="ann"),)),
        incident.Affected(by="ann", removed=("shop",)),
        incident.Updated(text="no news yet", by="clock", automatic=True),
        incident.Updated(text="it is being looked at", by="ann"),
        incident.Closed(by="ann", cause="a bad input"),
    )

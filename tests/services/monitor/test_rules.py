"""Each rule by itself: what makes it speak, what does not, how bad it is, and what a person is told to run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from bus import flags
from bus.events import daemon, message, quota, schedule
from bus.events import finding as ev
from bus.events.card import Reason
from bus.events.finding import Kind, Severity
from bus.events.topology import Change
from services.cards import Card
from services.fleet.spec import Monitor
from services.freezes import Freeze
from services.guards.proofs import GuardLine, Proof
from services.health.daemons import DaemonLine, State
from services.health.panel import Panel, RoleLine, TripLine, Verdict
from services.monitor import rules
from services.monitor.seen import (
    ClaimSeen,
    ConsumerSeen,
    ErrorSeen,
    GapSeen,
    LettersSeen,
    Part,
    Said,
    Seen,
    ServerSeen,
    StepSeen,
    StreamSeen,
    Unseen,
)
from services.quota.lines import QuotaLine

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=400)
LIMITS = Monitor()
CONCERN, ULTRA = Severity.CONCERN, Severity.ULTRA
RUNNER = DaemonLine(name="agent_runner-1", state=State.ALIVE, daemon="agent_runner", host="h", pid=7)
PANEL = Panel(
    at=NOW,
    verdict=Verdict.NOMINAL,
    reasons=(),
    daemons=(DaemonLine(name="launcher", state=State.ALIVE, daemon="launcher", host="h"), RUNNER),
    roles=(RoleLine(role="shop/coder"),),
    dead_letters=0,
    oldest_in_flight_s=None,
    oldest_in_flight="",
    last_errors=(),
    kill_switch=Freeze(mode=flags.Mode.CLEAR),
    guards=(GuardLine(name="kill switch", armed=True),),
)
GOOD = Seen(
    at=NOW,
    host="h",
    panel=PANEL,
    server=ServerSeen(disk_left=0.5, memory_left=0.5, born=NOW - timedelta(days=1)),
    consumers=(ConsumerSeen(role="shop/coder", pending=0, ack_pending=0, waiting=1),),
)
QUOTA = QuotaLine(
    key="k", scope="shop", unit="tokens", window="day", used=0, held=0, assumed=0, cap=1, percent=0, burn=0, problem="?"
)


def server(**more: Any) -> dict[str, Any]:
    """A look at a server that differs from a good one."""
    assert GOOD.server is not None
    return {"server": msgspec.structs.replace(GOOD.server, **more)}


def panel(**more: Any) -> dict[str, Any]:
    """A panel that differs from a good one."""
    return {"panel": msgspec.structs.replace(PANEL, **more)}


def runner(**more: Any) -> dict[str, Any]:
    """A fleet whose runner is not as it should be."""
    return panel(daemons=(PANEL.daemons[0], msgspec.structs.replace(RUNNER, **more)))


def said(data: Any, *, id_: str = "x", age_s: float = 10, seq: int = 5) -> Said:
    """Something that CONTROL says."""
    return Said(seq=seq, at=NOW - timedelta(seconds=age_s), id=id_, data=data)


def consumer(**more: Any) -> dict[str, Any]:
    """A role's consumer."""
    base = ConsumerSeen(role="shop/coder", pending=0, ack_pending=0, waiting=1)
    return {"consumers": (msgspec.structs.replace(base, **more),)}


def letters(**more: Any) -> dict[str, Any]:
    """Dead letters of a role."""
    base = LettersSeen(role="shop/coder", count=1, lately=0, oldest_at=NOW - timedelta(hours=1), last_seq=9)
    return {"letters": (msgspec.structs.replace(base, **more),)}


def card(reason: Reason) -> Card:
    """A card that waits."""
    return Card(
        seat="agent_runner-1_h",
        instance="agent_runner-1",
        host="h",
        reason=reason,
        why="only a person restarts it",
        command="systems start agent_runner-1",
        since=NOW,
        seq=5,
        pid=7,
    )


def error(**more: Any) -> dict[str, Any]:
    """An error that the tables know."""
    base = ErrorSeen(
        fingerprint="f",
        role="shop/coder",
        kind="http_500",
        message="m",
        first_at=LONG_AGO,
        last_seq=3,
        lately=9,
        usual=1,
    )
    return {"errors": (msgspec.structs.replace(base, **more),)}


EXITED = said(daemon.Exited(daemon="agent_runner-1", host="h", pid=7, restart_in_s=0.1))
EXITED_LONG_AGO = said(daemon.Exited(daemon="agent_runner-1", host="h", pid=7), age_s=40)
RESTARTED = said(daemon.Started(daemon="agent_runner", boot_id="b2", host="h", pid=8), age_s=1)
MISSED = schedule.Missed(schedule="nightly", project="shop", role="coder", due=NOW, reason=schedule.MissReason.TOO_LATE)

CASES: dict[str, tuple[dict[str, Any], list[tuple[Kind, Severity, str]]]] = {
    "nothing": ({}, []),
    "server ended": (server(ended_at=NOW), [(Kind.BUS_DOWN, CONCERN, "ended and was started again")]),
    "disk low": (server(disk_left=0.05), [(Kind.STORAGE_LOW, CONCERN, "5.0% of the room of disk")]),
    "disk gone": (server(disk_left=0.01), [(Kind.STORAGE_LOW, ULTRA, "1.0%")]),
    "account low": (server(store_left=0.05), [(Kind.STORAGE_LOW, CONCERN, "of store")]),
    "stream full": (
        server(streams=(StreamSeen(name="DRILL", last_seq=1, messages=1, bytes=99, max_bytes=100),)),
        [(Kind.STORAGE_LOW, ULTRA, "of DRILL")],
    ),
    "stream frozen": (
        server(streams=(StreamSeen(name="INVOCATIONS", last_seq=1, messages=1, bytes=99, max_bytes=1),)),
        [],
    ),
    "memory low": (server(memory_left=0.01), [(Kind.MEMORY_LOW, CONCERN, "1.0% of the memory")]),
    "peer away": (
        server(streams=tuple(StreamSeen(name=n, last_seq=1, messages=1, bytes=1, away=("n2",)) for n in "AB")),
        [(Kind.PEER_LOST, CONCERN, "server n2 is away: 2 streams")],
    ),
    "clock ahead": (server(skew_s=3.0), [(Kind.CLOCK_SKEW, CONCERN, "3.0 s ahead")]),
    "clock behind": (server(skew_s=-3.0), [(Kind.CLOCK_SKEW, CONCERN, "3.0 s behind")]),
    "certificate ends": (server(certificate_ends=NOW + timedelta(days=5)), [(Kind.CERTIFICATE_ENDS, CONCERN, "ends")]),
    "certificate ended": (server(certificate_ends=NOW - timedelta(days=1)), [(Kind.CERTIFICATE_ENDS, ULTRA, "ended")]),
    "certificate good": (server(certificate_ends=NOW + timedelta(days=90)), []),
    "late": (runner(state=State.LATE, beat_age_s=12.0), [
        (Kind.DAEMON_LATE, CONCERN, "agent_runner-1 is late"), (Kind.NO_RUNNER, CONCERN, "no agent_runner"),
    ]),
    "slow": (runner(loop_lag_s=2.5), [(Kind.DAEMON_LATE, CONCERN, "its event loop was late by 2.5 s")]),
    "deaf": (runner(state=State.DEAF, message_age_s=40.0), [
        (Kind.DAEMON_DEAF, CONCERN, "nothing has reached it for 40 s"), (Kind.NO_RUNNER, CONCERN, "no agent_runner"),
    ]),
    "loop stands": (runner(state=State.DEAF, stuck_s=12.0, stuck_in="shop/coder 01: handlers.py:3 in work"), [
        (Kind.DAEMON_DEAF, CONCERN, "has stood still for 12 s in shop/coder 01: handlers.py:3 in work"),
        (Kind.NO_RUNNER, CONCERN, "no agent_runner"),
    ]),
    "loop stood for a moment": (runner(stuck_s=3.0, stuck_in="t: handlers.py:3 in work"), [
        (Kind.DAEMON_LATE, CONCERN, "its event loop was late by 3.0 s in t: handlers.py:3 in work"),
    ]),
    "a person is needed": (
        panel(cards=(card(Reason.HUMAN),)),
        [(Kind.PERSON_NEEDED, ULTRA, "agent_runner-1 on h (pid 7): only a person restarts it: a person is needed")],
    ),
    "a person can wait": (panel(cards=(card(Reason.INSIDE),)), [(Kind.PERSON_NEEDED, CONCERN, "a person is needed")]),
    "down, and coming back": (
        runner(state=State.DOWN) | {"daemons": {"agent_runner-1_h": EXITED}},
        [(Kind.DAEMON_DOWN, CONCERN, "agent_runner-1 is down")],
    ),
    "down, and not back": (
        runner(state=State.DOWN) | {"daemons": {"agent_runner-1_h": EXITED_LONG_AGO}},
        [(Kind.DAEMON_DOWN, ULTRA, "agent_runner-1 is down"), (Kind.NO_RUNNER, CONCERN, "0 invocations wait")],
    ),
    "given up": (
        runner(state=State.DOWN, note="run: systems start agent_runner-1") | {"daemons": {"agent_runner-1_h": EXITED}},
        [(Kind.DAEMON_DOWN, ULTRA, "systems start"), (Kind.NO_RUNNER, CONCERN, "no agent_runner")],
    ),
    "restarted": (runner(exited_at=NOW, exit_status=-9), [(Kind.DAEMON_ENDED, CONCERN, "signal 9")]),
    "nobody works": (
        panel(daemons=PANEL.daemons[:1], roles=(RoleLine(role="shop/coder", backlog=3),)),
        [(Kind.NO_RUNNER, ULTRA, "3 invocations wait")],
    ),
    "nobody yet": (panel(daemons=PANEL.daemons[:1]) | {"settling": True}, []),
    "nobody asks": (consumer(waiting=0, pending=4), [(Kind.NO_CONSUMERS, CONCERN, "zero consumers on shop/coder: 4")]),
    "nobody asks yet": (consumer(waiting=0, pending=4) | {"settling": True}, []),
    "full house": (consumer(waiting=0, ack_pending=4, unfinished=4), []),
    "backlog": (consumer(pending=10_001), [(Kind.BACKLOG, CONCERN, "10,001 invocations")]),
    "stuck": (consumer(ack_pending=2), [(Kind.CONSUMER_STUCK, CONCERN, "2 deliveries")]),
    "stuck, for all we know": (consumer(ack_pending=2) | {"unseen": (Unseen(Part.WORK, "x"),)}, [
        (Kind.UNSEEN, CONCERN, "not seen: work"),
    ]),
    "stranded": (consumer(stranded=("a", "b"), unfinished=2), [(Kind.STRANDED, CONCERN, "2 invocations")]),
    "old claim": (
        {"claims": (ClaimSeen(role="shop/coder", invocation="i", since=LONG_AGO, age_s=7200, timeout_s=60),)},
        [(Kind.CLAIM_OLD, CONCERN, "2.0 h old")],
    ),
    "long claim": (
        {"claims": (ClaimSeen(role="shop/coder", invocation="i", since=LONG_AGO, age_s=7200, timeout_s=9000),)},
        [],
    ),
    "one dead letter": (letters(), [(Kind.DEAD_LETTERS, CONCERN, "1 dead letter of shop/coder waits")]),
    "many at once": (letters(count=40, lately=25), [(Kind.DEAD_LETTERS, ULTRA, "40 dead letters of shop/coder")]),
    "very old": (letters(oldest_at=LONG_AGO), [(Kind.DEAD_LETTERS, ULTRA, "1 dead letter of shop/coder")]),
    "new error": (error(first_at=NOW - timedelta(minutes=1)), [(Kind.ERROR_NEW, CONCERN, "new way: http_500")]),
    "usual error": (error(lately=12, usual=5), []),
    "seldom error": (error(lately=9, usual=0), []),
    "more errors": (error(lately=20, usual=5), [(Kind.ERROR_RATE, CONCERN, "fails 20 times")]),
    "frozen": (panel(kill_switch=Freeze(mode=flags.Mode.SOFT)), [(Kind.FROZEN, CONCERN, "frozen (soft)")]),
    "no receipt": (
        panel(kill_switch=Freeze(mode=flags.Mode.SOFT, overdue=("w",))),
        [(Kind.FROZEN, CONCERN, ""), (Kind.FREEZE_UNANSWERED, ULTRA, "no receipt of the freeze from w")],
    ),
    "written": (
        panel(kill_switch=Freeze(mode=flags.Mode.SOFT, writes=2)),
        [(Kind.FROZEN, CONCERN, ""), (Kind.WRITTEN_FROZEN, ULTRA, "2 events")],
    ),
    "cap": (panel(trips=(TripLine(key="quota.x", scope="shop", sentence="no"),)), [(Kind.REFUSED, CONCERN, "no")]),
    "pause": (
        panel(trips=(TripLine(key="pause.a.b", scope="a/b", sentence="later"),)),
        [(Kind.PAUSED, CONCERN, "later")],
    ),
    "spend": (panel(quota=(QUOTA,)), [(Kind.SPEND_UNVERIFIED, CONCERN, "cannot be verified")]),
    "counter": (
        {"said": (said(quota.Repaired(key="k", counter=1, log=2, seq=1, why="it was below the log")),)},
        [(Kind.COUNTER_REPAIRED, CONCERN, "counter k differed")],
    ),
    "drill failed": (
        panel(guards=(GuardLine(name="g", armed=True, proof=Proof(at=NOW, passed=False, got="nothing")),)),
        [(Kind.DRILL_FAILED, ULTRA, "last drill of the g failed")],
    ),
    "drill old": (
        panel(guards=(GuardLine(name="g", armed=True, proof=Proof(at=LONG_AGO, passed=True)),)),
        [(Kind.DRILL_OLD, CONCERN, "last proven at 2024")],
    ),
    "never drilled": (server(born=LONG_AGO), [(Kind.DRILL_OLD, CONCERN, "never proven")]),
    "missed": ({"said": (said(MISSED),)}, [(Kind.SCHEDULE_MISSED, CONCERN, "1 due times of nightly")]),
    "skipped": (
        {"said": (said(msgspec.structs.replace(MISSED, reason=schedule.MissReason.OVERLAP)),)},
        [],
    ),
    "rubbish": (
        {"said": (said(message.Rejected(stream="INVOCATIONS", seq=4, subject="inv.x", reason="no")),)},
        [(Kind.RUBBISH, CONCERN, "1 messages in INVOCATIONS")],
    ),
    "drift": (
        {"steps": (StepSeen(name="CONTROL", action="update", changes=(Change(field="max_age", before="1", after="0"),)),)},
        [(Kind.DRIFT, CONCERN, "CONTROL is not as declared")],
    ),
    "tables late": ({"lag_events": 5, "lag_s": 90.0}, [(Kind.PROJECTION_LATE, CONCERN, "5 events and 90 s")]),
    "archive": (
        {"gaps": (GapSeen(stream="CONTROL", first=4, last=6),)},
        [(Kind.ARCHIVE_GAP, ULTRA, "lacks the sequences 4 to 6")],
    ),
    "raised": (
        {"raised": (said(ev.Raised(by="shop/coder", severity=ULTRA, title="help")),)},
        [(Kind.RAISED, ULTRA, "help")],
    ),
    "ping": ({"ping_problem": "timeout"}, [(Kind.PING_FAILED, CONCERN, "dead man's switch")]),
    "unseen": ({"unseen": (Unseen(Part.TABLES, "no projector"),)}, [(Kind.UNSEEN, CONCERN, "not seen: tables")]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_rule_says_what_is_wrong(name: str) -> None:
    """Each fault has its kind, severity and words; what is as it should be has none."""
    change, expected = CASES[name]
    found = rules.judge(msgspec.structs.replace(GOOD, **change), LIMITS)
    assert [(f.kind, f.severity) for f in found] == [(kind, severity) for kind, severity, _ in expected]
    for finding, (_, _, words) in zip(found, expected, strict=True):
        assert words in finding.title
        assert finding.since <= NOW
        assert finding.subject


@pytest.mark.parametrize("state", [State.DOWN, State.ALIVE])
def test_end_of_a_daemon_is_shown_by_its_exit(state: State) -> None:
    """A daemon that ended is shown by its exit also when its restart is the last word about it, and that comes after it."""
    change = runner(state=state, exited_at=NOW, exited_seq=4) | {"daemons": {"agent_runner-1_h": RESTARTED}}
    found = rules.judge(msgspec.structs.replace(GOOD, **change), LIMITS)
    assert found[0].kind in {Kind.DAEMON_DOWN, Kind.DAEMON_ENDED}
    assert found[0].evidence == (ev.Evidence("CONTROL", 4), ev.Evidence("CONTROL", 5))


def test_every_kind_has_its_rule_or_its_watcher() -> None:
    """Each kind of finding that a sweep closes can be found by exactly one rule, and the cases above find all of them."""
    by_rule = [kind for rule in rules.RULES for kind in rule.kinds]
    assert sorted(by_rule) == sorted(set(by_rule))
    others = {Kind.SWEEP_LATE, Kind.DAEMON_SILENT, Kind.UNSEEN}
    assert set(by_rule) == set(Kind) - others
    assert {kind for _, expected in CASES.values() for kind, _, _ in expected} == set(Kind) - {
        Kind.SWEEP_LATE,
        Kind.DAEMON_SILENT,
    }


def test_rule_is_silent_on_what_was_not_seen() -> None:
    """Of a part that was not seen nothing is found, and what is open of it could not have been seen."""
    seen = msgspec.structs.replace(GOOD, unseen=(Unseen(Part.LETTERS, "x"),), **letters())
    found = rules.judge(seen, LIMITS)
    assert [f.kind for f in found] == [Kind.UNSEEN]
    (dead,) = rules.judge(msgspec.structs.replace(GOOD, **letters()), LIMITS)
    assert rules.hidden(seen, dead)
    assert not rules.hidden(GOOD, dead)
    quick = msgspec.structs.replace(GOOD, skipped=frozenset({Part.TABLES}))
    tables, work = (
        msgspec.structs.replace(dead, kind=Kind.UNSEEN, subject=part.value) for part in (Part.TABLES, Part.WORK)
    )
    assert rules.hidden(quick, tables)
    assert not rules.hidden(quick, work)

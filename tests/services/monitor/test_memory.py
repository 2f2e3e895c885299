"""The memory of sweeps: laws of the fold, of muting, of silences, over any history."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from bus.events import finding as ev
from bus.events.finding import Change, CloseReason, Evidence, Kind, Severity, UnsilenceReason
from bus.events.sweep import Verdict
from services.monitor import memory
from services.monitor.finding import Finding, fingerprint, rank
from services.monitor.memory import Known, Outcome, Silence

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SUBJECTS = ("warden@h", "agent_runner-1@h", "projector@h", "shop/coder", "tables", "agent_runner", "nats-server")

findings = st.builds(
    Finding,
    kind=st.sampled_from(Kind),
    severity=st.sampled_from(Severity),
    subject=st.sampled_from(SUBJECTS),
    title=st.sampled_from(("a", "b")),
    since=st.integers(0, 100).map(lambda s: NOW - timedelta(seconds=s)),
    value=st.integers(0, 50).map(float),
    evidence=st.lists(st.builds(Evidence, st.just("CONTROL"), st.integers(1, 3)), max_size=2).map(tuple),
)
looks = st.lists(st.lists(findings, max_size=8), min_size=1, max_size=6)


def step(known: dict[str, Known], found: list[Finding], n: int = 0, *, blind: frozenset[Kind] = frozenset()) -> Outcome:
    """One sweep, `n` minutes after the first."""
    return memory.compare(
        known, found, hidden=lambda f: f.kind in blind, now=NOW + timedelta(minutes=n), sweep=f"sweep-{n}"
    )


def folded(known: dict[str, Known], outcome: Outcome) -> dict[str, Known]:
    """What the record says after a sweep's events."""
    after = dict(known)
    for one in outcome.steps:
        state = memory.evolve(after.get(one.fingerprint), one.event)
        if state is None:
            after.pop(one.fingerprint, None)
        else:
            after[one.fingerprint] = state
    return after


def worst(found: list[Finding]) -> int:
    """The rank of the worst of some findings; -1 for none."""
    return max((rank(f.severity) for f in found), default=-1)


def found_by_sweeps(found: list[Finding]) -> list[Finding]:
    """Those that a sweep may say: others say what is in the ring."""
    return [f for f in found if f.kind not in memory.RING]


@given(looks)
def test_memory_is_what_the_record_says(sweeps: list[list[Finding]]) -> None:
    """Over any sweeps, folding the events that were written gives exactly the findings that the last sweep lists as open."""
    known: dict[str, Known] = {}
    for n, found in enumerate(sweeps):
        outcome = step(known, found_by_sweeps(found), n)
        known = folded(known, outcome)
        listed = {k.finding.fingerprint: k for k in outcome.known}
        assert listed.keys() == known.keys() == {f.fingerprint for f in found_by_sweeps(found)}
        assert {p: k.finding for p, k in listed.items()} == {p: k.finding for p, k in known.items()}


@given(st.lists(findings, max_size=8))
def test_memory_repeats_nothing(found: list[Finding]) -> None:
    """A sweep that finds the same again writes nothing, and all of it is still there."""
    first = step({}, found_by_sweeps(found))
    again = step(folded({}, first), found_by_sweeps(found), 1)
    assert again.steps == ()
    assert again.counts.still == again.counts.open == len(first.known)


@given(looks)
def test_memory_counts_every_finding_once(sweeps: list[list[Finding]]) -> None:
    """New, still, worse and better make up what is open, and what was open is among them or gone."""
    known: dict[str, Known] = {}
    for n, found in enumerate(sweeps):
        outcome = step(known, found_by_sweeps(found), n)
        counts = outcome.counts
        assert counts.new + counts.still + counts.worse + counts.better == counts.open
        assert counts.open == len(known) + counts.new - counts.gone
        known = folded(known, outcome)


@given(findings)
def test_finding_that_is_gone_and_back_is_new(one: Finding) -> None:
    """What was gone for a sweep opens again, with its own beginning, and is not the old one going on."""
    if one.kind in memory.RING:
        return
    known = folded({}, step({}, [one]))
    gone = step(known, [], 1)
    assert [type(s.event) for s in gone.steps] == [ev.Closed]
    assert isinstance(gone.steps[0].event, ev.Closed)
    back = step(folded(known, gone), [msgspec.structs.replace(one, since=NOW + timedelta(hours=1))], 2)
    assert back.counts.new == 1
    assert back.known[0].finding.since == NOW + timedelta(hours=1)


@given(findings, st.lists(findings, max_size=5))
def test_finding_that_could_not_be_seen_stays(one: Finding, others: list[Finding]) -> None:
    """A sweep that was blind for a kind neither closes nor changes what is open of it: not looking is no good news."""
    if one.kind in memory.RING:
        return
    known = folded({}, step({}, [one]))
    seen = [f for f in found_by_sweeps(others) if f.kind is not one.kind]
    after = folded(known, step(known, seen, 1, blind=frozenset({one.kind})))
    assert one.fingerprint in after
    assert after[one.fingerprint].finding.value == known[one.fingerprint].finding.value


@given(st.lists(findings, max_size=10))
def test_muting_hides_no_severity_and_raises_none(found: list[Finding]) -> None:
    """The worst of a fleet is as bad after muting as before; every cause is there, and no chain of causes is a circle."""
    gathered = list(memory.gathered(found).values())
    explained = {f.fingerprint: f for f in memory.muted(gathered)}
    assert explained.keys() == {f.fingerprint for f in gathered}
    assert worst(list(explained.values())) == worst(gathered)
    for one in explained.values():
        chain = [one.fingerprint]
        while cause := explained[chain[-1]].cause:
            assert cause in explained
            assert cause not in chain
            chain.append(cause)
        assert rank(explained[chain[-1]].severity) >= rank(one.severity), "a root is milder than what it explains"
        assert not one.cause or rank(explained[one.cause].severity) >= rank(one.severity)


@given(st.lists(findings, max_size=10))
def test_same_findings_become_one_the_worst(found: list[Finding]) -> None:
    """Of several that say the same the worst stays, since the earliest, with evidence of both; the order does not matter."""
    one_way, other_way = memory.gathered(found), memory.gathered(reversed(found))
    assert one_way.keys() == other_way.keys()
    for print_, kept in one_way.items():
        same = [f for f in found if f.fingerprint == print_]
        assert rank(kept.severity) == worst(same) == rank(other_way[print_].severity)
        assert kept.since == min(f.since for f in same)


def test_evidence_of_a_finding_is_bounded() -> None:
    """A finding names at most 20 messages, also when several with many say the same."""
    many = tuple(Evidence("CONTROL", n) for n in range(1, 26))
    one = Finding(kind=Kind.RUBBISH, severity=Severity.CONCERN, subject="x", title="x", since=NOW, evidence=many)
    other = msgspec.structs.replace(one, evidence=tuple(Evidence("CONTROL", n) for n in range(30, 60)))
    assert all(len(f.evidence) == ev.EVIDENCE_LIMIT for f in memory.gathered([one, other]).values())


def test_bus_that_ended_mutes_what_follows_from_it() -> None:
    """A server that ended explains deaf daemons and idle consumers; they stay in the list, and call nobody."""
    bus = Finding(
        kind=Kind.BUS_DOWN, severity=Severity.CONCERN, subject="nats-server", title="nats-server ended", since=NOW
    )
    deaf = msgspec.structs.replace(bus, kind=Kind.DAEMON_DEAF, subject="agent_runner-1@h")
    idle = msgspec.structs.replace(bus, kind=Kind.NO_RUNNER, subject="agent_runner", severity=Severity.ULTRA)
    letters = msgspec.structs.replace(bus, kind=Kind.DEAD_LETTERS, subject="shop/coder")
    outcome = step({}, [idle, deaf, letters, bus])
    assert {k.finding.kind: k.finding.cause for k in outcome.known} == {
        Kind.BUS_DOWN: "",
        Kind.DEAD_LETTERS: "",
        Kind.DAEMON_DEAF: bus.fingerprint,
        Kind.NO_RUNNER: bus.fingerprint,
    }
    assert outcome.known[0].finding.kind is Kind.BUS_DOWN, "the root speaks first, as bad as what it explains"
    assert outcome.verdict is Verdict.ULTRA
    after = step(folded({}, outcome), [idle, letters], 1)
    unmuted = [s.event for s in after.steps if isinstance(s.event, ev.Changed)]
    assert [(e.change, e.cause) for e in unmuted] == [(Change.UNMUTED, "")]


def test_card_mutes_what_else_is_said_of_its_daemon() -> None:
    """A daemon that waits for a person is told once, with the command: down, deaf and late of the same one go back to it."""
    card = Finding(
        kind=Kind.PERSON_NEEDED,
        severity=Severity.ULTRA,
        subject="warden@h",
        title="a person is needed",
        since=NOW,
    )
    down = msgspec.structs.replace(card, kind=Kind.DAEMON_DOWN)
    other = msgspec.structs.replace(card, kind=Kind.DAEMON_DOWN, subject="projector@h")
    outcome = step({}, [down, other, card])
    causes = {(k.finding.kind, k.finding.subject): k.finding.cause for k in outcome.known}
    assert causes[Kind.DAEMON_DOWN, "warden@h"] == card.fingerprint
    assert causes[Kind.DAEMON_DOWN, "projector@h"] == causes[Kind.PERSON_NEEDED, "warden@h"] == ""


def test_silence_hides_from_the_verdict_until_its_end_or_its_findings() -> None:
    """A silenced finding is open and counts for no verdict; its silence ends with its time, and with the finding."""
    one = Finding(kind=Kind.BACKLOG, severity=Severity.ULTRA, subject="shop/coder", title="much", since=NOW, value=5)
    print_ = one.fingerprint
    silence = ev.Silenced(owner="ann", reason="known", until=NOW + timedelta(minutes=5))
    known = folded({}, step({}, [one]))
    quiet = memory.evolve(known[print_], silence)
    assert quiet is not None
    assert quiet.silence == Silence(owner="ann", reason="known", until=NOW + timedelta(minutes=5))
    before = step({print_: quiet}, [one], 4)
    assert (before.verdict, before.counts.silenced, before.steps) == (Verdict.NOMINAL, 1, ())
    over = step({print_: quiet}, [one], 5)
    assert [s.event for s in over.steps] == [ev.Unsilenced(reason=UnsilenceReason.TIME, owner="ann")]
    assert over.verdict is Verdict.ULTRA
    gone = step({print_: quiet}, [], 1)
    assert [s.event for s in gone.steps] == [
        ev.Unsilenced(reason=UnsilenceReason.CLOSED, owner="ann"),
        ev.Closed(reason=CloseReason.GONE, open_s=60.0, sweep="sweep-1"),
    ]


def test_each_new_dead_letter_is_told_and_small_moves_of_others_are_not() -> None:
    """One dead letter more is worse and one less is better; a backlog is told again when it doubles or halves."""
    letters = Finding(
        kind=Kind.DEAD_LETTERS, severity=Severity.CONCERN, subject="shop/coder", title="n", since=NOW, value=4
    )
    backlog = msgspec.structs.replace(letters, kind=Kind.BACKLOG, value=100)
    known = folded({}, step({}, [letters, backlog]))

    def told(letter_count: float, waiting: float) -> dict[str, Change]:
        found = [
            msgspec.structs.replace(letters, value=letter_count),
            msgspec.structs.replace(backlog, value=waiting),
        ]
        return {s.fingerprint: s.event.change for s in step(known, found, 1).steps if isinstance(s.event, ev.Changed)}

    of_letters, of_backlog = letters.fingerprint, backlog.fingerprint
    assert told(5, 150) == {of_letters: Change.WORSE}
    assert told(3, 51) == {of_letters: Change.BETTER}
    assert told(4, 200) == {of_backlog: Change.WORSE}
    assert told(4, 50) == {of_backlog: Change.BETTER}


def test_fingerprint_is_that_of_its_kind_and_subject() -> None:
    """A fingerprint is a subject token of 12 digits, the same for ever for the same thing, and another for another."""
    prints = {fingerprint(kind, subject) for kind in Kind for subject in SUBJECTS}
    assert len(prints) == len(Kind) * len(SUBJECTS)
    assert fingerprint(Kind.DRIFT, "CONTROL") == "13dc06c4c8d2"

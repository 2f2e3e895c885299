"""Which event is shown in which channel."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from bus.author import Author
from bus.envelope import encode
from bus.events import finding, incident, invocation, quota, slack
from bus.events.finding import CloseReason, Kind, Severity
from bus.events.invocation import DeathReason
from bus.store import CONTROL, INVOCATIONS, Recorded, read
from bus.subjects import Ref
from services.fleet.slack import Rule, Slack, Thread
from services.slack import plan
from services.slack.board import Board
from services.slack.notice import Notice, Place
from services.slack.plan import Fleet

_NOW = datetime(2026, 1, 1, tzinfo=UTC)
_FLEET = Fleet(
    slack=Slack(channel="#fleet"),
    channels={"shop": "#shop", "ledger": "#shop", "blog": "#blog"},
    roles={"shop": ("coder", "reviewer")},
)


class Log:
    """A log that is planned as it is written."""

    def __init__(self, fleet: Fleet = _FLEET) -> None:
        self.fleet, self.board = fleet, Board()
        self._author = Author("/test/plan")
        self._seq = 0

    def control(self, id_: str, data: Any) -> tuple[Notice, ...]:
        """An event of CONTROL."""
        return self._step(self._author.control(id_, data))

    def invocation(self, role: str, data: Any, id_: str = "i-1") -> tuple[Notice, ...]:
        """An event of an invocation."""
        project, _, name = role.partition("/")
        return self._step(self._author.invocation(Ref(project, name, id_), data))

    def _step(self, event: Any) -> tuple[Notice, ...]:
        self._seq += 1
        record: Recorded = read(self._seq, event.subject, _NOW, encode(event))
        return plan.step(record, self.board, self.fleet)


def opened(subject: str, severity: Severity = Severity.CONCERN, **more: Any) -> finding.Opened:
    """A finding."""
    return finding.Opened(kind=Kind.BACKLOG, severity=severity, title="slow", subject=subject, since=_NOW, **more)


def channels(notices: tuple[Notice, ...]) -> list[str]:
    """Where they go."""
    return [notice.channel for notice in notices]


def test_findings_go_to_their_project() -> None:
    """What is about a role is shown in its project's channel, ultra in the fleet's too, and the rest in the fleet's alone."""
    log = Log()
    assert channels(log.control("f1", opened("blog/writer"))) == ["#blog"]
    assert channels(log.control("f2", opened("blog/writer", Severity.ULTRA))) == ["#blog", "#fleet"]
    assert channels(log.control("f3", opened("warden"))) == ["#fleet"]
    (closed,) = log.control("f1", finding.Closed(reason=CloseReason.GONE))
    assert (closed.channel, closed.place, closed.key) == ("#blog", Place.UPDATE, "finding:f1:1")


def test_finding_about_errors_of_a_role() -> None:
    """A finding about one error of a role belongs to the role, also for rules."""
    rule = Rule(channel="#r", roles=("blog/writer",))
    log = Log(Fleet(slack=Slack(channel="#fleet", rules=(rule,)), channels=_FLEET.channels))
    assert channels(log.control("f1", opened("blog/writer e636eb7d11ef"))) == ["#blog", "#r"]


def test_what_another_finding_explains_is_not_shown() -> None:
    """A finding with a cause is left to the one that explains it."""
    assert Log().control("f1", opened("blog/writer", cause="f0")) == ()


def test_two_projects_on_one_channel() -> None:
    """A channel of two affected projects is told once, in words for both."""
    log = Log()
    hit = tuple(incident.Impact(project=name, reason=f"{name}/coder is paused") for name in ("shop", "ledger"))
    event = incident.Declared(title="Fire", severity=Severity.ULTRA, by="ann", since=_NOW, affected=hit)
    notices = log.control("1", event)
    assert channels(notices) == ["#fleet", "#shop"]
    said = dict(notices[1].message.lines)
    assert said["Hits shop"] == "shop/coder is paused"
    assert said["Hits ledger"] == "ledger/coder is paused"
    assert said["Still works in shop"] == "reviewer"
    assert all(notice.urgent for notice in notices)


def test_incident_of_all_work_does_not_say_that_roles_go_on() -> None:
    """While no runner is there no role is called sound: each project reads what is kept, and what to do."""
    log = Log()
    hit = tuple(incident.Impact(project=name, reason="a runner is away: work may wait") for name in ("shop", "blog"))
    event = incident.Declared(
        title="No runner",
        severity=Severity.ULTRA,
        by="monitor",
        since=_NOW,
        finding="f1",
        kind=Kind.DAEMON_DOWN,
        subject="agent_runner-1",
        affected=hit,
    )
    fleet, *projects = (dict(notice.message.lines) for notice in log.control("1", event))
    assert not any(line.startswith("Still works in") for line in {**fleet, **projects[0], **projects[1]})
    for said in projects:
        assert said["Still works"] == "requests are accepted and wait; other runners go on"
        assert said["What to do"] == "nothing, nobody has it yet"


def test_what_else_an_incident_hits_is_told_to_whom_it_is_about() -> None:
    """A further reason for one project is read in its channel and the fleet's, and is no line in another project's."""
    log = Log()
    hit = tuple(incident.Impact(project=name, reason="no runner") for name in ("shop", "blog"))
    log.control("1", incident.Declared(title="No runner", severity=Severity.ULTRA, by="ann", since=_NOW, affected=hit))
    more = incident.Impact(project="shop", reason="no runner; shop/coder is paused")
    told = log.control("1", incident.Affected(by="graph", added=(more,)))
    assert [(one.channel, one.place) for one in told] == [
        ("#fleet", Place.UPDATE), ("#fleet", Place.REPLY), ("#shop", Place.UPDATE), ("#shop", Place.REPLY),
    ]  # fmt: skip
    assert ("Hits shop", "no runner; shop/coder is paused") in told[-1].message.lines


@pytest.mark.parametrize(
    ("nags", "reminded"),
    [("slack:U0ANN (ann)", ["U0ANN"]), ("slack:U0ANN", ["U0ANN"]), ("bob", ["U0BOB"]), ("eve", []), ("", [])],
)
def test_who_owes_an_update_is_reminded_directly(nags: str, reminded: list[str]) -> None:
    """When the clock speaks for want of news, whoever is in charge gets a message of their own, if Slack knows them."""
    log = Log(Fleet(slack=Slack(channel="#fleet"), people={"bob": "U0BOB"}))
    log.control("1", incident.Declared(title="Fire", severity=Severity.ULTRA, by="ann", since=_NOW, next_at=_NOW))
    tick = incident.Updated(text="no news yet", by="clock", automatic=True, nags=nags, next_at=_NOW)
    told = log.control("1", tick)
    assert channels(told) == ["#fleet", "#fleet", *reminded]
    assert all("waits for your update: Fire" in one.message.title for one in told[2:])
    person = incident.Updated(text="news", by="ann", next_at=_NOW)
    assert channels(log.control("1", person)) == ["#fleet", "#fleet"]


def test_incident_that_hits_nobody_is_told_everywhere() -> None:
    """Without a fleet channel an incident without affected projects goes to every channel, each once."""
    log = Log(Fleet(slack=Slack(), channels=_FLEET.channels))
    event = incident.Declared(title="Fire", severity=Severity.ULTRA, by="ann", since=_NOW)
    assert channels(log.control("1", event)) == ["#shop", "#blog"]


def test_page_goes_to_its_person() -> None:
    """An order to call somebody by Slack is one urgent message to them; other carriers' orders are not ours."""
    log = Log()
    order = incident.PageDue(page="p", person="ann", way="slack", carrier=incident.Carrier.SLACK, target="U1")
    (notice,) = log.control("1", order)
    assert (notice.channel, notice.urgent, notice.page) == ("U1", True, order)
    other = incident.PageDue(page="p", person="ann", way="mail", carrier=incident.Carrier.APPRISE)
    assert log.control("1", other) == ()


@pytest.mark.parametrize(
    ("rule", "shown"),
    [
        (Rule(channel="#r", events=("invocation.failed",)), True),
        (Rule(channel="#r", events=("invocation.*",), projects=("shop",)), True),
        (Rule(channel="#r", events=("invocation.*",), projects=("blog",)), False),
        (Rule(channel="#r", events=("invocation.*",), roles=("shop/coder",)), True),
        (Rule(channel="#r", events=("invocation.*",), roles=("shop/tester",)), False),
        (Rule(channel="#r", events=("invocation.*",), severities=(Severity.ULTRA,)), False),
        (Rule(channel="#r", events=("finding.*",)), False),
        (Rule(channel="#r", events=("invocation.*",), sample=1e-9), False),
    ],
)
def test_rules(rule: Rule, shown: bool) -> None:
    """A rule shows what fits all that it names, in its own channel."""
    log = Log(Fleet(slack=Slack(rules=(rule,))))
    failed = invocation.Failed(
        holder="h", delivery=1, attempt=1, error=invocation.Error(kind="X", message="m", fingerprint="f")
    )
    assert channels(log.invocation("shop/coder", failed)) == (["#r"] if shown else [])


def test_thread_of_an_invocation() -> None:
    """A rule that asks for it keeps an invocation in one thread."""
    rule = Rule(channel="#r", events=("invocation.*",), thread=Thread.INVOCATION)
    log = Log(Fleet(slack=Slack(rules=(rule,))))
    notices = log.invocation("shop/coder", invocation.Cancelled(reason="x"))
    assert [(n.place, n.key) for n in notices] == [(Place.REPLY, "invocation:i-1")]


def test_sample_is_the_same_each_time() -> None:
    """An event is in a sample or not, whoever asks; about the part of all that is asked for is in it."""
    taken = [n for n in range(2000) if plan.sampled(f"e{n}", 0.1)]
    assert taken == [n for n in range(2000) if plan.sampled(f"e{n}", 0.1)]
    assert 120 < len(taken) < 280


def test_own_record_is_never_shown() -> None:
    """What is recorded of Slack makes no message, and is not even read."""
    event = slack.Recovered(channel="#fleet", refused_s=1)
    assert Log().control("fleet", event) == ()
    read_ = plan.filters(Slack())
    assert not any(filter_.startswith("ctl.slack") for filter_ in read_[CONTROL])
    assert read_[INVOCATIONS] == ("inv.*.*.*.dead_lettered",)


def test_every_shown_event_has_words() -> None:
    """A spend cap that trips says which one and what to run; an agent's death says why."""
    (cap,) = Log().control("blog_writer", quota.Tripped(key="k", used=10, held=0, cap=10))
    assert (cap.channel, cap.message.command) == ("#blog", "systems quota")
    dead = invocation.DeadLettered(reason=DeathReason.ATTEMPTS_SPENT, attempts=3)
    (notice,) = Log().invocation("blog/writer", dead)
    assert [button.action for button in notice.message.buttons] == ["dead_letter_redrive", "dead_letter_discard"]


def test_incident_without_a_number_is_nobodys() -> None:
    """An event of an incident that has no number, which anybody can publish, is shown nowhere and calls nobody."""
    log = Log()
    declared = incident.Declared(title="Fire", severity=Severity.ULTRA, by="ann", since=_NOW)
    order = incident.PageDue(page="p", person="ann", way="slack", carrier=incident.Carrier.SLACK, policy="night")
    assert [log.control("one", event) for event in (declared, order)] == [(), ()]

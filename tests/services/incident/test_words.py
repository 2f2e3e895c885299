"""What people read of an incident: the call, each project's words, the panel's line, and the post-mortem."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from bus.author import Author
from bus.events import incident as ev
from bus.events.finding import Kind, Severity
from bus.store import Recorded
from services.incident import words
from services.incident.line import lines
from services.incident.postmortem import Bill, Findings, markdown
from services.incident.state import Incident, evolve
from services.incident.timeline import timeline

T0 = datetime(2026, 11, 25, 3, tzinfo=UTC)
DECLARED = ev.Declared(
    title="nobody runs work",
    severity=Severity.ULTRA,
    by="monitor",
    since=T0 - timedelta(minutes=5),
    finding="f1",
    kind=Kind.NO_RUNNER,
    subject="agent_runner",
    command="systems status",
    affected=(ev.Impact(project="shop", reason="nobody runs work: what is asked for waits"),),
    next_at=T0 + timedelta(minutes=30),
)


def _told(*events: tuple[int, ev.IncidentEvent]) -> tuple[Incident, list[Recorded]]:
    """An incident and its records; each event comes so many seconds after the declaration."""
    author, state, records = Author("/test/1", actor="warden"), None, []
    for seq, (after_s, event) in enumerate(((0, DECLARED), *events), 1):
        at = T0 + timedelta(seconds=after_s)
        envelope = author.control("1", event)
        state = evolve(state, 1, event, seq, at)
        records.append(Recorded(seq, envelope.subject, at, envelope, event))
    assert state is not None
    return state, records


def test_words_call_says_what_since_when_and_what_to_run() -> None:
    """Whoever is woken reads what is wrong, since when, whom it hits, where to look, and how to have it."""
    state, _ = _told()
    page = words.page(state, T0)
    assert page.title == "[ultra] incident 1: nobody runs work"
    assert page.body.splitlines() == [
        "nobody runs work",
        "since 02:55:00 UTC (5 min), hits shop",
        "look: systems status",
        "have it: systems incident ack 1",
    ]


def test_words_of_a_project_say_what_is_hit_and_what_still_works() -> None:
    """A project reads what is hit, since when, what still works, what to do and when there are news; the end has the cause."""
    state, _ = _told((10, ev.Acknowledged(by="ann")))
    assert words.opening(state, "shop").splitlines() == [
        "Incident 1 (ultra): nobody runs work",
        "What is hit: shop: nobody runs work: what is asked for waits",
        "Since: 02:55:00 UTC",
        "What still works: requests are accepted and wait; nothing is lost",
        "What to do: nothing, ann has it; next news by 03:30:00 UTC",
    ]
    closed = ev.Closed(by="ann", cause="a full disk", actions=(ev.Action(text="watch it", owner="bob"),))
    over, _ = _told((300, closed))
    assert words.closing(over, "shop").splitlines() == [
        "Incident 1 is over: nobody runs work",
        "shop was hit for 10 min, until 03:05:00 UTC",
        "Cause: a full disk",
        "To be done: watch it (bob)",
    ]


def test_words_of_a_project_promise_no_call_that_was_not_made() -> None:
    """That somebody is being called is said of calls that were ordered and have not all failed, and of no others."""
    order = ev.PageDue(page="p1", person="ann", way="phone", carrier=ev.Carrier.APPRISE)
    failed = ev.Paged(page="p1", person="ann", way="phone", level=1, attempt=1, ok=False, error="no")
    for events, said in (
        ((), "nothing, nobody has it yet"),
        (((5, order),), "nothing, somebody is being called"),
        (((5, order), (6, failed)), "tell somebody who can help: every call has failed"),
    ):
        state, _ = _told(*events)
        assert words.to_do(state) == said


@pytest.mark.parametrize(
    ("events", "stands"),
    [
        ((), "nobody has it, nobody was called"),
        (((5, ev.Acknowledged(by="ann", until=T0 + timedelta(hours=1))),), "ann has it until 04:00:00 UTC, update overdue for 30 min"),
        (((5, ev.Mitigated(by="ann")), (6, ev.Assigned(commander="bob", by="ann"))), "mitigated, bob has it, update overdue for 30 min"),
        (((5, ev.PagingFailed(ways=("ann by phone: no",))),), "NOBODY CAN BE CALLED: every way fails"),
    ],
)  # fmt: skip
def test_words_of_the_panel_say_what_is_missing(events: tuple[tuple[int, ev.IncidentEvent], ...], stands: str) -> None:
    """The panel's line says who has it, what is overdue, and whether anybody can be called."""
    _, records = _told(*events)
    [line] = lines(records, T0 + timedelta(hours=1))
    assert stands in line.told
    assert line.overdue


def test_postmortem_has_the_moments_and_names_each_event() -> None:
    """Detection and reaction are differences of the record's own times, and each line of the timeline names its event."""
    paged = ev.Paged(page="p", person="ann", way="phone", level=1, attempt=1, ok=True)
    closed = ev.Closed(by="ann", cause="a | full\ndisk", open_s=600)
    state, records = _told(
        (3, paged), (60, ev.Acknowledged(by="ann")), (61, ev.Noted(text="x" * 3000, by="ann")), (600, closed)
    )
    text = markdown(state, Findings(lines=timeline(state, records), bill=Bill(problem="no projector answers")))
    for line in (
        "| declared | 2026-11-25 03:00:00 UTC | 5 min |",
        "| first call taken by a service | 2026-11-25 03:00:03 UTC | 5 min |",
        "| acknowledged for the first time | 2026-11-25 03:01:00 UTC | 6 min |",
        "| closed | 2026-11-25 03:10:00 UTC | 15 min |",
        "Not known: no projector answers.",
        "- Could it have been noticed before 5 min had passed?",
        "- What keeps it from happening again? No action was named.",
    ):
        assert line in text.splitlines()
    assert [f"`CONTROL:{seq}`" in text for seq in range(1, 6)] == [True] * 5
    assert "closed after 10 min: a / full disk" in text
    assert max(map(len, text.splitlines())) < 700

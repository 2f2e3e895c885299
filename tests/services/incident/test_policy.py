"""Escalation: who is due at which moment, by steps, hours, rotations, failures and acknowledgements."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.events import incident as ev
from bus.events.finding import Severity
from services.fleet.duty import Day, Escalation, Hours, Incidents, Person, Rotation, Step
from services.incident import commands as ask
from services.incident.decision import decide
from services.incident.policy import Duty, due, is_within, on_call, policies_of, reaches
from services.incident.state import Incident, evolve

#: A Wednesday.
T0 = datetime(2026, 11, 25, 3, tzinfo=UTC)


def _incident(*projects: str, severity: Severity = Severity.ULTRA) -> Incident:
    affected = tuple(ev.Impact(project=name, reason="no runner") for name in projects)
    event = ev.Declared(title="no runner", severity=severity, by="monitor", since=T0, affected=affected)
    state = evolve(None, 1, event, 1, T0)
    assert state is not None
    return state


def _duty(*steps: Step, **more: object) -> Duty:
    base: dict[str, object] = {
        "people": {"ann": Person(slack="U1", ways={"phone": "ANN"}), "bob": Person(ways={"mail": "BOB"})},
        "policies": {"night": Escalation(steps=steps)},
        "limits": Incidents(escalation="night", retry=10, retry_longest=60),
        "channels": {"shop": "#shop-ops", "ledger": "#ledger-ops", "lab": "#shop-ops"},
    }
    return Duty(**(base | more))  # type: ignore[arg-type]


def _after(state: Incident, *events: ev.IncidentEvent, at: datetime = T0) -> Incident:
    for event in events:
        after = evolve(state, 1, event, state.last_seq + 1, at)
        assert after is not None
        state = after
    return state


def _who(orders: tuple[ev.PageDue, ...]) -> list[tuple[int, str, str, int, int]]:
    return [(order.level, order.person, order.way, order.turn, order.attempt) for order in orders]


def test_policy_steps_come_after_their_time_and_repeat() -> None:
    """The first step calls at once by every way, the second later, and each again after its own pause."""
    duty = _duty(Step(whom=("ann",), repeat=120), Step(whom=("bob",), after=60, repeat=None))
    state = _incident("shop")
    first = due(state, duty, T0)
    assert _who(first) == [(1, "ann", "slack", 1, 1), (1, "ann", "phone", 1, 1)]
    assert first[0].target == "U1"
    assert first[1].target == ""
    answers = [ev.Paged(page=o.page, person="ann", way=o.way, level=1, attempt=1, ok=True) for o in first]
    state = _after(state, *first, *answers)
    assert due(state, duty, T0 + timedelta(seconds=59)) == ()
    assert _who(due(state, duty, T0 + timedelta(seconds=60))) == [(2, "bob", "mail", 1, 1)]
    again = due(state, duty, T0 + timedelta(seconds=250))
    assert _who(again)[:2] == [(1, "ann", "slack", 3, 1), (1, "ann", "phone", 3, 1)], "what was missed is made once"


def test_policy_failures_are_tried_again_after_growing_pauses() -> None:
    """A way that fails is called again after 10, 20, 40, 60, 60 … seconds, for ever, and never while its answer is awaited."""
    duty = _duty(Step(whom=("bob",), repeat=5))
    state, now, pauses = _incident("shop"), T0, []
    for _ in range(7):
        asked = now
        while not (orders := due(state, duty, now)):
            now += timedelta(seconds=1)
        pauses.append((now - asked).total_seconds())
        [order] = orders
        state = _after(state, order, at=now)
        assert due(state, duty, now + timedelta(hours=1)) == ()
        failed = ev.Paged(
            page=order.page, person="bob", way="mail", level=1, attempt=order.attempt, ok=False, error="no"
        )
        state = _after(state, failed, at=now)
    assert pauses == [0, 10, 20, 40, 60, 60, 60]
    assert state.lines[0].failures == 7


def test_policy_acknowledgement_ends_calls_and_its_lapse_begins_anew() -> None:
    """Nothing is due while somebody has it; when that lapses the first step calls again."""
    duty = _duty(Step(whom=("bob",), repeat=5))
    until = T0 + timedelta(hours=1)
    state = _after(_incident("shop"), ev.Acknowledged(by="ann", until=until))
    assert due(state, duty, T0 + timedelta(minutes=59)) == ()
    [expired] = decide(state, ask.Expire(), until)
    state = _after(state, expired, at=until)
    assert _who(due(state, duty, until)) == [(1, "bob", "mail", 1, 1)]


def test_policy_is_that_of_the_affected_projects() -> None:
    """Each project's own policy counts, else the common one; two that name the same person call that person once."""
    policies = {
        "night": Escalation(steps=(Step(whom=("bob",)),)),
        "money": Escalation(steps=(Step(whom=("bob", "ann"), how=("mail", "phone")), Step(whom=("channel",)))),
    }
    duty = _duty(policies=policies, projects={"shop": "", "ledger": "money", "lab": ""})
    assert policies_of(_incident("shop", "lab"), duty) == ("night",)
    assert policies_of(_incident(), duty) == ("night",)
    both = _incident("shop", "ledger", "lab")
    assert policies_of(both, duty) == ("money", "night")
    assert _who(due(both, duty, T0)) == [
        (1, "bob", "mail", 1, 1),
        (1, "ann", "phone", 1, 1),
        (2, "#ledger-ops", "channel", 1, 1),
        (2, "#shop-ops", "channel", 1, 1),
    ]


def test_policy_only_ultra_calls() -> None:
    """A concern waits for a person: nobody is called for it."""
    duty = _duty(Step(whom=("bob",)))
    assert due(_incident("shop", severity=Severity.CONCERN), duty, T0) == ()
    assert reaches(_incident("shop"), duty, T0)
    assert not reaches(_incident("shop"), Duty(), T0)


def test_policy_hours_hold_a_step_back() -> None:
    """A step of the office's hours waits for them, one of the other hours does not; the office's clock counts."""
    office = Hours(time_zone="Europe/Paris")
    duty = _duty(
        Step(whom=("ann",), how=("phone",), within="office"),
        Step(whom=("bob",), outside="office"),
        hours={"office": office},
    )
    state = _incident("shop")
    assert _who(due(state, duty, T0)) == [(2, "bob", "mail", 1, 1)]
    morning = datetime(2026, 11, 25, 8, 0, tzinfo=UTC)
    assert [order.person for order in due(state, duty, morning)] == ["ann"]
    assert not is_within(office, morning - timedelta(minutes=1))
    assert not is_within(office, datetime(2026, 11, 28, 10, tzinfo=UTC)), "a Saturday"


def test_policy_hours_over_midnight_belong_to_their_first_day() -> None:
    """Friday's night ends on Saturday morning, and Saturday has none of its own."""
    night = Hours(days=(Day.FRI,), start="22:00", end="06:00")
    assert is_within(night, datetime(2026, 11, 27, 23, tzinfo=UTC))
    assert is_within(night, datetime(2026, 11, 28, 5, 59, tzinfo=UTC))
    assert not is_within(night, datetime(2026, 11, 28, 6, 0, tzinfo=UTC))
    assert not is_within(night, datetime(2026, 11, 28, 23, tzinfo=UTC))
    assert not is_within(night, datetime(2026, 11, 27, 5, tzinfo=UTC))


@pytest.mark.parametrize(
    ("now", "person"),
    [
        ("2026-10-19T07:00:00+00:00", "ann"),
        ("2026-10-26T07:59:59+00:00", "ann"),
        ("2026-10-26T08:00:00+00:00", "bob"),
        ("2026-11-02T08:00:00+00:00", "ann"),
        ("2026-10-12T07:00:00+00:00", "bob"),
    ],
)
def test_policy_hand_over_keeps_its_hour_when_clocks_change(now: str, person: str) -> None:
    """Turns of a week begin at nine by the clock of Paris, before and after the end of summer time."""
    rotation = Rotation(people=("ann", "bob"), begins="2026-10-19T09:00", time_zone="Europe/Paris")
    assert on_call(rotation, datetime.fromisoformat(now)) == person


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 400), st.booleans()), min_size=1, max_size=30))
def test_policy_never_orders_what_decide_refuses(history: list[tuple[int, bool]]) -> None:
    """Whatever is due at any time, after any answers, may be ordered then, and nothing is due twice."""
    duty = _duty(Step(whom=("ann",), repeat=30), Step(whom=("bob", "ann"), after=20, repeat=40))
    state, now, pages = _incident("shop"), T0, set()
    for seconds, ok in history:
        now += timedelta(seconds=seconds)
        for order in due(state, duty, now):
            assert order.page not in pages
            pages.add(order.page)
            state = _after(state, *decide(state, ask.Page(order), now), at=now)
        for line in state.lines:
            if line.waits:
                paged = ev.Paged(
                    page=line.page, person=line.person, way=line.way, level=line.level, attempt=line.attempt, ok=ok
                )
                state = _after(state, *decide(state, ask.Answer(paged), now), at=now)
    assert msgspec.json.decode(msgspec.json.encode(state), type=Incident) == state

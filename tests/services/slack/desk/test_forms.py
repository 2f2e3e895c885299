"""Modals: within Slack's limits, and what comes back is a command."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.events.finding import Severity
from bus.events.incident import Action
from services.incident.state import Incident, Status
from services.slack.desk import forms, incidents
from services.slack.desk.forms import FORMS, Kept, Wrong
from tests.slack import limits

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
_WILD = st.text(st.sampled_from("ab <!channel>&`*\n\u00e9"), max_size=5000)


def incident(title: str = "slow") -> Incident:
    """An open one."""
    return Incident(
        number=3,
        title=title,
        severity=Severity.ULTRA,
        status=Status.DECLARED,
        declared_at=NOW,
        opened_at=NOW,
        paging_from=NOW,
        by="monitor",
        since=NOW,
        last_seq=1,
    )


@given(_WILD)
def test_any_form_is_one_that_slack_takes(text: str) -> None:
    """Whatever a title says, the modal is within the limits and its metadata comes back whole."""
    kept = Kept(about="3", channel="C1")
    for name, draw in FORMS.items():
        about = incident(text) if name.startswith("incident") else text or "x"
        view = draw(about, kept)
        assert not limits.view(view)
        assert forms.kept_of(view) == kept
    assert not limits.view(forms.told(text, [incidents.line(incident(text), NOW)]))


@pytest.mark.parametrize(
    ("name", "about", "filled", "command", "words", "options"),
    [
        ("freeze", "", {"reason": "why", "for": "30m"}, "freeze", (), {"for": "30m"}),
        ("freeze", "", {"reason": "why", "confirm": "hard"}, "freeze hard", (), {"confirm": "hard"}),
        ("thaw", "", {"reason": "why"}, "thaw", (), {}),
        (
            "cap_raise",
            "shop/coder tokens day",
            {"reason": "why", "to": "2M", "until": "8h"},
            "quota raise",
            ("shop/coder", "2M"),
            {"unit": "tokens", "window": "day", "until": "8h"},
        ),
        ("incident_update", "3", {"reason": "news"}, "incident update", ("3",), {}),
        ("incident_close", "3", {"reason": "cause", "actions": "a @ann"}, "incident close", ("3",), {"actions": "a @ann"}),
    ],
)  # fmt: skip
def test_a_form_is_the_command_that_one_would_type(
    name: str, about: str, filled: dict[str, str], command: str, words: tuple[str, ...], options: dict[str, str]
) -> None:
    """What is filled in becomes words, options and the reason of the same command."""
    found = forms.command(name, Kept(about=about), filled)
    assert found is not None
    assert (found.spec.name, found.words, found.options, found.reason) == (command, words, options, filled["reason"])


@pytest.mark.parametrize(
    ("filled", "field"),
    [
        ({}, "reason"),
        ({"reason": "why", "confirm": "harrd"}, "confirm"),
        ({"reason": "why", "confirm": "hard", "for": "1h"}, "for"),
    ],
)
def test_a_hard_freeze_needs_its_word(filled: dict[str, str], field: str) -> None:
    """A wrong word freezes nothing, neither hard nor soft, and the field that is wrong is named."""
    with pytest.raises(Wrong) as caught:
        forms.command("freeze", Kept(), filled)
    assert caught.value.field == field


def test_actions_have_owners_where_one_is_named() -> None:
    """One action a line, with whoever stands behind the last at sign."""
    assert incidents.actions("- write a test @ann\n\nmail x@y.example about it\n• tell all @bob lee") == (
        Action(text="write a test", owner="ann"),
        Action(text="mail x@y.example about it"),
        Action(text="tell all", owner="bob lee"),
    )

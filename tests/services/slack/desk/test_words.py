"""What people type behind /systems, as Slack and their keyboards pass it on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.errors import BadAsk
from services.slack.desk import words
from services.slack.desk.permission import Permission

ID = "01890000-0000-7000-8000-000000000000"


@pytest.mark.parametrize(
    ("text", "name", "said", "options", "reason"),
    [
        ("", "help", (), {}, ""),
        ("  Status ", "status", (), {}, ""),
        ("freeze it burns", "freeze", (), {}, "it burns"),
        ("freeze --reason it burns --for 30m", "freeze", (), {"for": "30m"}, "it burns"),
        ("freeze --for=30m it burns", "freeze", (), {"for": "30m"}, "it burns"),
        ("freeze hard it burns --confirm hard", "freeze hard", (), {"confirm": "hard"}, "it burns"),
        ("freeze it burns --hard --confirm hard", "freeze hard", (), {"confirm": "hard"}, "it burns"),
        ("pause shop/coder it doesn't stop", "pause", ("shop/coder",), {}, "it doesn't stop"),
        ("resume shop/coder", "resume", ("shop/coder",), {}, ""),
        (f"redrive {ID} {ID} try again", "redrive", (ID, ID), {}, "try again"),
        ("dlq redrive again --role shop/coder --limit 3", "redrive", (), {"role": "shop/coder", "limit": "3"}, "again"),
        ("quota raise shop 2M --until 8h we need it", "quota raise", ("shop", "2M"), {"until": "8h"}, "we need it"),
        ("query failure_rate since=6h", "query", ("failure_rate", "since=6h"), {}, ""),
        ("incident", "incident ls", (), {}, ""),
        ("incident assign 3 <@U123ABC|ann>", "incident assign", ("3", "@U123ABC"), {}, ""),
        ("incident update 3 see <#C1|ops> on <https://a.example|a.example>", "incident update", ("3",), {}, "see #ops on a.example"),
    ],
)  # fmt: skip
def test_a_command_is_read(text: str, name: str, said: tuple[str, ...], options: dict[str, str], reason: str) -> None:
    """Words, options and the reason are told apart without quotation marks."""
    found = words.read(text)
    assert (found.spec.name, found.words, found.options, found.reason) == (name, said, options, reason)


def test_what_keyboards_and_slack_change_is_undone() -> None:
    """Curly quotation marks, long dashes and entities mean what was meant."""
    found = words.read("freeze \u2014reason \u201ca &amp; b\u201d \u2014for 30m")
    assert (found.reason, found.options) == ("a & b", {"for": "30m"})


@pytest.mark.parametrize(
    "typed", ["sql SELECT 1 &lt; 2", "sql `SELECT 1 < 2`", "sql ```SELECT 1 < 2```", "sql ```sql SELECT 1 < 2```"]
)
def test_a_statement_is_taken_as_it_stands(typed: str) -> None:
    """SQL keeps its signs, and loses the fences that people put around code."""
    assert words.read(typed).words == ("SELECT 1 < 2",)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sttus", "unknown command 'sttus', did you mean 'status'?"),
        ("incident clos 3", "did you mean 'close'?"),
        ("dlq --limitt 3", "unknown option '--limitt', did you mean 'limit'?"),
        ("status now", "expected /systems status, got: now"),
        ("freeze", "got: no reason; it goes into the record, with your name"),
        ("pause", "expected /systems pause PROJECT/ROLE REASON"),
        ("sql", "expected /systems sql STATEMENT, got: nothing"),
        ("freeze why --for", "expected a value behind --for, got: nothing"),
        ('freeze "why', "expected quotation marks in pairs, got: 1"),
    ],
)
def test_what_is_no_command_says_what_was_expected(text: str, expected: str) -> None:
    """A mistake gets one sentence with what is near."""
    with pytest.raises(BadAsk) as caught:
        words.read(text)
    assert expected in str(caught.value)


@given(
    st.one_of(
        st.text(),
        st.builds(
            " ".join, st.lists(st.sampled_from([*words.COMMANDS, "--reason", "--for", "shop/coder", '"', "why"]))
        ),
    )
)
def test_any_text_is_a_command_or_a_mistake_with_a_sentence(text: str) -> None:
    """Nothing that people can type breaks the parser, and what must have a reason has one."""
    try:
        found = words.read(text)
    except BadAsk:
        return
    assert found.spec.least <= len(found.words) <= max(found.spec.most, 1)
    assert found.reason or not found.spec.must


def test_what_changes_something_needs_more_than_a_look() -> None:
    """Every command that acts needs a permission beyond view, and every one that only looks needs view or sql."""
    for spec in words.COMMANDS.values():
        assert (spec.needs in (Permission.VIEW, Permission.SQL)) is not spec.acts, spec.name

"""Messages within Slack's limits, whatever is put into them."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from services.slack.desk import answer, blocks
from tests.slack import limits

_WILD = st.text(st.sampled_from("ab <!channel>&`*_~|\n@\u00e9\u200b"), max_size=6000)


def _faults(made: list[dict[str, Any]]) -> list[str]:
    return limits.message({"text": "x", "blocks": made})


@given(st.lists(_WILD, max_size=30))
def test_any_lines_fit_into_blocks(lines: list[str]) -> None:
    """Blocks of text are within the limits, and no line ends their fence."""
    made = blocks.message(blocks.mono(lines))
    assert not _faults(made)
    assert all(block["text"]["text"].count("```") == 2 for block in made if block["type"] == "section")


@given(st.lists(st.lists(_WILD, min_size=3, max_size=3), max_size=80), _WILD)
def test_any_table_is_an_answer(rows: list[list[str]], title: str) -> None:
    """A table of anything is a message that Slack takes; what is cut is whole in a file."""
    made = answer.table(title or "t", ["a", "b", "c"], rows, empty="nothing", name="rows")
    assert not _faults(made.whole)
    if len(rows) > blocks.LINES:
        assert made.file is not None
        assert len(made.file.content.splitlines()) >= len(rows) + 1


@given(_WILD, _WILD)
def test_any_sentence_is_an_answer(sentence: str, by: str) -> None:
    """Whatever an error says can be said in Slack."""
    for made in (answer.said(sentence or "-"), answer.done(sentence, by or "-"), answer.refused(sentence)):
        assert not _faults(made.whole)
        assert made.text

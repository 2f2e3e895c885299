"""Rows of the tables as messages and as files."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.projector.remote import Column, Rows
from services.slack.desk import tables
from tests.slack import limits
from tests.slack.fake import spoken

_VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=300), st.lists(st.integers())
)


@given(st.lists(st.fixed_dictionaries({"a": _VALUES, "b": _VALUES}), max_size=60), st.sampled_from(["", "rows"]))
def test_any_rows_are_an_answer_and_a_file_has_all_of_them(found: list[dict[str, Any]], cut: str) -> None:
    """Whatever lies in the tables is a message that Slack takes; what a message cuts is whole in the file."""
    made = tables.shown(Rows([Column("a", "int64"), Column("b", "string")], found, cut=cut), "rows")
    assert not limits.message({"text": made.text, "blocks": made.whole})
    if made.file is not None:
        read = list(csv.reader(io.StringIO(made.file.content.decode(), newline="")))
        assert len(read) == len(found) + 1
    assert ("only the first" in spoken({"blocks": made.whole})) is (cut != "")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, ""),
        (True, "true"),
        (12345678, "12345678"),
        (0.1 + 0.2, "0.3"),
        (12345678.9, "12,345,678.90"),
        ("2026-11-25T12:00:00.123456Z", "2026-11-25 12:00:00.123"),
        ({"a": 1}, '{"a":1}'),
    ],
)
def test_a_value_is_shown_for_eyes(value: object, said: str) -> None:
    """Six digits, times without a T, structures as JSON."""
    assert tables.cell(value) == said

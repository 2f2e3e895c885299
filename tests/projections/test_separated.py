"""Rows as comma-separated values."""

from __future__ import annotations

import csv
import io

from hypothesis import given
from hypothesis import strategies as st

from projections.separated import separated

_CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0"))


@given(st.lists(st.tuples(_CELLS, _CELLS), max_size=20))
def test_rows_come_back_as_they_were(rows: list[tuple[str, str]]) -> None:
    """Whatever a cell holds, a reader gets as many rows and the same cells back."""
    read = list(csv.reader(io.StringIO(separated(rows), newline="")))
    assert [tuple(row) for row in read] == rows

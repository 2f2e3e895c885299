"""Recorded traces: the shipped one, both variants of the format, and every kind of bad row."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.replay_file import HEADER, TraceFileError, TraceRow, read_trace

SHIPPED = Path(__file__).parents[2] / "infra/example/azure-llm-2023-code.csv"
GOOD = "2023-11-16 18:17:03.9799600,4808,10"


def write(folder: Path, *lines: str, header: str = HEADER, end: str = "\n") -> Path:
    """A trace file of these rows."""
    path = folder / "trace.csv"
    path.write_bytes(end.join((header, *lines, "")).encode())
    return path


def test_trace_shipped_has_the_published_totals() -> None:
    """8,819 rows over 57 minutes, with the token sums that were published."""
    rows = list(read_trace(SHIPPED))
    assert len(rows) == 8_819
    assert sum(row.input_tokens for row in rows) == 18_059_974
    assert sum(row.output_tokens for row in rows) == 245_896
    assert rows[0] == TraceRow(0.0, 4808, 10)
    assert rows[-1].offset_s == pytest.approx(3435.948056, abs=1e-7)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_trace_of_2024_is_read_too(tmp_path: Path, end: str) -> None:
    """Time zone suffix, six digits or none, blank lines and a byte order mark are taken; midnight is passed."""
    rows = ("2024-05-10 23:59:59.5+00:00,2162,5", "2024-05-11 00:00:07+00:00,1,2", "", "2024-05-11T00:00:08Z,3,4")
    path = write(tmp_path, *rows, header=f"\ufeff{HEADER}", end=end)
    assert list(read_trace(path)) == [TraceRow(0.0, 2162, 5), TraceRow(7.5, 1, 2), TraceRow(8.5, 3, 4)]


def test_trace_rows_out_of_order_are_due_with_the_row_before(tmp_path: Path) -> None:
    """No row is dropped, and offsets neither fall nor are negative."""
    path = write(tmp_path, "2024-05-10 00:00:05,1,1", "2024-05-10 00:00:03,2,2", "2024-05-10 00:00:06,3,3")
    assert list(read_trace(path)) == [TraceRow(0.0, 1, 1), TraceRow(0.0, 2, 2), TraceRow(1.0, 3, 3)]


def test_trace_without_rows_is_empty(tmp_path: Path) -> None:
    """A header alone is a trace of nothing."""
    assert list(read_trace(write(tmp_path))) == []


@pytest.mark.parametrize(
    "row",
    [
        "x",
        "2023-11-16 18:17:03.9799600,4808",
        "2023-11-16 18:17:03.9799600,4808,10,1",
        "2023-11-16 18:17:03.9799600,-1,10",
        "2023-11-16 18:17:03.9799600,1.5,10",
        "2023-11-16 18:17:03.9799600,1_0,10",
        "2023-11-16 18:17:03.9799600,4808,",
        "2023-11-16 18:17:03.9799600,1234567890123,1",
        "2023-11-16 18:17:99,1,1",
        "2023-11-16 18:17:0e1,1,1",
        "2023-11-16 18:17:03+02:00,1,1",
        "2023-11-31 18:17:03,1,1",
        "2023-11-16 25:17:03,1,1",
        "16/11/2023 18:17:03,1,1",
        ",,",
        "\ufffd,1,1",
    ],
)
def test_trace_bad_row_is_named_by_its_line(tmp_path: Path, row: str) -> None:
    """The rows before it are handed out; the sentence names file, line, an example and what came."""
    path = write(tmp_path, GOOD, row)
    rows = read_trace(path)
    assert next(rows) == TraceRow(0.0, 4808, 10)
    with pytest.raises(TraceFileError) as caught:
        next(rows)
    assert caught.value.line == 3
    assert str(caught.value) == f"{path}:3: expected a row such as {GOOD} (UTC), got: {row!r}"


@pytest.mark.parametrize("header", ["", "time,in,out", GOOD])
def test_trace_with_another_header_is_refused(tmp_path: Path, header: str) -> None:
    """The sentence says which header was expected."""
    with pytest.raises(TraceFileError, match=f":1: expected the header {HEADER}, got: "):
        list(read_trace(write(tmp_path, header=header)))


def test_trace_that_cannot_be_opened_is_one_sentence(tmp_path: Path) -> None:
    """A missing file and a folder are told plainly."""
    with pytest.raises(TraceFileError, match=r"expected a trace that can be read, got: No such file"):
        list(read_trace(tmp_path / "none.csv"))
    with pytest.raises(TraceFileError, match="expected a trace that can be read, got: Is a directory"):
        list(read_trace(tmp_path))


@given(
    st.lists(
        st.tuples(st.integers(0, 10**9), st.integers(0, 10**6), st.integers(0, 10**6)).map(
            lambda row: TraceRow(row[0] / 1e3, row[1], row[2])
        ),
        max_size=30,
    )
)
def test_trace_gives_back_what_was_recorded(tmp_path_factory: pytest.TempPathFactory, rows: list[TraceRow]) -> None:
    """Rows written in order come back with their distances in time and their tokens."""
    rows = sorted(rows)
    start = datetime(2024, 5, 10, tzinfo=UTC)
    lines = [f"{start + timedelta(seconds=row.offset_s)},{row.input_tokens},{row.output_tokens}" for row in rows]
    found = list(read_trace(write(tmp_path_factory.mktemp("trace"), *lines)))
    assert [row[1:] for row in found] == [row[1:] for row in rows]
    assert [row.offset_s for row in found] == pytest.approx([row.offset_s - rows[0].offset_s for row in rows], abs=1e-5)

"""One file of the archive, from rows to bytes and back."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from projections import fold
from projections.archive import manifest, segment
from services.fleet.spec import MIN_MEMORY_MB

CREATED = "2026-11-25T09:00:00Z"


@pytest.fixture
def log() -> Iterator[duckdb.DuckDBPyConnection]:
    """Empty tables."""
    with duckdb.connect() as connection:
        fold.create(connection)
        yield connection


def put(
    log: duckdb.DuckDBPyConnection, stream: str, seq: int, raw: bytes = b"{}", at: str = "2026-11-25 10:00:00"
) -> None:
    """One row."""
    log.execute(
        "INSERT INTO hot.log (stream, seq, stored_at, subject, raw, error_message) VALUES (?, ?, ?, 's', ?, ?)",
        [stream, seq, at, raw, "it's 'quoted'\n" if seq % 2 else None],
    )


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sequences=st.sets(st.integers(1, 60), min_size=1), raws=st.lists(st.binary(max_size=40), min_size=60, max_size=60)
)
def test_file_reads_back_row_for_row(
    log: duckdb.DuckDBPyConnection, tmp_path: Path, sequences: set[int], raws: list[bytes]
) -> None:
    """Whatever rows go in come out, in order of sequence; what is not among them is absent; the sidecar adds up."""
    log.execute("DELETE FROM hot.log")
    for seq in sorted(sequences, reverse=True):
        put(log, "CONTROL", seq, raws[seq - 1])
        put(log, "INVOCATIONS", seq, b"of another stream")
    last = max(sequences)
    made = segment.write(log, tmp_path, stream="CONTROL", created=CREATED, first=1, last=last)
    file = tmp_path / made.key
    wanted = log.execute("SELECT * FROM hot.log WHERE stream = 'CONTROL' ORDER BY seq").fetchall()
    assert log.read_parquet(str(file), hive_partitioning=False).fetchall() == wanted
    absent = {seq for a, b in made.absent for seq in range(a, b + 1)}
    assert absent == set(range(1, last + 1)) - sequences
    assert manifest.inner_fault(made) is None
    assert manifest.decode((tmp_path / made.sidecar).read_bytes()) == made


def test_file_lies_under_the_day_of_its_first_message(log: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    """A server's clock that went back puts earlier times into the file of the day that it began with, and both ends are kept."""
    put(log, "CONTROL", 1, at="2026-11-25 00:00:01")
    put(log, "CONTROL", 2, at="2026-11-24 23:59:59")
    made = segment.write(log, tmp_path, stream="CONTROL", created=CREATED, first=1, last=2)
    assert made.day == date(2026, 11, 25)
    assert (made.first_at, made.last_at) == (
        datetime(2026, 11, 24, 23, 59, 59, tzinfo=UTC),
        datetime(2026, 11, 25, 0, 0, 1, tzinfo=UTC),
    )


@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_damage_is_found(log: duckdb.DuckDBPyConnection, tmp_path: Path, damage: str) -> None:
    """One changed bit, a cut end and a missing file are each found, with the file's name and the remedy."""
    for seq in range(1, 100):
        put(log, "CONTROL", seq)
    made = segment.write(log, tmp_path, stream="CONTROL", created=CREATED, first=1, last=99)
    assert segment.check(tmp_path, made) is None
    file = tmp_path / made.key
    raw = bytearray(file.read_bytes())
    if damage == "flip":
        raw[200] ^= 1
        file.write_bytes(raw)
    elif damage == "cut":
        file.write_bytes(raw[:-1])
    else:
        file.unlink()
    found = segment.check(tmp_path, made)
    assert found is not None
    assert found.kind == ("missing" if damage == "gone" else "corrupt")
    assert str(file) in found.sentence
    assert "--repair" in found.sentence
    assert (segment.glance(tmp_path, made) is None) == (damage == "flip")


def test_row_that_is_there_twice_makes_no_file(log: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    """Rows that hold a sequence twice are refused, and nothing is left on the disk."""
    put(log, "CONTROL", 1)
    put(log, "CONTROL", 1)
    with pytest.raises(segment.SegmentUnlike, match="each once"):
        segment.write(log, tmp_path, stream="CONTROL", created=CREATED, first=1, last=1)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_file_is_written_within_the_least_memory_of_a_projector(tmp_path: Path) -> None:
    """However many rows a file has, they are sorted and written a part at a time: sorting all at once would not fit here."""
    rows = 40_000
    with duckdb.connect(
        config={"memory_limit": f"{MIN_MEMORY_MB}MB", "threads": 1, "preserve_insertion_order": False}
    ) as connection:
        connection.execute(f"ATTACH '{tmp_path}/tables.duckdb' AS tables (STORAGE_VERSION 'v1.5.0')")
        connection.execute("USE tables")
        fold.create(connection)
        for first in range(0, rows, 4_000):
            # Batches lie in the order of their types, and not of their sequences.
            connection.execute(
                "INSERT INTO hot.log BY NAME SELECT 'CONTROL' AS stream, i + 1 AS seq, TIMESTAMP '2026-11-25' AS stored_at, "
                "'ctl.drill.x.passed' AS subject, repeat(md5(i::VARCHAR), 32)::BLOB AS raw FROM range(?, ?) AS t(i) ORDER BY i DESC",
                [first, first + 4_000],
            )
        connection.execute("CHECKPOINT tables")
        made = segment.write(
            connection, tmp_path / "archive", stream="CONTROL", created="2026-11-25T00:00:00Z", first=1, last=rows
        )
    assert (made.rows, made.first, made.last, made.absent) == (rows, 1, rows, ())
    assert pq.read_table(tmp_path / "archive" / made.key, columns=["seq"])["seq"].to_pylist() == list(
        range(1, rows + 1)
    )

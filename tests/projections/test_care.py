"""What is done about a fleet, as tables: sweeps, findings, actions, decisions, cards."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import duckdb
import msgspec
import pytest

from bus.events import finding, ops
from projections import sources
from tests.projections.bad_day import history
from tests.projections.written import START, Written

OPENED = finding.Opened(
    kind=finding.Kind.RAISED, severity=finding.Severity.CONCERN, title="it is slow", subject="shop/coder", since=START
)
GONE = finding.Closed(reason=finding.CloseReason.GONE)


@pytest.fixture(scope="module")
def day() -> Iterator[duckdb.DuckDBPyConnection]:
    """The tables of a bad day."""
    connection = history().tables()
    yield connection
    connection.close()


def rows(day: duckdb.DuckDBPyConnection, statement: str) -> list[tuple[Any, ...]]:
    """What a statement finds."""
    return day.execute(statement).fetchall()


def test_finding_that_comes_back_is_a_row_of_its_own(day: duckdb.DuckDBPyConnection) -> None:
    """Each opening is a row with its own end; a silence counts for the opening that it was made in."""
    assert rows(
        day, "SELECT opening, state, closed_because, silenced_by FROM findings WHERE fingerprint = 'f2' ORDER BY ALL"
    ) == [
        (1, "closed", "gone", ""),
        (2, "open", None, "ann"),
    ]


def test_finding_says_its_last_word(day: duckdb.DuckDBPyConnection) -> None:
    """A finding that got worse has the severity and the title of the change, and the kind and subject of its beginning."""
    assert rows(day, "SELECT kind, subject, severity, title FROM findings WHERE fingerprint = 'f1'") == [
        ("dead_letters", "shop/broken", "ultra", "9 dead letters")
    ]


def test_what_is_raised_belongs_to_the_opening_after_it(tables: duckdb.DuckDBPyConnection) -> None:
    """A finding that is only raised is no row; raised before its opening, and again after its end, it counts for the next one."""
    log = Written()
    raised = finding.Raised(by="shop/coder", severity=finding.Severity.CONCERN, title="it is slow")
    log.control("f1", raised)
    log.control("f2", raised, OPENED, raised, GONE, raised, OPENED)
    log.tables(tables)
    assert rows(tables, "SELECT fingerprint, opening, raised, first_seq, last_seq FROM findings ORDER BY ALL") == [
        ("f2", 1, 2, 2, 5),
        ("f2", 2, 1, 6, 7),
    ]


def test_silence_speaks_again_at_its_time(tables: duckdb.DuckDBPyConnection) -> None:
    """A silenced finding speaks once its time is over, though no sweep has said so; an explained or a closed one does not."""
    log = Written()
    until = log.now() + timedelta(minutes=5)
    log.control("f1", OPENED, finding.Silenced(owner="ann", reason="known", until=until))
    log.control("f2", msgspec.structs.replace(OPENED, cause="f1"))
    log.control("f3", OPENED, GONE)
    log.tables(tables)
    speak = []
    for moment in (until - timedelta(microseconds=1), until):
        tables.execute(f"CREATE OR REPLACE MACRO moment() AS TIMESTAMP '{moment:%Y-%m-%d %H:%M:%S.%f}'")
        speak.append(rows(tables, "SELECT fingerprint FROM findings WHERE speaks"))
    assert speak == [[], [("f1",)]]


def test_decision_knows_what_took_its_place(day: duckdb.DuckDBPyConnection) -> None:
    """A superseded decision names its successor and leads to both events; the one that stands names none."""
    assert rows(day, "SELECT number, supersedes, superseded_by FROM decisions ORDER BY number") == [
        (1, None, 2),
        (2, 1, None),
    ]
    cursor = day.execute("FROM decisions WHERE number = 1")
    row = dict(zip([column[0] for column in cursor.description], cursor.fetchall()[0], strict=True))
    condition, parameters = sources.events_of("decisions", row)
    found = day.execute(f"SELECT key FROM events WHERE {condition} ORDER BY seq", parameters).fetchall()  # noqa: S608
    assert found == [("1",), ("2",)]


def test_card_that_is_handed_again_is_a_row_of_its_own(day: duckdb.DuckDBPyConnection) -> None:
    """A closed card says who sits there now and how long it waited; the next one of the seat waits by itself."""
    assert rows(day, "SELECT opening, state, closed_because, closed_by, waited_s FROM cards ORDER BY opening") == [
        (1, "closed", "back", "boot-2", 1.0),
        (2, "open", None, None, None),
    ]


def test_action_ends_as_its_last_event_says(day: duckdb.DuckDBPyConnection) -> None:
    """A finished action is ok by its own word, a refused one is neither done nor failed, and says why."""
    assert rows(day, "SELECT id, state, ok, refused_because, evidence FROM ops_actions ORDER BY id") == [
        ("o1", "finished", True, None, '{"pid":7}'),
        ("o2", "refused", None, "not from inside", None),
    ]


def test_rows_lead_back_to_their_events(day: duckdb.DuckDBPyConnection) -> None:
    """The sequences of a row are those of the first and the last event that it was made of."""
    for table, key in (
        ("sweeps", "id"),
        ("findings", "fingerprint"),
        ("ops_actions", "id"),
        ("incidents", "number"),
        ("cards", "seat"),
    ):
        wrong = f"""
            SELECT t.{key} FROM {table} AS t
            WHERE NOT EXISTS (FROM events AS e WHERE e.stream = 'CONTROL' AND e.seq = t.first_seq AND e.key = CAST(t.{key} AS VARCHAR))
                OR NOT EXISTS (FROM events AS e WHERE e.stream = 'CONTROL' AND e.seq = t.last_seq AND e.key = CAST(t.{key} AS VARCHAR))
        """  # noqa: S608 (our own names)
        assert rows(day, wrong) == []


def test_evidence_that_is_no_text_stops_nobody(tables: duckdb.DuckDBPyConnection) -> None:
    """An action whose evidence has bytes that are no UTF-8 is shown as far as it can be read, and hides no other."""
    log = Written()
    log.control("o1", ops.Requested(action="restart", target="warden", who="ann"))
    log.control("o1", ops.Finished(ok=True, took_s=1, evidence=msgspec.Raw(b'"\xff"')))
    log.control("o2", ops.Requested(action="reload", target="fleet.toml", who="bob"))
    log.tables(tables)
    assert rows(tables, "SELECT id, state, evidence FROM ops_actions ORDER BY id") == [
        ("o1", "finished", None),
        ("o2", "requested", None),
    ]


@pytest.mark.parametrize(
    ("table", "noun"),
    [
        ("sweeps", "sweep"),
        ("findings", "finding"),
        ("ops_actions", "ops"),
        ("decisions", "decision"),
        ("cards", "card"),
        ("incidents", "incident"),
    ],
)
def test_rows_are_explained_by_events_of_their_noun(day: duckdb.DuckDBPyConnection, table: str, noun: str) -> None:
    """Opening a row finds the events of CONTROL that it was made of, and no others."""
    cursor = day.execute(f"FROM {table} LIMIT 1")
    row = dict(zip([column[0] for column in cursor.description], cursor.fetchall()[0], strict=True))
    condition, parameters = sources.events_of(table, row)
    found = day.execute(f"SELECT stream, noun, seq FROM events WHERE {condition}", parameters).fetchall()  # noqa: S608
    assert {(stream, what) for stream, what, _ in found} == {("CONTROL", noun)}
    assert {row[name] for name in ("seq", "first_seq", "last_seq") if name in row} <= {seq for _, _, seq in found}

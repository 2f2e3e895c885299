"""Incidents as a table: the same as the pure fold says of any history, and the numbers that people ask for."""

from __future__ import annotations

from datetime import datetime, timedelta

import duckdb
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bus.events import incident as ev
from bus.events.finding import Kind, Severity
from services.incident import commands as ask
from services.incident.state import Incident, evolve
from tests.projections.bad_day import history
from tests.projections.written import Written
from tests.services.incident.test_incident_laws import HISTORIES, play


def _as_folded(state: Incident) -> tuple[object, ...]:
    """What the pure fold says, in the columns of the table."""
    return (
        state.status.value,
        state.severity.value,
        sorted(state.affected),
        state.owner or None,
        state.commander or None,
        state.reopened,
        state.closed_by or None,
    )


@settings(
    max_examples=6,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example, HealthCheck.data_too_large],
)
@given(st.lists(HISTORIES, min_size=15, max_size=15))
def test_incidents_table_says_what_the_fold_says(histories: list[list[tuple[ask.Command, datetime]]]) -> None:
    """Of any histories that may happen each row has the state, severity, projects, owner and end of the pure fold."""
    log = Written()
    folded = []
    for number, history_ in enumerate(histories, 1):
        declared = ev.Declared(
            title="no runner",
            severity=Severity.ULTRA,
            by="monitor",
            since=log.now(),
            finding="f1",
            kind=Kind.NO_RUNNER,
            affected=(ev.Impact(project="shop", reason="no runner"),),
        )
        state: Incident | None = None
        for seq, event in enumerate([declared, *(event for _, _, event, _ in play(history_))], 1):
            state = evolve(state, number, event, seq, log.now())
            log.control(str(number), event)
        assert state is not None
        folded.append(_as_folded(state))
    connection = log.tables()
    try:
        columns = "state, severity, projects, acknowledged_by, commander, reopened, closed_by"
        assert connection.execute(f"SELECT {columns} FROM incidents ORDER BY number").fetchall() == folded  # noqa: S608
    finally:
        connection.close()


def test_incidents_table_counts_calls_and_times() -> None:
    """Calls that were taken and that failed, updates that were owed, and the moments are those of the events."""
    connection = history().tables()
    try:
        found = connection.execute(
            "SELECT calls, failed_calls, updates, overdue_updates, joined, cause, declared_at - since, "
            "first_called_at - declared_at, first_acknowledged_at - declared_at, closed_at - declared_at FROM incidents"
        ).fetchall()
    finally:
        connection.close()
    seconds = [timedelta(seconds=s) for s in (10, 3, 4, 9)]
    assert found == [(1, 1, 1, 1, 0, "a bad input", *seconds)]


def test_incidents_table_passes_over_what_nobody_declared(tables: duckdb.DuckDBPyConnection) -> None:
    """Events of an incident without a declaration make no row, and hide no other."""
    log = Written()
    log.control("7", ev.Noted(text="x", by="ann"))
    log.control("1", ev.Declared(title="t", severity=Severity.CONCERN, by="ann", since=log.now()))
    log.tables(tables)
    assert tables.execute("SELECT number, state, projects FROM incidents").fetchall() == [(1, "declared", [])]


def test_incidents_table_adds_after_it_removes() -> None:
    """An event that removes a project and adds it again leaves it hit, in whatever order threads come upon the two."""
    log = Written()
    hit = tuple(ev.Impact(project=name, reason="no runner") for name in ("ledger", "shop"))
    log.control(
        "1",
        ev.Declared(title="t", severity=Severity.CONCERN, by="ann", since=log.now(), affected=hit),
        ev.Affected(by="ann", removed=("ledger", "shop"), added=hit),
    )
    connection = log.tables()
    try:
        connection.execute("SET threads = 8")
        found = {str(connection.execute("SELECT projects FROM incidents").fetchall()) for _ in range(200)}
    finally:
        connection.close()
    assert found == {"[(['ledger', 'shop'],)]"}

"""Named queries: the files, their parameters, and every one that comes with the product on a log where it has something to say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from bus.errors import UnknownName
from projections import named
from projections.named import NamedQueryError
from projections.query import Ask, Queries
from projections.statement import QueryMistake
from tests.projections.bad_day import history

QUERIES = named.load([named.FOLDER])


@pytest.fixture(scope="module")
def queries() -> Iterator[Queries]:
    """The tables of that day."""
    connection = history().tables()
    yield Queries(connection.cursor)
    connection.close()


def ran(queries: Queries, name: str, **given: Any) -> list[dict[str, Any]]:
    """A named query's rows."""
    return list(queries.run_named(QUERIES[name], given, Ask(sql="")).table.to_pylist())


#: One row of each query's answer, as far as it says what the query is for.
SAID: dict[str, dict[str, Any]] = {
    "backlog": {"role": "shop/coder", "queued": 1, "running": 1},
    "cap_trips": {"scope": "shop", "cleared_at": None},
    "claims_overdue": {"role": "shop/coder", "holder_state": "exited"},
    "cost_by_day": {"project": "shop"},
    "cost_by_role": {"role": "shop/coder", "model": "trace", "input_tokens": 5100},
    "cost_by_tree": {"invocations": 2, "depth": 1},
    "daemons": {"seat": "agent_runner-1_vm", "state": "exited", "exit_status": -9},
    "dead_letters": {"deaths": 1, "waiting": 1, "error": "exit_1", "message": "it broke", "roles": ["shop/broken"]},
    "deaf_roles": {"role": "shop/coder", "waiting": 1},
    "failure_bills": {"errors": 1, "deaths": 1, "error_kind": "exit_1"},
    "failure_rate": {"role": "shop/broken", "ended": 1, "failed": 1, "percent": 100.0},
    "freezes": {"id": "r5", "thrown_by": "ann", "reason": "enough", "frozen_s": 3.0},
    "guards": {"guard": "pause", "scope": "shop/coder"},
    "last_errors": {"role": "shop/broken", "error": "exit_1", "message": "it broke"},
    "oldest_queued": {"role": "shop/coder", "attempts": 1},
    "prompts": {"role": "shop/writer", "prompt": "sha-256:bbbb", "revision": 3, "attempts": 1, "failed_percent": 0.0},
    "registry_changes": {"key": "roles.shop.coder", "revision": 2},
    "rejected": {"subject": "inv.shop.coder.x.requested", "begins": "rubbish"},
    "restarts": {"seat": "agent_runner-1_vm", "exits": 1, "last_status": -9, "now": "exited"},
    "schedules_missed": {"role": "shop/coder", "schedule": "early", "reason": "overlap"},
    "slowest": {"outcome": "completed"},
    "tables": {"name": "invocations"},
    "throughput": {"failed": 1},
    "waits": {"role": "shop/coder"},
    "who_asked_whom": {"asker": "shop/coder", "asked": "shop/reviewer", "requests": 1, "completed": 1, "deepest": 1},
    "sweeps": {"trigger": "demand", "verdict": "ultra", "open": 2, "new": 2, "unseen": ["the moon"], "took_ms": 12.5},
    "open_findings": {
        "severity": "ultra",
        "kind": "dead_letters",
        "title": "9 dead letters",
        "command": "systems dlq ls",
    },
    "incidents": {"number": 1, "severity": "ultra", "state": "closed", "projects": ["ledger"], "cause": "a bad input"},
    "actions": {"action": "restart", "target": "warden", "who": "ann", "why": "tired", "ok": True, "took_s": 1.5},
    "decided": {"number": 1, "title": "Two runners", "superseded": True},
    "cards": {"state": "open", "instance": "warden", "command": "systems restart warden", "operation": "o2"},
    "columns": {"name": "state", "type": "VARCHAR"},
}


@pytest.mark.parametrize("name", QUERIES)
def test_every_query_finds_what_it_is_for(queries: Queries, name: str) -> None:
    """Each named query of the product answers on a bad day, with the row that it is for among its rows."""
    given = {"table": "invocations"} if name == "columns" else {}
    found = ran(queries, name, **given)
    wanted = SAID[name]
    assert any(wanted.items() <= {k: row[k] for k in wanted}.items() for row in found), found


@pytest.mark.parametrize("name", QUERIES)
def test_every_row_can_be_opened(queries: Queries, name: str) -> None:
    """Each named query gives the sequences of the events behind its rows, but for those about the tables themselves."""
    if name in ("tables", "columns"):
        return
    row = ran(queries, name)[0]
    assert [column for column in row if column == "seq" or column.endswith("_seq")]


def test_parameters_narrow(queries: Queries) -> None:
    """A parameter is given as text and becomes its type; a time may be an age."""
    assert ran(queries, "last_errors", since="1s") == []
    assert len(ran(queries, "last_errors", since="3h", role="shop/broken")) == 1
    assert len(ran(queries, "slowest", most="2")) == 2
    assert ran(queries, "throughput", since="2020-01-01 00:00")


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("last_errors", {"sinse": "1h"}, "unknown parameter of last_errors 'sinse', did you mean 'since'?"),
        ("slowest", {"most": "ten"}, "expected most (how many to show) to be a bigint, got: 'ten'"),
        ("slowest", {"since": "soon"}, "expected since (how far back to look) to be a timestamp, got: 'soon'"),
        ("columns", {}, "expected a value for table (its name), got none"),
    ],
)
def test_wrong_parameters_are_sentences(queries: Queries, name: str, given: dict[str, str], said: str) -> None:
    """A parameter that is missing, unknown, or not of its type is told by its name and what it is."""
    with pytest.raises((QueryMistake, UnknownName)) as wrong:
        ran(queries, name, **given)
    assert said in str(wrong.value)


def test_a_value_is_never_sql(queries: Queries) -> None:
    """What is given as a value is a value, whatever it looks like."""
    assert ran(queries, "last_errors", role="' OR true --") == []


GOOD = "-- name: what\n-- param n: bigint = 1: how many\nSELECT $n AS n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("SELECT 1", "expected a first line such as -- name: what it answers"),
        (GOOD.replace(": how many", ""), "x.sql:2: expected -- param NAME: TYPE = DEFAULT: WHAT IT IS"),
        (GOOD.replace("$n", "$m"), "$m is used and not declared"),
        (GOOD.replace("$n", "1"), "$n is declared and not used"),
    ],
)
def test_a_file_that_is_no_query_is_told(tmp_path: Path, text: str, said: str) -> None:
    """A file without its header, or whose parameters do not fit its SQL, is refused with its place."""
    (tmp_path / "x.sql").write_text(text)
    with pytest.raises(NamedQueryError) as wrong:
        named.load([tmp_path])
    assert said in str(wrong.value)


def test_a_folder_of_ones_own_comes_first(tmp_path: Path, queries: Queries) -> None:
    """A query in a later folder is added, and takes the place of one of the same name."""
    (tmp_path / "slowest.sql").write_text(GOOD)
    (tmp_path / "mine.sql").write_text(GOOD)
    found = named.load([named.FOLDER, tmp_path, tmp_path / "none"])
    assert found["slowest"].line == "what"
    assert queries.run_named(found["mine"], {"n": "7"}, Ask(sql="")).table.to_pylist() == [{"n": 7}]
    with pytest.raises(UnknownName, match="unknown query 'mien', did you mean 'mine'"):
        named.find(found, "mien")


def test_a_bad_default_names_its_file(tmp_path: Path) -> None:
    """A default that is not of its type is the file's fault, and told so."""
    (tmp_path / "x.sql").write_text(GOOD.replace("= 1", "= 'one'"))
    queries = Queries(duckdb.connect().cursor)
    with pytest.raises(NamedQueryError, match=r"x.sql: expected the default of n to be a bigint, got: 'one'"):
        queries.run_named(named.load([tmp_path])["x"], {}, Ask(sql=""))

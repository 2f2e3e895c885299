"""Every question that the documents show is asked here, on tables that have an answer."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from projections import named
from projections.query import Ask, Queries
from tests.projections.bad_day import history

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`([^`\n]+)`")


def examples() -> Iterator[tuple[str, str]]:
    """(page, question): SQL, or ``query NAME [name=value …]``."""
    for page in PAGES:
        text = page.read_text()
        lines: list[str] = []
        for language, body in _FENCE.findall(text):
            if language == "sql":
                yield page.name, body
            elif language == "sh":
                lines += body.splitlines()
        lines += _CODE.findall(_FENCE.sub("", text))
        for line in lines:
            if line.startswith(("systems sql ", "systems query ", "nats req projections.", "duckdb ")):
                yield from ((page.name, question) for question in questions(shlex.split(line, comments=True)))


def questions(words: list[str]) -> Iterator[str]:
    """The question of one command line, if it has one."""
    match words:
        case ["systems", "sql", sql, *_] if not sql.startswith("-"):
            yield sql
        case ["systems", "query", name, *rest] if not name.startswith("-"):
            given = [value for option, value in pairwise(rest) if option == "--param"]
            yield " ".join(["query", name, *given])
        case ["nats", "req", "projections.sql", sql, *_]:
            yield sql
        case ["nats", "req", subject, *_] if subject.startswith("projections.query."):
            yield f"query {subject.rpartition('.')[2]}"
        case ["duckdb", *_, "-c", sql]:
            yield sql


FOUND = sorted(set(examples()))


@pytest.fixture(scope="module")
def queries() -> Iterator[Queries]:
    """The tables of a bad day."""
    connection = history().tables()
    yield Queries(connection.cursor)
    connection.close()


def test_there_are_examples() -> None:
    """The pages show questions of every kind, so that the test below has something to run."""
    pages = {page for page, _ in FOUND}
    assert {"README.md", "sql.md"} <= pages
    assert len(FOUND) > 15
    assert any(question.startswith("query ") for _, question in FOUND)


@pytest.mark.parametrize(("page", "question"), FOUND)
def test_every_example_is_answered(queries: Queries, page: str, question: str, tmp_path: Path) -> None:
    """A question that a page shows has an answer with columns, and is no mistake."""
    if question.startswith("query "):
        name, *given = question.split()[1:]
        query = named.find(named.load([named.FOLDER]), name)
        answer = queries.run_named(query, dict(pair.split("=", 1) for pair in given), Ask(sql=""))
    elif question.startswith("-- name:"):
        file = tmp_path / "example.sql"
        file.write_text(question)
        answer = queries.run_named(named.load([tmp_path])["example"], {}, Ask(sql=""))
    else:
        answer = queries.run(Ask(sql=question))
    assert answer.table.num_columns > 0, page

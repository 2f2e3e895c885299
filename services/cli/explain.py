"""``systems explain``: from any number back to the events that made it."""

from __future__ import annotations

from datetime import UTC
from pathlib import Path
from typing import Any

import pyarrow as pa

from bus import errors
from bus.store import read
from projections import sources
from projections.log import STREAMS
from projections.query import Answer
from services import story
from services.cli import asking, output
from services.cli.common import ROWS, Tabular
from services.cli.exits import CommandFailed, Exit, UsageError
from services.projector.asking import Asked

#: Rows that fit the keys and are explained together.
_ROWS = 20
_EVENTS = "SELECT stream, seq, subject, type, stored_at, raw FROM events WHERE {} ORDER BY stored_at, stream, seq"


async def explain(
    what: str,
    /,
    *key: str,
    limit: int = 200,
    at: str = "",
    file: Path | None = None,
    common: Tabular = ROWS,
) -> int:
    """Show the events that a row, an invocation or a sequence was made of.

    Args:
        what: A table or view, or the word invocation, or a stream.
        key: Which row: the text of any of its columns, such as an id, PROJECT/ROLE or the beginning of a time; of a stream its sequences.
        limit: Events to show.
        at: A moment of the past, such as '2026-11-23 03:12' in local time: the tables as they were then.
        file: A published fleet.duckdb to ask, instead of the projector.
        common: Which fleet, and how to print.
    """
    if not key:
        raise UsageError(
            f"expected a key behind {what}, such as an id, got none; `systems sql 'FROM {what} LIMIT 5'` shows some"
        )

    async def ask(sql: str, parameters: dict[str, Any], most: int | None = None) -> Answer:
        asked = Asked(sql=sql, parameters=parameters, limit=most, file=file)
        return await asking.answer(common, asked, at)

    # A stream is written in capitals: dead_letters is a table.
    if what in STREAMS:
        condition, parameters = sources.at({what: [_sequence(text) for text in key]})
    else:
        table = "invocations" if what == "invocation" else what
        condition, parameters = await _conditions(ask, table, key)
    found = await ask(_EVENTS.format(condition), parameters, limit)
    if not found.table.num_rows:
        raise CommandFailed(f"expected events of {what} {' '.join(key)}, got none", Exit.USAGE, "UnknownName")
    asking.show(Answer(table=told(found.table), cut=found.cut), common)
    return Exit.DONE


async def _conditions(ask: Any, table: str, keys: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
    """The condition that finds the events of all rows that fit, and its parameters."""
    columns = {
        row["column_name"]: row["data_type"]
        for row in (
            await ask(
                "SELECT column_name, data_type FROM duckdb_columns() WHERE database_name = current_database() "
                "AND schema_name = 'main' AND table_name = $name ORDER BY column_index",
                {"name": table},
            )
        ).table.to_pylist()
    }
    if not columns:
        known = (await ask("SHOW TABLES", {})).table.column(0).to_pylist()
        raise errors.UnknownName("table", table, [*known, "invocation", *STREAMS])
    sql, parameters = sources.find(table, columns, keys)
    rows = (await ask(f"{sql} LIMIT {_ROWS + 1}", parameters)).table.to_pylist()
    if not rows:
        raise CommandFailed(
            f"expected a row of {table} with {' and '.join(keys)}, got none; `systems sql 'FROM {table} LIMIT 5'` shows some",
            Exit.USAGE,
            "UnknownName",
        )
    if len(rows) > _ROWS:
        output.note(
            f"systems: more than {_ROWS} rows of {table} fit; the first {_ROWS} are explained, another key narrows them"
        )
    parts: list[str] = []
    values: dict[str, Any] = {}
    for place, row in enumerate(rows[:_ROWS]):
        condition, given = sources.events_of(table, row)
        for name in sorted(given, key=len, reverse=True):
            condition = condition.replace(f"${name}", f"${name}__{place}")
            values[f"{name}__{place}"] = given[name]
        parts.append(f"({condition})")
    return " OR ".join(parts), values


def _sequence(text: str) -> int:
    if not text.isdecimal():
        raise UsageError(f"expected a sequence of the stream, got: {text!r}")
    return int(text)


def told(events: pa.Table) -> pa.Table:
    """Events with what each says, in one line. Pure."""
    rows = events.to_pylist()
    records = [
        read(row["seq"], row["subject"], row["stored_at"].replace(tzinfo=UTC), row["raw"].encode()) for row in rows
    ]
    return pa.table(
        {
            "stream": [row["stream"] for row in rows],
            "seq": pa.array([row["seq"] for row in rows], pa.uint64()),
            "time": pa.array([row["stored_at"] for row in rows], pa.timestamp("us")),
            "type": [row["type"] for row in rows],
            "about": [".".join(row["subject"].split(".")[1:-1]) for row in rows],
            "what": [story.sentence(record) for record in records],
        }
    )

"""Answers in the four shapes that people and programs take: a table of text, JSON, CSV, an Arrow IPC stream. Pure.

Times are UTC. JSON has one object for each row, CSV a header line, and both keep every digit; a table of text is for eyes:
times to the millisecond, long cells on one line. Columns of one name get numbers: ``n``, ``n_1``.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any

import msgspec
import pyarrow as pa

from projections.mistakes import QueryTooLarge
from projections.query import Answer
from projections.separated import separated

_JSON = msgspec.json.Encoder(decimal_format="number", enc_hook=str)
#: Significant digits of a number in a table of text.
_DIGITS = 6
#: Columns of an EXPLAIN.
PLAN = ["explain_key", "explain_value"]


class Format(StrEnum):
    """How an answer is written down."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    ARROW = "arrow"


def encode(answer: Answer, format: Format) -> bytes:
    """The whole answer."""
    match format:
        case Format.ARROW:
            return _arrow(answer.table)
        case Format.CSV:
            return _csv(answer.table)
        case Format.JSON:
            return _json(answer)
        case Format.TABLE:
            return _text(answer)


def fitting(answer: Answer, format: Format, size: int) -> tuple[bytes, Answer]:
    """As many rows of an answer as fit into so many bytes, and what is left of it.

    Raises:
        QueryTooLarge: not even its first row does.
    """
    data = encode(answer, format)
    while len(data) > size:
        rows = int(answer.table.num_rows * size / len(data) * 0.95)
        if rows == 0:
            raise QueryTooLarge(
                f"expected a row of at most {size:,} bytes, got a larger one; select fewer columns, "
                "or ask for the answer in parts (systems sql does)"
            )
        answer = msgspec.structs.replace(answer, table=answer.table.slice(0, rows), cut="size")
        data = encode(answer, format)
    return data, answer


def _arrow(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _csv(table: pa.Table) -> bytes:
    values = (
        ["" if value is None else exact if isinstance(exact := plain(value), str) else _compact(exact) for value in row]
        for row in rows(table)
    )
    return separated([table.column_names, *values]).encode()


def _json(answer: Answer) -> bytes:
    names = unique(answer.table.column_names)
    found = {
        "columns": [
            {"name": name, "type": str(field.type)} for name, field in zip(names, answer.table.schema, strict=True)
        ],
        "rows": [dict(zip(names, map(plain, row), strict=True)) for row in rows(answer.table)],
        "cut": answer.cut,
        "took_ms": answer.took_ms,
    }
    return _JSON.encode(found)


def _text(answer: Answer) -> bytes:
    table = answer.table
    if table.column_names == PLAN:
        # A drawn plan, which one line would tear apart.
        return "".join(str(row[1]) for row in rows(table)).encode()
    cells = [[cell(value) for value in row] for row in rows(table)]
    right = numeric(table)
    widths = [
        max([len(name), *(len(row[place]) for row in cells)], default=0)
        for place, name in enumerate(table.column_names)
    ]
    lines = []
    for row in [table.column_names, *cells]:
        parts = [
            text.rjust(width) if place in right else text.ljust(width)
            for place, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(parts).rstrip())
    if answer.cut:
        lines.append(cut(answer))
    return ("\n".join(lines) + "\n").encode()


def cut(answer: Answer) -> str:
    """That rows are missing, as a sentence; empty when none are."""
    if not answer.cut:
        return ""
    remedy = "--limit, limit" if answer.cut == "rows" else "select fewer columns, or count them"
    return f"only the first {answer.table.num_rows:,} rows are shown, there are more ({remedy})"


def numeric(table: pa.Table) -> frozenset[int]:
    """Places of the columns that are numbers."""
    kinds = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
    return frozenset(place for place, field in enumerate(table.schema) if any(kind(field.type) for kind in kinds))


def unique(names: Sequence[str]) -> list[str]:
    """Column names, each once: later ones get a number."""
    seen: dict[str, int] = {}
    found: list[str] = []
    for name in names:
        count = seen.get(name, 0)
        seen[name] = count + 1
        found.append(f"{name}_{count}" if count else name)
    return found


def rows(table: pa.Table) -> Iterator[tuple[Any, ...]]:
    """The rows of a table, as Python values."""
    columns = [column.to_pylist() for column in table.columns]
    yield from zip(*columns, strict=True)


def plain(value: Any) -> Any:
    """A value as JSON has it."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if value == value and abs(value) != float("inf") else str(value)  # noqa: PLR0124 (NaN)
        case Decimal():
            return int(value) if value == value.to_integral_value() else value
        case datetime():
            return f"{value.replace(tzinfo=None).isoformat()}Z"
        case timedelta():
            return value.total_seconds()
        case bytes():
            try:
                return value.decode()
            except UnicodeDecodeError:
                return base64.b64encode(value).decode()
        case dict():
            return {str(key): plain(item) for key, item in value.items()}
        case list():
            return [plain(item) for item in value]
        case tuple():
            # A map comes as pairs, an interval as its months, days and nanoseconds.
            return [plain(item) for item in value]
    return str(value)


def cell(value: Any) -> str:
    """A value as a table of text has it."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case datetime():
            text = f"{value:%Y-%m-%d %H:%M:%S}"
            return f"{text}.{value.microsecond // 1000:03d}" if value.microsecond else text
        case float():
            return f"{value:.{_DIGITS}g}" if abs(value) < 10**_DIGITS else f"{value:.2f}"
    found = plain(value)
    text = found if isinstance(found, str) else _compact(found)
    return " ".join(text.split("\n")).replace("\t", " ")


def _compact(value: Any) -> str:
    return _JSON.encode(value).decode() if not isinstance(value, int) or isinstance(value, bool) else str(value)

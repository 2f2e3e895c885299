"""``systems sql``: any question to the tables."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from services.cli import asking
from services.cli.common import ROWS, Tabular
from services.cli.exits import Exit
from services.fleet import durations
from services.projector.asking import Asked


async def sql(
    statement: Annotated[str, Parameter(allow_leading_hyphen=True)] = "",
    /,
    *,
    limit: int | None = None,
    timeout: str = "",
    at: str = "",
    file: Path | None = None,
    common: Tabular = ROWS,
) -> int:
    """Ask the tables anything. Without a statement: the tables, and what is in them.

    Args:
        statement: One SQL statement that reads; - reads it from stdin.
        limit: Rows to show. Else 10,000.
        timeout: How long it may take, such as 90s. Else 10s.
        at: A moment of the past, such as '2026-11-23 03:12' in local time: the tables as they were then.
        file: A published fleet.duckdb to ask, instead of the projector.
        common: Which fleet, and how to print.
    """
    text = sys.stdin.read() if statement == "-" else statement
    asked = Asked(
        sql=text,
        name="" if text else "tables",
        limit=limit,
        timeout_s=durations.seconds(timeout) if timeout else None,
        file=file,
    )
    asking.show(await asking.answer(common, asked, at), common)
    return Exit.DONE

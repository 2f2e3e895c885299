"""``systems query``: the questions that are asked again and again, by name."""

from __future__ import annotations

from pathlib import Path

from services.cli import asking
from services.cli.common import ROWS, Tabular
from services.cli.exits import Exit, UsageError
from services.fleet import durations
from services.projector.asking import Asked


async def query(
    name: str = "",
    /,
    *,
    param: tuple[str, ...] = (),
    limit: int | None = None,
    timeout: str = "",
    at: str = "",
    file: Path | None = None,
    common: Tabular = ROWS,
) -> int:
    """Run a named query. Without a name: all of them, with what they answer and their parameters.

    Args:
        name: Name of the query.
        param: A parameter, as NAME=VALUE; a time may be an age, such as since=6h. Several times for several.
        limit: Rows to show. Else 10,000.
        timeout: How long it may take, such as 90s. Else 10s.
        at: A moment of the past, such as '2026-11-23 03:12' in local time: the tables as they were then.
        file: A published fleet.duckdb to ask, instead of the projector.
        common: Which fleet, and how to print.
    """
    given = dict(pair(text) for text in param)
    if given and not name:
        raise UsageError("expected the name of a query before its --param, got none; `systems query` lists them")
    asked = Asked(
        name=name,
        parameters=given,
        limit=limit,
        timeout_s=durations.seconds(timeout) if timeout else None,
        file=file,
    )
    asking.show(await asking.answer(common, asked, at), common)
    return Exit.DONE


def pair(text: str) -> tuple[str, str]:
    """``NAME=VALUE`` as the two. Pure.

    Raises:
        UsageError: it is none.
    """
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UsageError(f"expected --param NAME=VALUE, got: {text!r}")
    return name, value

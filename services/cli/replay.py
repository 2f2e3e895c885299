"""``systems replay`` and ``run``: a recorded trace through a fleet."""

from __future__ import annotations

import asyncio
import os
import sys
from itertools import islice
from pathlib import Path

from rich.console import Console

from bus import errors
from services.cli import output
from services.cli import panel as drawing
from services.cli.common import DEFAULTS, Common
from services.cli.exits import UsageError
from services.cli.fleet import EXAMPLE, running_fleet
from services.cli.session import operator
from services.cli.watch import show_until
from services.fleet.file import load
from services.home import resolve
from services.replay import Replay
from services.replay_file import TraceRow, read_trace
from services.tally import Tally

#: The trace that ships with the example fleet, and the role that it asks there.
TRACE = EXAMPLE.parent / "azure-llm-2023-code.csv"
ROLE = "shop/coder"
#: Hours of the recording in seconds of the replay.
_SPEED = "200"


async def replay(
    file: Path, *, role: str, speed: str = "1", wait: bool = False, limit: int = 0, common: Common = DEFAULTS
) -> int:
    """Ask a role for every row of a recorded trace, at its recorded time.

    Exit status with --wait: 0 if every request was completed and the token sums are the file's, else 2.

    Parameters
    ----------
    file
        A trace in the format of the Azure LLM inference traces.
    role
        PROJECT/ROLE that is asked; its input is {"input_tokens": N, "output_tokens": N}.
    speed
        How many times faster than recorded, or max.
    wait
        Wait until every invocation has ended, and compare the sums.
    limit
        Only the first rows; 0 is all.
    """
    rows = read_trace(file)
    async with operator(common) as session:
        replaying = Replay(
            session.bus,
            await session.requests(),
            role,
            islice(rows, limit) if limit else rows,
            speed=factor(speed),
        )
        tally = await replaying.run(wait=wait)
    if common.json:
        output.json(tally)
    else:
        Console().print(drawing.replay_line(tally))
    return 0 if not wait or matches(tally) else 2


def factor(text: str) -> float | None:
    """A speed: how many times faster than recorded, None for as fast as possible.

    Raises:
        UsageError: neither a positive number nor ``max``.
    """
    if text == "max":
        return None
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise UsageError(f"expected --speed to be a positive number or max, got: {text!r}")
    return number


def matches(tally: Tally) -> bool:
    """Every request completed, and the completed token sums are those that were asked for. Pure."""
    return (
        tally.completed == tally.requested
        and tally.input_tokens == tally.asked_input_tokens
        and tally.output_tokens == tally.asked_output_tokens
    )


async def run(
    *, fleet: Path = EXAMPLE, speed: str = _SPEED, keep: bool | None = None, common: Common = DEFAULTS
) -> int:
    """Bring the example fleet up, replay the recorded trace through it, and show the panel meanwhile.

    On a terminal the fleet stays up afterwards until Ctrl-C; elsewhere it goes down and the command ends.

    Parameters
    ----------
    fleet
        The fleet file; it must have the role shop/coder.
    speed
        How many times faster than recorded, or max.
    keep
        Keep the fleet up after the trace. Else only on a terminal.
    """
    home, file, times = resolve(common.home, os.environ), fleet.resolve(), factor(speed)
    roles = [f"{project}/{role}" for project, role in load(file).fleet.roles()]
    if ROLE not in roles:
        raise errors.UnknownName("role", ROLE, roles)
    rows = list(read_trace(TRACE))
    stay = sys.stdout.isatty() if keep is None else keep
    async with running_fleet(home, file), operator(Common(home=home.path)) as session:
        replaying = Replay(session.bus, await session.requests(), ROLE, rows, speed=times)
        over = asyncio.Event()
        showing = asyncio.create_task(show_until(session, replaying.tally, 1.0, over))
        try:
            tally = await replaying.run()
        finally:
            over.set()
            await showing
        good = matches(tally) and tally.requested == len(rows)
        print(summary(tally, rows, good=good), flush=True)
        if stay:
            print(f"\nThe fleet stays up until Ctrl-C. In another terminal: {home.command('status')}\n")
            await show_until(session, tally, 1.0, asyncio.Event())
    return 0 if good else 2


def summary(tally: Tally, rows: list[TraceRow], *, good: bool) -> str:
    """What came of a trace, against what its file says. Pure."""
    tokens_in, tokens_out = sum(r.input_tokens for r in rows), sum(r.output_tokens for r in rows)
    return (
        f"\ntrace done: {tally.requested:,} requested, {tally.completed:,} completed, "
        f"{tally.dead_lettered:,} dead letters, {tally.cancelled:,} cancelled\n"
        f"tokens completed: {tally.input_tokens:,} input, {tally.output_tokens:,} output; "
        f"the file's: {tokens_in:,} and {tokens_out:,}: {'equal' if good else 'NOT EQUAL'}"
    )

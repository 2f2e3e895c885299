"""``systems status`` and ``watch``: the fleet-health panel, once or live."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.text import Text

from bus import errors
from services.cli import moment, output
from services.cli import panel as drawing
from services.cli.common import DEFAULTS, Common
from services.cli.exits import UsageError
from services.cli.session import Session, operator
from services.health.daemons import State
from services.health.gather import gather
from services.health.panel import Panel, Verdict
from services.home import resolve
from services.tally import Tally

_EXIT = {Verdict.NOMINAL: 0, Verdict.CONCERN: 1, Verdict.ULTRA: 2}


async def status(*, at: str = "", file: Path | None = None, common: Common = DEFAULTS) -> int:
    """Show the fleet-health panel. Exit status: 0 nominal, 1 concern, 2 ultra.

    While no server answers it shows the panel of the last published tables, and says so; the exit status is then 69.

    Parameters
    ----------
    at
        A moment of the past, such as '2026-11-23 03:12' in local time: the panel of that moment, from the published tables.
    file
        With --at, a published fleet.duckdb to look back in, instead of the home's own.
    """
    if file is not None and not at:
        raise UsageError("expected --at with --file, got none: the live panel comes from the bus")
    if at:
        view = _then(file or _tables(common), moment.parse(at, datetime.now(UTC)))
    else:
        try:
            async with operator(common) as session:
                view = await gather(session.bus, await session.registry())
        except errors.BusUnreachable:
            if not (common.server or common.context):
                _show_published(common)
            raise
    _show(view, common)
    return _EXIT[view.verdict]


def _show(view: Panel, common: Common) -> None:
    if common.json:
        output.json(view)
    else:
        Console().print(drawing.panel(view))


def _show_published(common: Common) -> None:
    """What is on this machine's disk of a fleet that does not answer: the panel as it was at the last published copy."""
    tables = _tables(common)
    if not tables.is_file():
        return
    try:
        view = _then(tables, datetime.fromtimestamp(tables.stat().st_mtime, UTC))
    except errors.BusError as exc:
        output.note(f"systems: nothing can be shown of what is on the disk: {exc}")
        return
    _show(view, common)


def _tables(common: Common) -> Path:
    """The published tables of the home."""
    return resolve(common.home, os.environ).tables


def _then(file: Path, at: datetime) -> Panel:
    """The panel of a past moment."""
    from services import past  # noqa: PLC0415 (the live panel needs no tables)
    from services.cli import asking  # noqa: PLC0415

    with asking.looking_back(file, at) as then:
        return past.panel(then)


async def watch(*, every: float = 1.0, common: Common = DEFAULTS) -> int:
    """Show the fleet-health panel, and keep it up to date until Ctrl-C.

    Parameters
    ----------
    every
        Seconds between two looks.
    """
    async with operator(common) as session:
        await show_until(session, None, every, asyncio.Event())
    return 0


async def show_until(session: Session, tally: Tally | None, every: float, over: asyncio.Event) -> None:
    """Show the panel again and again: in place on a terminal, one line each time elsewhere."""
    console = Console()
    registry = await session.registry()
    if not console.is_terminal:
        while not over.is_set():
            print(line(await gather(session.bus, registry), tally), flush=True)
            await _pause(over, every)
        return
    with Live(console=console, auto_refresh=False) as live:
        while True:
            try:
                await registry.load()
                live.update(drawing.panel(await gather(session.bus, registry), tally), refresh=True)
            except errors.BusUnreachable as exc:
                live.update(Text(f"{exc}", style="bold yellow"), refresh=True)
            if over.is_set():
                return
            await _pause(over, every)


async def _pause(over: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await over.wait()
    except TimeoutError:
        return


def line(view: Panel, tally: Tally | None) -> str:
    """The panel as one line. Pure."""
    alive = sum(1 for daemon in view.daemons if daemon.state in (State.ALIVE, State.STARTING))
    said = [
        f"{view.at:%H:%M:%S} {view.verdict.value}",
        f"{alive} of {len(view.daemons)} daemons up",
        f"backlog {sum(r.backlog for r in view.roles):,}",
        f"in flight {sum(r.in_flight for r in view.roles):,}",
        f"dead letters {view.dead_letters:,}",
    ]
    if tally is not None:
        said.append(f"{tally.requested:,} requested, {tally.completed:,} completed")
        said.append(f"{tally.input_tokens:,} + {tally.output_tokens:,} tokens")
    return " | ".join(said)

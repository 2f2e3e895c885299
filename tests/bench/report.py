"""Rows of the table: what was measured, against what, and whether it is what was promised."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from statistics import median

import msgspec
from rich.console import Console
from rich.table import Table

from tests.bench.leg import Found
from tests.bench.machine import Machine
from tests.bench.rig import Rig

Leg = Callable[[], Awaitable[Found]]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the table."""

    what: str
    unit: str
    ours: float
    floor: float | None = None
    #: Ours against the floor, round by round.
    ratios: tuple[float, ...] = ()
    target: str = ""
    #: None: nothing was promised.
    met: bool | None = None
    note: str = ""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run, as it is kept."""

    at: str
    scale: str
    took_s: float
    machine: Machine
    rows: list[Row]


async def rounds(rig: Rig, count: int, ours: Leg, floor: Leg) -> list[tuple[Found, Found]]:
    """Take turns on the same server: what disturbs the machine for a while disturbs both."""
    pairs: list[tuple[Found, Found]] = []
    for _ in range(count):
        await rig.clear()
        mine = await ours()
        await rig.clear()
        pairs.append((mine, await floor()))
    return pairs


def compared(
    what: str, pairs: list[tuple[Found, Found]], *, ratio: float | None = None, rate: float | None = None
) -> list[Row]:
    """Rows for the share of the floor, for the rate by itself if one was promised, and for the processor time."""
    ours, floor = (median(pair[side].rate for pair in pairs) for side in (0, 1))
    ratios = tuple(mine.rate / least.rate for mine, least in pairs)
    rows = [
        Row(
            what=what,
            unit="/s",
            ours=ours,
            floor=floor,
            ratios=ratios,
            target="" if ratio is None else f"ratio ≥ {ratio:g}",
            met=None if ratio is None else median(ratios) >= ratio,
        )
    ]
    if rate is not None:
        rows.append(Row(what=what, unit="/s", ours=ours, target=f"≥ {rate:,.0f}/s on 2 cores", met=ours >= rate))
    ours, floor = (median(pair[side].cpu_us for pair in pairs) for side in (0, 1))
    ratios = tuple(least.cpu_us / mine.cpu_us for mine, least in pairs)
    rows.append(Row(what="  its processor time for each", unit="µs", ours=ours, floor=floor, ratios=ratios))
    return rows


def show(report: Report) -> None:
    """Print the table for people; an unmet target is as loud as a met one."""
    console = Console(width=None if sys.stdout.isatty() else 130)
    machine = report.machine
    table = Table(
        title=f"{machine.cpu}, {machine.cores} cores, {machine.kernel}, Python {machine.python}, "
        f"nats-server {machine.server}, nats-py {machine.driver}",
        caption=f"{report.scale} scale, {report.took_s:.0f} s; floor: the same exchange with plain nats-py; "
        "ratio: the median round, and the worst and best",
    )
    for name in ("what", "ours", "floor", "ratio (min..max)", "target", "met"):
        table.add_column(name, justify="left" if name in ("what", "target") else "right")
    for row in report.rows:
        table.add_row(*cells(row))
    console.print(table)


def markdown(report: Report) -> str:
    """The table for a document, with the machine named above it."""
    machine = report.machine
    about = (
        f"{report.at[:10]}, {machine.cpu}, {machine.cores} cores, {machine.memory_gb:g} GB, {machine.kernel}, "
        f"Python {machine.python}, uvloop {machine.uvloop}, nats-server {machine.server}, nats-py {machine.driver}; "
        f"load average at the start {machine.load:g}; {report.scale} scale, {report.took_s:.0f} s."
    )
    lines = [
        about,
        "",
        "| what | ours | floor | ratio (min..max) | target | met |",
        "|---|--:|--:|--:|---|---|",
    ]
    for row in report.rows:
        *values, _ = cells(row)
        met = {None: "", True: "yes", False: "**no**"}[row.met]
        lines.append(f"| {' | '.join(value.strip() for value in values)} | {met} |")
    return "\n".join(lines)


def cells(row: Row) -> tuple[str, ...]:
    """A row as text."""
    met = {None: "", True: "yes", False: "[bold red]NO[/]"}[row.met]
    spread = ""
    if row.ratios:
        spread = f"{median(row.ratios):.2f}"
        if len(row.ratios) > 1:
            spread += f" ({min(row.ratios):.2f}..{max(row.ratios):.2f})"
    return row.what, _number(row.ours, row.unit), _number(row.floor, row.unit), spread, row.target, met


def _number(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}{unit}" if unit == "/s" else f"{value:,.2f} {unit}" if unit == "ms" else f"{value:,.1f} {unit}"

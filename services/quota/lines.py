"""A cap as people see it: what is used of it, how fast, and when it will be reached. Pure."""

from __future__ import annotations

import math
from datetime import datetime, timedelta

import msgspec

from bus.spend import Calendar
from services.fleet.spec import Window
from services.quota.breaker import Line
from services.quota.caps import Cover
from services.quota.spend import Spend

#: A tree's scope, as people write it, begins so.
TREE = "tree "
_MICROS = 1_000_000
_SHORT = ((1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k"))


class QuotaLine(msgspec.Struct, frozen=True, kw_only=True):
    """One cap in its present window. Amounts are tokens, or US dollars, as `unit` says."""

    key: str
    scope: str
    unit: str
    window: str
    used: float
    held: float
    #: The part of `used` that nobody measured: holds of holders that died.
    assumed: float
    cap: float
    #: How much of the cap is used.
    percent: float
    #: Used in the last ten minutes, per minute.
    burn: float
    #: When it will be reached at that rate; None when that is after the window's end, or never.
    reached_at: datetime | None = None
    resets_at: datetime | None = None
    tripped: bool = False
    #: Root of the run tree that is shown: of a cap over run trees the fullest one at work. Empty for other caps.
    tree: str = ""
    #: Time zone of the window.
    zone: str = "UTC"
    #: Why the numbers cannot be trusted; empty: they can.
    problem: str = ""


def line_of(cover: Cover, spend: Spend, calendar: Calendar, now: datetime, root: str = "") -> Line | None:
    """A cap in the window of a moment, and what the log says of it; None for a tree's cap without its tree."""
    if cover.window == Window.TREE.value and not root:
        return None
    key = cover.key(calendar, now, root)
    total = spend.get(key)
    return Line(
        key=key,
        scope=f"{TREE}{root}" if root else cover.text,
        declared=cover.text,
        unit=cover.unit,
        window=cover.window,
        cap=cover.cap,
        used=total.settled,
        held=total.held,
        assumed=total.assumed,
        until=None if root else calendar.span(cover.window, now).end,
    )


def shown(
    line: Line,
    burn: float,
    now: datetime,
    *,
    tripped: bool = False,
    problem: str = "",
    tree: str = "",
    zone: str = "UTC",
) -> QuotaLine:
    """A cap as it is shown. `burn` is in the line's own amounts, per minute."""
    return QuotaLine(
        key=line.key,
        scope=line.declared or line.scope,
        unit=line.unit,
        window=line.window,
        used=in_unit(line.used, line.unit),
        held=in_unit(line.held, line.unit),
        assumed=in_unit(line.assumed, line.unit),
        cap=in_unit(line.cap, line.unit),
        percent=math.floor(10 * line.percent) / 10,
        burn=round(in_unit(burn, line.unit), 6),
        reached_at=None if tripped else _reached(line, burn, now),
        resets_at=line.until,
        tripped=tripped,
        tree=tree,
        zone=zone,
        problem=problem,
    )


def idle(token: str, scope: str, unit: str, cap: int, problem: str, zone: str) -> QuotaLine:
    """A cap over run trees, none of which is at work."""
    return QuotaLine(
        key=f"{token}.{unit}.tree",
        scope=scope,
        unit=unit,
        window="tree",
        used=0.0,
        held=0.0,
        assumed=0.0,
        cap=in_unit(cap, unit),
        percent=0.0,
        burn=0.0,
        zone=zone,
        problem=problem,
    )


def _reached(line: Line, burn: float, now: datetime) -> datetime | None:
    if line.used >= line.cap or burn <= 0:
        return None
    minutes = (line.cap - line.used) / burn
    if minutes > 366 * 24 * 60:
        return None
    at = now + timedelta(minutes=minutes)
    return at if line.until is None or at < line.until else None


def in_unit(amount: float, unit: str) -> float:
    """Tokens as they are, millionths of a dollar as dollars."""
    return amount / _MICROS if unit == "usd" else amount


def whole(percent: float) -> str:
    """Per cent without a fraction; never 100 before it is."""
    return f"{round(percent) if percent >= 100 else min(99, round(percent))}%"


def clock(at: datetime, now: datetime) -> str:
    """How a time is shown: with its date unless that is today's."""
    return "%H:%M" if at.date() == now.date() else "%Y-%m-%d %H:%M"


def text(line: QuotaLine, now: datetime) -> str:
    """The line of the panel: ``61% of window (1.2M of 2M tokens, +40k held, 2.1k a minute), cap reached at 17:40 UTC``."""
    unit = "USD" if line.unit == "usd" else line.unit
    held = f", +{short(line.held, line.unit)} held" if line.held else ""
    burn = f", {short(line.burn, line.unit)} a minute" if line.burn else ""
    of = "window" if line.window != "tree" else f"tree {line.tree}" if line.tree else "each tree"
    amounts = f"{short(line.used, line.unit)} of {short(line.cap, line.unit)} {unit}{held}{burn}"
    said = f"{whole(line.percent)} of {of} ({amounts})"
    if line.tripped:
        until = f" until {line.resets_at:%Y-%m-%d %H:%M} UTC" if line.resets_at is not None else ""
        said += f", tripped{until}"
    elif line.reached_at is not None:
        said += f", cap reached at {line.reached_at:{clock(line.reached_at, now)}} UTC"
    return said + (f", not verified: {line.problem}" if line.problem else "")


def short(value: float, unit: str = "tokens") -> str:
    """A number in three digits or so: ``1.2M``, ``40k``, ``2.50``."""
    for size, letter in _SHORT:
        if abs(value) >= size:
            scaled = value / size
            digits = 2 if abs(scaled) < 10 else 1 if abs(scaled) < 100 else 0
            number = f"{scaled:.{digits}f}"
            return (number.rstrip("0").rstrip(".") if digits else number) + letter
    return f"{value:.2f}" if unit == "usd" else f"{value:,.0f}"

"""A cap as people see it: what is used of it, how fast, and when it will be reached. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from services.quota.breaker import Line

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
    #: Why the numbers cannot be trusted; empty: they can.
    problem: str = ""


def shown(line: Line, burn: float, now: datetime, *, tripped: bool = False, problem: str = "") -> QuotaLine:
    """A cap as it is shown. `burn` is in the line's own amounts, per minute."""
    return QuotaLine(
        key=line.key,
        scope=line.scope,
        unit=line.unit,
        window=line.window,
        used=in_unit(line.used, line.unit),
        held=in_unit(line.held, line.unit),
        assumed=in_unit(line.assumed, line.unit),
        cap=in_unit(line.cap, line.unit),
        percent=round(line.percent, 1),
        burn=round(in_unit(burn, line.unit), 6),
        reached_at=_reached(line, burn, now),
        resets_at=line.until,
        tripped=tripped,
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


def text(line: QuotaLine) -> str:
    """The line of the panel: ``61% (1.2M of 2M tokens, +40k held), cap at 17:40``."""
    unit = "USD" if line.unit == "usd" else line.unit
    held = f", +{short(line.held, line.unit)} held" if line.held else ""
    said = f"{line.percent:.0f}% ({short(line.used, line.unit)} of {short(line.cap, line.unit)} {unit}{held})"
    if line.tripped:
        until = f" until {line.resets_at:%Y-%m-%d %H:%M} UTC" if line.resets_at is not None else ""
        said += f", tripped{until}"
    elif line.reached_at is not None:
        said += f", cap at {line.reached_at:%H:%M} UTC"
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

"""``systems quota``: what is spent, held and capped; and a person sets or raises a cap.

What is shown is what is enforced: the warden's fold of the log, which the counters follow. Caps that people set lie in the
registry over those of the fleet file, and outlive every ``systems up``.
"""

from __future__ import annotations

from datetime import UTC, datetime

from cyclopts import App

from services.cli import output
from services.cli.common import DEFAULTS, Common
from services.cli.exits import Exit
from services.cli.session import operator
from services.fleet.spec import Unit
from services.quota import setting
from services.quota.lines import QuotaLine, clock, short, whole

app = App(name="quota", help="Show, set and raise caps on spend.", help_format="plaintext")

app.command("services.cli.reprice:command", name="reprice", help="Compute spend again with other prices.")


@app.default
async def show(*, common: Common = DEFAULTS) -> int:
    """Show every cap: used, held, how fast, and when it will be reached.

    Args:
        common: Which fleet, and how to print.
    """
    async with operator(common) as session:
        lines = await setting.lines(session.bus)
    if common.json:
        output.json({"quota": lines})
        return Exit.DONE
    if not lines:
        print("no caps: set one with `systems quota set`, or with `caps` in the fleet file")
        return Exit.DONE
    now = datetime.now(UTC)
    output.table(
        ["scope", "window", "used", "of", "%", "held", "assumed", "per minute", "cap reached", "resets", ""],
        [_row(line, now) for line in lines],
        right=["used", "of", "%", "held", "assumed", "per minute"],
    )
    print(f"times in UTC; windows begin by the clock of {lines[0].zone}")
    return Exit.DONE


def _row(line: QuotaLine, now: datetime) -> list[str]:
    unit = " USD" if line.unit == Unit.USD else ""
    state = "tripped" if line.tripped else f"not verified: {line.problem}" if line.problem else ""
    if line.tree:
        state = " ".join(filter(None, (f"tree {line.tree}", state)))
    return [
        line.scope,
        line.window,
        short(line.used, line.unit) + unit,
        short(line.cap, line.unit) + unit,
        whole(line.percent),
        short(line.held, line.unit),
        short(line.assumed, line.unit),
        short(line.burn, line.unit),
        f"{line.reached_at:{clock(line.reached_at, now)}}"
        if line.reached_at is not None
        else "reached"
        if line.tripped
        else "-",
        f"{line.resets_at:%Y-%m-%d %H:%M}" if line.resets_at is not None else "-",
        state,
    ]


@app.command(name="set")
async def set_(
    scope: str,
    /,
    *,
    cap: str,
    window: str,
    reason: str,
    unit: str = "tokens",
    until: str = "",
    common: Common = DEFAULTS,
) -> int:
    """Set a cap, over whatever the fleet file says.

    Args:
        scope: PROJECT/ROLE, PROJECT or system.
        cap: How much, such as 2M, 500k or 2.50.
        window: hour, 5h, day, week, month or tree.
        reason: Why; it goes into the record, with your name.
        unit: tokens or usd.
        until: For so long, such as 8h, or until an RFC 3339 time; then the fleet file's cap counts again.
        common: Which fleet, and how to print.
    """
    wanted = setting.Wanted(scope=scope, cap=cap, window=window, unit=unit, reason=reason, until=until)
    async with operator(common) as session:
        registry = await session.registry()
        event = await setting.set_cap(session.bus, registry, wanted, session.actor)
    print(setting.told(setting.scope_token(registry, scope), event))
    return Exit.DONE


@app.command(name="raise")
async def raise_(
    scope: str,
    /,
    *,
    to: str,
    reason: str,
    window: str = "",
    unit: str = "",
    until: str = "",
    common: Common = DEFAULTS,
) -> int:
    """Raise a cap. Work that waited for it goes on.

    Args:
        scope: PROJECT/ROLE, PROJECT or system.
        to: How much, such as 2M, 500k or 2.50.
        reason: Why; it goes into the record, with your name.
        window: Which of its caps, if it has several.
        unit: Which of its caps, if it has several.
        until: For so long, such as 8h, or until an RFC 3339 time; then the old cap counts again.
        common: Which fleet, and how to print.
    """
    wanted = setting.Wanted(scope=scope, cap=to, window=window, unit=unit, reason=reason, until=until)
    async with operator(common) as session:
        registry = await session.registry()
        event = await setting.raise_cap(session.bus, registry, wanted, session.actor)
    print(setting.told(setting.scope_token(registry, scope), event))
    return Exit.DONE

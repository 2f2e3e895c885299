"""``systems quota reprice``: spend computed again with other prices, and which refusals that makes wrong."""

from __future__ import annotations

import tomllib
from datetime import timedelta
from pathlib import Path

import msgspec

from bus.events import quota as ev
from bus.events.invocation import Usage
from bus.spend import USD, Calendar
from bus.store import CONTROL
from services.cli import output
from services.cli.common import DEFAULTS, Common
from services.cli.exits import Exit, UsageError
from services.cli.guards import SHOWN
from services.cli.session import operator
from services.fleet import durations
from services.fleet.spec import Price
from services.guards.reprice import Repricing, reprice
from services.quota import caps
from services.quota import prices as pricing


async def command(
    *, prices: Path | None = None, since: str = "30d", reason: str = "", common: Common = DEFAULTS
) -> int:
    """Compute spend again from archive and stream: what it comes to, which refusals were wrong, which calls would have been refused.

    Args:
        prices: A TOML file with a table of prices by model, as under [quota.prices]; the registered prices if left out.
        since: From so long ago, such as 30d.
        reason: Why; with it the result is written into the record. Without it nothing is.
        common: Which fleet, and how to print.
    """
    async with operator(common) as session:
        registry = await session.registry()
        now = session.bus.author.now()
        first = now - timedelta(seconds=durations.seconds(since))
        table = registry.quota.prices if prices is None else _read(prices)
        trips = [
            (record.stored_at, record.data)
            async for record in session.bus.store.read(CONTROL, "ctl.quota.*.tripped")
            if record.data is not None and record.stored_at >= first
        ]
        records = [record async for record in session.since(first)]
        money = {
            (cover.scope, cover.unit, cover.window): cover.cap
            for cover in caps.all_covers(registry, now)
            if cover.unit == USD and cover.window != "tree"
        }

        def old(usage: Usage) -> int:
            return pricing.cost(usage, registry.quota.prices) or 0

        def new(usage: Usage) -> int:
            return pricing.cost(usage, table) or 0

        found = reprice(records, trips, money, Calendar(registry.quota.time_zone), old, new)
        if reason:
            event = ev.Repriced(
                before=found.before,
                after=found.after,
                wrong_refusals=len(found.wrong),
                missed_refusals=sum(trial.stopped for trial in found.missed),
                reason=reason,
            )
            await session.bus.store.append(session.bus.author.control("system", event))
    if common.json:
        output.json(found)
    else:
        _print(found)
    return Exit.DONE


def _read(file: Path) -> dict[str, Price]:
    try:
        return msgspec.convert(tomllib.loads(file.read_text()), type=dict[str, Price])
    except (OSError, tomllib.TOMLDecodeError, msgspec.ValidationError) as exc:
        raise UsageError(
            f'expected a TOML file with prices, such as "gpt-4o-mini" = {{ input = 0.15, output = 0.60 }}, got: {file} ({exc})'
        ) from exc


def _print(found: Repricing) -> None:
    print(f"spend: {found.before / 1e6:,.2f} USD as it was settled, {found.after / 1e6:,.2f} USD at these prices")
    for wrong in found.wrong:
        print(
            f"wrong: {wrong.at:%Y-%m-%d %H:%M:%S} {wrong.key} tripped at {wrong.used_then / 1e6:,.2f} of "
            f"{wrong.cap / 1e6:,.2f} USD; it was {wrong.used_now / 1e6:,.2f}"
        )
    for trial in found.missed:
        print(
            f"missed: {trial.at:%Y-%m-%d %H:%M:%S} {trial.scope}: {trial.why}; {trial.stopped:,} calls would have been refused"
        )
        for done in trial.work[:SHOWN]:
            print(f"  {done.id}  {done.role}  completed {done.at:%Y-%m-%d %H:%M:%S}  {done.usd_micros / 1e6:,.2f} USD")
        if len(trial.work) > SHOWN:
            print(f"  and {len(trial.work) - SHOWN:,} more; all of them with --output json")
    if not found.wrong and not found.missed:
        print("no refusal was wrong, and none was missed")

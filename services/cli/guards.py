"""``systems guards``: which guards there are, and what they would have done with other limits."""

from __future__ import annotations

from contextlib import aclosing
from datetime import datetime
from functools import partial
from typing import Annotated

from cyclopts import App, Parameter

from bus.spend import Calendar
from services.cli import moment, output
from services.cli.common import DEFAULTS, Common
from services.cli.exits import Exit
from services.cli.session import Session, operator
from services.guards.backtest import Backtest, Trial, Wanted
from services.guards.settings import parse
from services.health.gather import gather
from services.quota import caps, prices

#: Pieces of honest work that are named behind each trip.
SHOWN = 5

app = App(name="guards", help="List the guards, or replay history with other limits.", help_format="plaintext")


@app.default
async def list_(*, common: Common = DEFAULTS) -> int:
    """List the guards: armed, last trip, last proven.

    Args:
        common: Which fleet, and how to print.
    """
    async with operator(common) as session:
        panel = await gather(session.bus, await session.registry())
    if common.json:
        output.json({"guards": panel.guards})
        return Exit.DONE
    output.table(
        ["guard", "state", "last trip", "why", "last proven", "in"],
        [
            [
                guard.name,
                "armed" if guard.armed else "not armed",
                _when(guard.last_trip_at),
                guard.last_trip or "-",
                _when(guard.proof.at) if guard.proof is not None else "never",
                "-" if guard.proof is None else output.age(guard.proof.took_s) if guard.proof.passed else "FAILED",
            ]
            for guard in panel.guards
        ],
    )
    return Exit.DONE


def _when(at: datetime | None) -> str:
    return "never" if at is None else f"{at:%Y-%m-%d %H:%M:%S}"


@app.command
async def backtest(
    *,
    since: str = "30d",
    until: str = "",
    set_: Annotated[tuple[str, ...], Parameter(name="--set", negative="", show_default=False)] = (),
    common: Common = DEFAULTS,
) -> int:
    """Replay recorded history, archive and stream, through the guards with other limits: what would have tripped, saved and stopped.

    Args:
        since: From then on: 30d (ago), '2026-11-23 03:12' (local time), or an RFC 3339 time.
        until: Up to then, in the same words; now if left out.
        set_: A limit, such as shop/coder.cap=2M, system.cap.usd.month=100, loop.depth=8 or shop/coder.max_attempts=2. May be repeated.
        common: Which fleet, and how to print.
    """
    async with operator(common) as session:
        now = session.bus.author.now()
        first = moment.parse(since, now, option="--since")
        last = moment.parse(until, now, option="--until") if until else now
        test = await _replay(session, set_, first, last)
    trials = sorted(test.trials, key=lambda trial: trial.at)
    if common.json:
        output.json({"events": test.records, "trials": trials})
        return Exit.DONE
    print(f"{test.records:,} events from {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC: {len(trials):,} trips")
    if trials:
        output.table(
            ["at (UTC)", "guard", "scope", "why", "saved tokens", "saved usd", "honest work stopped"],
            [_row(trial) for trial in trials],
            right=["saved tokens", "saved usd", "honest work stopped"],
        )
    for trial in trials:
        _print_work(trial)
    return Exit.DONE


def _print_work(trial: Trial) -> None:
    """Name the honest work behind a trip: the first pieces, and how many more there are."""
    if not trial.work:
        return
    print(f"\n{trial.scope} at {trial.at:%Y-%m-%d %H:%M:%S} would have stopped:")
    for done in trial.work[:SHOWN]:
        cost = f"{done.tokens:,} tokens, {done.usd_micros / 1e6:,.2f} USD"
        print(f"  {done.id}  {done.role}  completed {done.at:%Y-%m-%d %H:%M:%S}  {cost}")
    if len(trial.work) > SHOWN:
        print(f"  and {len(trial.work) - SHOWN:,} more; all of them with --output json")


async def _replay(session: Session, settings: tuple[str, ...], first: datetime, last: datetime) -> Backtest:
    registry = await session.registry()
    now = session.bus.author.now()
    present = {(cover.scope, cover.unit, cover.window): cover.cap for cover in caps.all_covers(registry, now)}
    base = Wanted(caps=present, loop=registry.loop)
    roles = [role.path for role in registry.roles.values()]
    wanted = parse(settings, base, roles, list(registry.projects))
    price = partial(prices.counted, prices=registry.quota.prices)
    test = Backtest(wanted, Calendar(registry.quota.time_zone), price)
    async with aclosing(session.since(first)) as records:
        async for record in records:
            if record.stored_at > last:
                break
            test.take(record)
    return test


def _row(trial: Trial) -> list[str]:
    return [
        f"{trial.at:%Y-%m-%d %H:%M:%S}",
        trial.guard,
        trial.scope,
        trial.why,
        f"{trial.saved_tokens:,}",
        f"{trial.saved_usd_micros / 1e6:,.2f}",
        f"{trial.stopped:,}",
    ]

"""``systems loop``: run trees that the loop breaker has stopped, and letting one go on."""

from __future__ import annotations

from cyclopts import App

from bus.errors import UnknownName
from bus.events import loop as ev
from bus.events.loop import LoopReason
from bus.store import CONTROL
from bus.trips import tree_key
from services.cli import output
from services.cli.common import DEFAULTS, Common
from services.cli.exits import Exit
from services.cli.session import operator

app = App(name="loop", help="List the run trees that were stopped, or let one go on.", help_format="plaintext")


@app.default
async def list_(*, common: Common = DEFAULTS) -> int:
    """List the run trees that were stopped: why, what they have spent, since when.

    Args:
        common: Which fleet, and how to print.
    """
    rows: list[dict[str, object]] = []
    async with operator(common) as session:
        for key, refusal in sorted((await session.bus.trips.all()).items()):
            kind, _, root = key.partition(".")
            if kind != "tree":
                continue
            last = await session.bus.store.last(CONTROL, f"ctl.loop.{root}.tripped")
            trip = last.data if last is not None and isinstance(last.data, ev.Tripped) else None
            rows.append({
                "root": root,
                "reason": trip.reason if trip is not None else refusal.reason,
                "count": trip.count if trip is not None else 0,
                "limit": trip.limit if trip is not None else 0,
                "role": trip.role if trip is not None else "",
                "descendants": trip.descendants if trip is not None else 0,
                "tokens": trip.tokens if trip is not None else 0,
                "usd": trip.usd_micros / 1e6 if trip is not None else 0.0,
                "since": refusal.since,
                "sentence": refusal.sentence,
            })  # fmt: skip
    if common.json:
        output.json({"trees": rows})
    elif not rows:
        print(f"no run tree is stopped (watched for: {', '.join(reason.value for reason in LoopReason)})")
    else:
        output.table(
            ["root", "reason", "count", "limit", "role", "descendants", "tokens", "usd", "since (UTC)"],
            [
                [
                    str(row["root"]),
                    str(row["reason"]),
                    f"{row['count']:,}",
                    f"{row['limit']:,}",
                    str(row["role"]),
                    f"{row['descendants']:,}",
                    f"{row['tokens']:,}",
                    f"{row['usd']:,.2f}",
                    f"{row['since']:%Y-%m-%d %H:%M:%S}" if row["since"] is not None else "-",
                ]
                for row in rows
            ],
            right=["count", "limit", "descendants", "tokens", "usd"],
        )
    return Exit.DONE


@app.command
async def clear(root: str, /, *, reason: str, common: Common = DEFAULTS) -> int:
    """Let a run tree go on; its counts begin again. What of it is dead already is redriven with `systems dlq redrive`.

    Args:
        root: Id of the tree's first invocation, as `systems loop` shows it.
        reason: Why; it goes into the record, with your name.
        common: Which fleet, and how to print.
    """
    async with operator(common) as session:
        bus = session.bus
        stopped = [key.partition(".")[2] for key in await bus.trips.all() if key.startswith("tree.")]
        if root not in stopped:
            raise UnknownName("stopped run tree", root, stopped)
        await bus.store.append(bus.author.control(root, ev.Cleared(reason=reason), root=root))
        await bus.trips.clear(tree_key(root))
    print(f"tree {root} may go on; look for its dead letters with `systems dlq ls`")
    return Exit.DONE

"""``systems ops``: what was done to the fleet, by whom, why, and what came of it."""

from __future__ import annotations

import msgspec
from cyclopts import App

from bus import errors
from services.cli import output
from services.cli.common import DEFAULTS, Common
from services.cli.exits import Exit
from services.cli.session import operator
from services.ops.operation import Operation
from services.ops.performing import operations

app = App(name="ops", help="List what was done to the fleet, by whom and why.", help_format="plaintext")


@app.default
async def list_(*, limit: int = 20, common: Common = DEFAULTS) -> int:
    """List restarts, reloads, changes of settings and other actions, the newest first.

    Args:
        limit: How many.
        common: Which fleet, and how to print.
    """
    async with operator(common) as session:
        found = list(reversed((await operations(session.bus)).values()))[:limit]
    if common.json:
        output.json({"operations": found})
        return Exit.DONE
    if not found:
        print("nothing was done yet")
        return Exit.DONE
    output.table(
        ["id", "at (UTC)", "action", "target", "who", "status", "took", "why"],
        [
            [
                one.id,
                f"{one.requested_at:%Y-%m-%d %H:%M:%S}",
                one.action,
                one.target,
                one.who,
                one.status.value,
                output.age(one.took_s) if one.took_s is not None else "-",
                one.reason or one.why,
            ]
            for one in found
        ],
        right=["took"],
    )
    return Exit.DONE


@app.command
async def show(id_: str, /, *, common: Common = DEFAULTS) -> int:
    """Show one action with its evidence.

    Args:
        id_: Its id, or the end of it that no other has.
        common: Which fleet, and how to print.
    """
    async with operator(common) as session:
        known = await operations(session.bus)
    found = [one for key, one in known.items() if key == id_ or key.endswith(id_)]
    if len(found) != 1:
        raise errors.UnknownName("action", id_, list(known)[-12:])
    _print(found[0], common)
    return Exit.DONE


def _print(one: Operation, common: Common) -> None:
    if common.json:
        output.json(one)
        return
    facts = msgspec.structs.asdict(one)
    if one.evidence is not None:
        facts["evidence"] = msgspec.json.format(bytes(one.evidence), indent=2).decode()
    output.facts(((name, value) for name, value in facts.items() if value not in ("", None, 0, 0.0)), 13)

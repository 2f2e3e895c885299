"""``systems plan`` and ``systems apply``: the declared shape of the bus against the live one.

What is declared is the topology with one consumer for each registered role; with ``--fleet`` also the registry itself. What
the registry no longer names is shown as a deletion, except where its entry is there and cannot be read.
"""

from __future__ import annotations

from pathlib import Path

from bus import plan as planner
from bus.events.topology import Change
from services.cli import output
from services.cli.common import DEFAULTS, Common, Flag
from services.cli.exits import Exit
from services.cli.session import operator
from services.declaration import Difference, carry_out, compare, refuse_frozen
from services.fleet import file as fleet_file
from services.fleet import registry as registered

_SIGNS = {"create": ("+", "green"), "update": ("~", "yellow"), "delete": ("-", "red")}
#: Characters of a value that a line shows.
_SHOWN = 70


async def plan(*, fleet: Path | None = None, replicas: int | None = None, common: Common = DEFAULTS) -> int:
    """Show what apply would change, like a diff. Exit status: 0 for no difference, 1 for some.

    Args:
        fleet: Fleet file whose projects, roles and prompts the registry should hold.
        replicas: Copies of each stream; else as many as there are now.
        common: Which fleet, and how to print.
    """
    wanted = _entries(fleet)
    async with operator(common) as session:
        _, difference = await compare(session.bus, wanted, replicas)
    _show(difference, common)
    return Exit.DONE if difference.empty else Exit.REFUSED


async def apply(
    *,
    fleet: Path | None = None,
    replicas: int | None = None,
    allow_destructive: Flag = False,
    common: Common = DEFAULTS,
) -> int:
    """Bring the bus to its declared shape. On an empty server that creates everything.

    Args:
        fleet: Fleet file whose projects, roles and prompts the registry should hold.
        replicas: Copies of each stream; else as many as there are now.
        allow_destructive: Also do what loses messages or state.
        common: Which fleet, and how to print.
    """
    wanted = _entries(fleet)
    async with operator(common) as session:
        topology, difference = await compare(session.bus, wanted, replicas)
        await refuse_frozen(session.bus, difference)
        if not allow_destructive:
            planner.refuse_destructive(list(difference.steps))
        await carry_out(session.bus, topology, difference, allow_destructive=allow_destructive)
        if wanted is not None:
            await registered.publish(session.bus.bucket("registry"), wanted)
    _show(difference, common)
    return Exit.DONE


def _entries(fleet: Path | None) -> dict[str, bytes] | None:
    """The registry that a fleet file asks for; None without a file."""
    if fleet is None:
        return None
    loaded = fleet_file.load(fleet)
    return registered.entries(loaded.fleet, loaded.prompts)


def _show(difference: Difference, common: Common) -> None:
    if common.json:
        output.json(difference)
        return
    if difference.empty:
        print("no difference")
    for step in difference.steps:
        _headline(step.action, f"{step.kind} {step.name}", step.why, step.destructive)
        if step.action == "update":
            _fields_of(step.changes)
    for change in difference.registry:
        _headline(change.action, f"registry {change.key}", "", "")
        _fields_of(change.changes)


def _headline(action: str, what: str, why: str, destructive: str) -> None:
    sign, colour = _SIGNS[action]
    text = output.paint(f"{sign} {what}", colour)
    if why and action == "create":
        text += output.paint(f"  ({why})", "dim")
    if destructive:
        text += output.paint(f"  DESTRUCTIVE: {destructive}", "red")
    print(text)


def _fields_of(changes: tuple[Change, ...]) -> None:
    for change in changes:
        before, after = output.clipped(change.before, _SHOWN), output.clipped(change.after, _SHOWN)
        print(f"    {output.paint('~', 'yellow')} {change.field} {before} -> {after}")

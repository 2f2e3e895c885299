"""``systems plan``, ``apply`` and ``drift``: the declared shape of the bus against the live one.

What is declared is the topology with one consumer for each registered role; with ``--fleet`` also the registry itself. What
the registry no longer names is shown as a deletion, except where its entry is there and cannot be read. What is there already
is changed only under a decision, and what would be lost only by somebody who types its name.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from bus.events.topology import Change
from services.cli import output
from services.cli.common import DEFAULTS, Common, Flag
from services.cli.exits import Exit, UsageError
from services.cli.session import operator
from services.config import drift as drifts
from services.daemon import Bus
from services.declaration import Difference, compare, exactly, present_values
from services.fleet import file as fleet_file
from services.fleet.file import LoadedFleet
from services.ops.apply import ApplyTopology

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
    loaded = fleet_file.load(fleet) if fleet is not None else None
    async with operator(common) as session:
        _, difference = await compare(session.bus, await _wanted(session.bus, loaded), replicas)
    _show(difference, common)
    return Exit.DONE if difference.empty else Exit.REFUSED


async def apply(
    *,
    fleet: Path | None = None,
    replicas: int | None = None,
    decision: Annotated[int, Parameter(show_default=False)] = 0,
    reason: str = "",
    allow_destructive: Flag = False,
    confirm: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = (),
    common: Common = DEFAULTS,
) -> int:
    """Bring the bus to its declared shape. On an empty server that creates everything.

    Args:
        fleet: Fleet file whose projects, roles and prompts the registry should hold.
        replicas: Copies of each stream; else as many as there are now.
        decision: Number of the decision that it rests on; asked for when something that exists is changed.
        reason: Why; it goes into the record, with your name.
        allow_destructive: Also do what loses messages or state, once its names are typed.
        confirm: The name of a stream or consumer that loses something, instead of being asked for it. May be repeated.
        common: Which fleet, and how to print.
    """
    loaded = fleet_file.load(fleet) if fleet is not None else None
    async with operator(common) as session:
        wanted = await _wanted(session.bus, loaded)
        topology, difference = await compare(session.bus, wanted, replicas)
        if allow_destructive:
            _confirm(difference, confirm)
        action = ApplyTopology(
            session.bus, topology, difference, wanted, session.actor, allow_destructive=allow_destructive
        )
        await action.perform(why=reason, decision=decision)
    _show(difference, common)
    return Exit.DONE


def _confirm(difference: Difference, given: tuple[str, ...]) -> None:
    """Have a person type the name of each thing that loses something.

    Raises:
        UsageError: one is missing.
    """
    for step in difference.steps:
        if not step.destructive or step.name in given:
            continue
        typed = ""
        if sys.stdin.isatty():
            typed = input(f"{step.kind} {step.name}: {step.destructive}. Type {step.name} to do it: ").strip()
        if typed != step.name:
            raise UsageError(
                f"expected the name of what loses something, --confirm {step.name} ({step.destructive}), "
                f"got: {typed or ', '.join(given) or 'none'}; nothing was changed"
            )


async def drift(*, common: Common = DEFAULTS) -> int:
    """Show where the fleet is not as declared: streams edited by hand, settings, daemons behind. Exit status 1 for some.

    Args:
        common: Which fleet, and how to print.
    """
    async with operator(common) as session:
        found = await drifts.look(session.bus)
    if common.json:
        output.json(found)
        return Exit.DONE if found.empty else Exit.REFUSED
    if found.empty:
        print("no drift")
        return Exit.DONE
    config = found.config
    for step in found.steps:
        _headline(step.action, f"{step.kind} {step.name}", step.why, step.destructive)
        if step.action == "update":
            _fields_of(step.changes)
    for change in config.file_changes or ():
        before, after = output.clipped(change.before, _SHOWN), output.clipped(change.after, _SHOWN)
        print(f"{output.paint('~ setting', 'yellow')} {change.field} {before} in {config.file}, in effect {after}")
    if config.file_fault:
        print(f"{output.paint('! fleet file', 'red')} {config.file_fault}")
    for refused in config.refused:
        print(f"{output.paint('! setting', 'red')} {refused.key} at revision {refused.revision}: {refused.sentence}")
    for name in config.behind:
        print(f"{output.paint('! daemon', 'red')} {name} has not taken up revision {config.revision}")
    if config.at_next_start:
        print(
            f"{output.paint('~ daemon', 'yellow')} the launcher runs its daemons by older settings: systems down, systems up"
        )
    return Exit.REFUSED


async def _wanted(bus: Bus, loaded: LoadedFleet | None) -> dict[str, bytes] | None:
    """The registry that a fleet file asks for; None without a file."""
    return None if loaded is None else exactly(await present_values(bus), loaded)


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

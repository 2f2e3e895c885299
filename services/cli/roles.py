"""``systems roles``: what is registered, and whether anybody works for it."""

from __future__ import annotations

from typing import Annotated

import msgspec
from cyclopts import App, Parameter

from bus.subjects import parse_role
from services import roles as roles_
from services.cli import output, revisions
from services.cli.common import DEFAULTS, Common
from services.cli.exits import Exit
from services.cli.session import Session, operator
from services.fleet.entries import role_key
from services.roles import RoleView, Work, work_cells

app = App(
    name="roles", help="Show the registered roles, and bring one back to an earlier revision.", help_format="plaintext"
)


@app.command(name="history")
async def history_(role: str, /, *, common: Common = DEFAULTS) -> int:
    """Show who changed a role and why, the newest first.

    Args:
        role: PROJECT/ROLE.
        common: Which fleet, and how to print.
    """
    async with operator(common) as session:
        return await revisions.show_history(session, await _key(session, role), common)


@app.command
async def diff(role: str, first: str = "", second: str = "", /, *, common: Common = DEFAULTS) -> int:
    """Show what differs between two revisions of a role. Exit status 1 for a difference.

    Args:
        role: PROJECT/ROLE.
        first: A revision; the last but one if left out.
        second: Another revision; the last if left out.
        common: Which fleet, and how to print.
    """
    async with operator(common) as session:
        return await revisions.show_diff(session, await _key(session, role), first, second, common)


@app.command
async def rollback(
    role: str,
    /,
    *,
    to: int,
    reason: str,
    decision: Annotated[int, Parameter(show_default=False)] = 0,
    common: Common = DEFAULTS,
) -> int:
    """Bring a role back to what it was at a revision. That makes a new revision; what runs finishes as it began.

    Args:
        role: PROJECT/ROLE.
        to: The revision.
        reason: Why; it goes into the record, with your name.
        decision: Number of the decision that it rests on; limits and caps ask for one.
        common: Which fleet, and how to print.
    """
    async with operator(common) as session:
        return await revisions.roll_back(session, await _key(session, role), to, reason, decision, common)


async def _key(session: Session, role: str) -> str:
    """The registry key of a role that is registered, or that was."""
    project, name = parse_role(role)
    registry = await session.registry()
    if (project, name) not in registry.roles and not await session.bus.bucket("registry").history(
        role_key(project, name)
    ):
        registry.role(project, name)  # says what was meant
    return role_key(project, name)


@app.default
async def roles(role: str | None = None, /, *, common: Common = DEFAULTS) -> int:
    """Show the registered roles: handler, limits, revision, and who works for them.

    Args:
        role: PROJECT/ROLE; without it, all.
        common: Which fleet, and how to print.
    """
    wanted = None if role is None else parse_role(role)
    async with operator(common) as session:
        registry = await session.registry()
        if wanted is not None:
            found = registry.role(*wanted)
            view = await roles_.view(session.bus, found, whole=True)
            _show_one(view, common)
            return Exit.DONE
        views = [await roles_.view(session.bus, registry.roles[key]) for key in sorted(registry.roles)]
    if common.json:
        output.json({"roles": views})
        return Exit.DONE
    rows = [
        [
            view.role,
            view.handler,
            str(view.concurrency),
            f"{view.max_attempts} + {view.max_crashes}",
            output.age(view.timeout_s),
            str(view.revision),
            *work_cells(view),
        ]
        for view in views
    ]
    numbers = ["concurrency", "tries", "timeout", "revision", "pending", "in flight", "asking"]
    output.table(["role", "handler", *numbers], rows, right=numbers)
    return Exit.DONE


def _show_one(view: RoleView, common: Common) -> None:
    if common.json:
        output.json(view)
        return
    fields = msgspec.structs.asdict(view)
    registered = fields.pop("registered")
    work: Work | None = fields.pop("work")
    shown = {name: value if value not in (None, "", ()) else "-" for name, value in fields.items()}
    if work is None:
        shown["consumer"] = "none; the warden makes it, or `systems apply`"
    else:
        shown |= msgspec.structs.asdict(work)
    shown["registered"] = msgspec.json.encode(registered).decode()
    output.facts(shown.items(), 18)

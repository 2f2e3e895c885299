"""``systems roles``: what is registered, and whether anybody works for it."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from cyclopts import App, Parameter

from bus import errors, wire
from bus.store import INVOCATIONS
from bus.subjects import parse_role, role_consumer
from services.cli import output, revisions
from services.cli.common import DEFAULTS, Common
from services.cli.exits import Exit
from services.cli.session import Session, operator
from services.fleet.registry import RegisteredRole, role_key

app = App(
    name="roles", help="Show the registered roles, and bring one back to an earlier revision.", help_format="plaintext"
)


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """What the server says of a role's consumer."""

    #: Work items that nobody has been given yet.
    pending: int
    #: Given out and not answered: running, or waiting for a retry.
    in_flight: int
    #: Pulls that wait for work: 0 with work in flight may be a busy runner; 0 without means that nobody asks.
    waiting_pulls: int
    #: Given out more than once.
    redelivered: int


class RoleView(msgspec.Struct, frozen=True, kw_only=True):
    """A role with its work, for programs."""

    role: str
    handler: str
    concurrency: int
    max_in_flight: int
    max_attempts: int
    max_crashes: int
    timeout_s: float
    progress_timeout_s: float
    idempotent: bool
    prompt: str | None
    schedules: tuple[str, ...]
    revision: int
    description: str
    #: None: the server has no consumer for it.
    work: Work | None
    #: The entry as it is registered.
    registered: Any = None


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
            view = await _view(session, found, whole=True)
            _show_one(view, common)
            return Exit.DONE
        views = [await _view(session, registry.roles[key]) for key in sorted(registry.roles)]
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
            *_work(view),
        ]
        for view in views
    ]
    numbers = ["concurrency", "tries", "timeout", "revision", "pending", "in flight", "asking"]
    output.table(["role", "handler", *numbers], rows, right=numbers)
    return Exit.DONE


def _work(view: RoleView) -> list[str]:
    work = view.work
    if work is None:
        return ["no consumer", "", ""]
    return [f"{work.pending:,}", f"{work.in_flight:,}", str(work.waiting_pulls) if work.waiting_pulls else "nobody"]


async def _view(session: Session, found: RegisteredRole, *, whole: bool = False) -> RoleView:
    role = found.role
    return RoleView(
        role=found.path,
        handler=str(role.handler.__struct_config__.tag),
        concurrency=role.concurrency,
        max_in_flight=role.in_flight,
        max_attempts=role.max_attempts,
        max_crashes=role.max_crashes,
        timeout_s=role.timeout,
        progress_timeout_s=role.progress_timeout,
        idempotent=role.idempotent,
        prompt=role.prompt,
        schedules=tuple(role.schedules),
        revision=found.revision,
        description=role.description,
        work=await _consumer(session, found),
        registered=msgspec.to_builtins(role) if whole else None,
    )


async def _consumer(session: Session, found: RegisteredRole) -> Work | None:
    name = role_consumer(found.project, found.name)
    try:
        info = await session.bus.connection.api(f"CONSUMER.INFO.{INVOCATIONS}.{name}")
    except errors.ServerError as exc:
        if exc.code != wire.Code.CONSUMER_NOT_FOUND:
            raise
        return None
    return Work(
        pending=info["num_pending"],
        in_flight=info["num_ack_pending"],
        waiting_pulls=info.get("num_waiting", 0),
        redelivered=info.get("num_redelivered", 0),
    )


def _show_one(view: RoleView, common: Common) -> None:
    if common.json:
        output.json(view)
        return
    fields = msgspec.structs.asdict(view)
    registered = fields.pop("registered")
    work: Work | None = fields.pop("work")
    for name, value in fields.items():
        shown = ", ".join(value) if isinstance(value, tuple) else value
        print(f"{output.paint(name.ljust(18), 'dim')} {shown if shown not in (None, '') else '-'}")
    if work is None:
        print(f"{output.paint('consumer'.ljust(18), 'dim')} none; the warden makes it, or `systems apply`")
    else:
        for name, value in msgspec.structs.asdict(work).items():
            print(f"{output.paint(name.ljust(18), 'dim')} {value}")
    print(f"{output.paint('registered'.ljust(18), 'dim')} {msgspec.json.encode(registered).decode()}")

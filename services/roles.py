"""The registered roles as people see them: limits, revision, and what the server says of their work."""

from __future__ import annotations

from typing import Any

import msgspec

from bus import errors, wire
from bus.store import INVOCATIONS
from bus.subjects import role_consumer
from services.daemon import Bus
from services.fleet.registry import RegisteredRole


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


async def view(bus: Bus, found: RegisteredRole, *, whole: bool = False) -> RoleView:
    """A role with its work; with `whole` also its entry as it is registered."""
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
        work=await _consumer(bus, found),
        registered=msgspec.to_builtins(role) if whole else None,
    )


async def _consumer(bus: Bus, found: RegisteredRole) -> Work | None:
    name = role_consumer(found.project, found.name)
    try:
        info = await bus.connection.api(f"CONSUMER.INFO.{INVOCATIONS}.{name}")
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


def work_cells(view: RoleView) -> list[str]:
    """Pending, in flight and asking, as a list shows them. Pure."""
    work = view.work
    if work is None:
        return ["no consumer", "", ""]
    return [f"{work.pending:,}", f"{work.in_flight:,}", str(work.waiting_pulls) if work.waiting_pulls else "nobody"]

"""A person pauses a role and lets it go on: a standing refusal in the bucket ``trips``, and an event that names the person."""

from __future__ import annotations

from datetime import timedelta

from bus import trips
from bus.events import guard as ev
from bus.refusal import Refusal
from bus.subjects import parse_role
from services.daemon import Bus
from services.fleet.registry import Registry
from services.guards import pauses


async def pause(bus: Bus, registry: Registry, role: str, *, reason: str, by: str, for_s: float = 0.0) -> Refusal:
    """Hand out no more work of a role: the refusal that stands now.

    Args:
        bus: where.
        registry: to know the role.
        role: ``project/role``.
        reason: in the words of whoever asks.
        by: who asks.
        for_s: seconds after which the role goes on by itself; 0 for never.

    Raises:
        BadSubject, UnknownName: it is no role.
    """
    project, name = parse_role(role)
    registry.role(project, name)
    now = bus.author.now()
    until = now + timedelta(seconds=for_s) if for_s else None
    refusal = pauses.by_person(role, reason, by, now, until)
    await bus.trips.put(trips.pause_key(project, name), refusal)
    paused = ev.Paused(role=role, reason=reason, until=until)
    await bus.store.append(bus.author.control(f"{project}_{name}", paused, actor=by))
    return refusal


async def resume(bus: Bus, role: str, *, reason: str, by: str) -> bool:
    """Hand out a paused role's work again; False when it was not paused.

    Raises:
        BadSubject: it is no role.
    """
    project, name = parse_role(role)
    key = trips.pause_key(project, name)
    if key not in await bus.trips.all():
        return False
    await bus.trips.clear(key)
    resumed = ev.Resumed(role=role, reason=reason)
    await bus.store.append(bus.author.control(f"{project}_{name}", resumed, actor=by))
    return True

"""A paused role's refusal: in the words of the one who paused it, a person or a provider's limit. Pure."""

from __future__ import annotations

from datetime import datetime

from bus.events.guard import Paused
from bus.refusal import Reason, Refusal

#: Characters of a provider's words that are kept.
_SHOWN = 200
_ALLOWED = "asking it: the work waits"


def by_person(role: str, reason: str, actor: str, since: datetime, until: datetime | None = None) -> Refusal:
    """A person stopped a role's work."""
    return Refusal(
        reason=Reason.PAUSED,
        scope=role,
        because=f"{reason} ({actor})",
        since=since,
        until=until,
        command=_command(role),
        allowed=_ALLOWED,
    )


def by_provider(role: str, why: str, since: datetime, until: datetime) -> Refusal:
    """The provider of a role's model has named the time at which it takes requests again."""
    because = f"its provider takes no more requests for now ({why[:_SHOWN]})"
    return _until(role, because, since, until)


def of_event(event: Paused, source: str, actor: str, since: datetime) -> Refusal:
    """The refusal that stood, by its event; a runner writes the provider's."""
    if source.startswith("/agent_runner/"):
        return _until(event.role, event.reason, since, event.until)
    return by_person(event.role, event.reason, actor, since, event.until)


def _until(role: str, because: str, since: datetime, until: datetime | None) -> Refusal:
    return Refusal(
        reason=Reason.PAUSED,
        scope=role,
        because=because,
        since=since,
        until=until,
        clears="its time, or a person",
        command=_command(role),
        allowed=_ALLOWED,
    )


def _command(role: str) -> str:
    return f"systems resume {role} --reason TEXT"

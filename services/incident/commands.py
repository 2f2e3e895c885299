"""What can be asked of an incident, in the imperative; :func:`services.incident.decision.decide` answers with facts."""

from __future__ import annotations

from datetime import datetime

import msgspec

from bus.events import incident as ev
from bus.events.finding import Kind, Severity


class Acknowledge(msgspec.Struct, frozen=True, kw_only=True):
    """Have it, so that nobody is paged until then."""

    by: str
    until: datetime | None = None
    #: Also when somebody else has it.
    take: bool = False


class Expire(msgspec.Struct, frozen=True):
    """End an acknowledgement whose time is over."""


class Join(msgspec.Struct, frozen=True, kw_only=True):
    """Count a finding to it."""

    finding: str
    kind: Kind
    severity: Severity
    title: str
    subject: str
    reason: ev.JoinReason
    by: str = "monitor"
    #: When the next update is owed if this opens it again.
    next_at: datetime | None = None


class Recover(msgspec.Struct, frozen=True):
    """Say that a finding of it is gone."""

    finding: str


class Update(msgspec.Struct, frozen=True, kw_only=True):
    """Tell everybody who is affected."""

    by: str
    text: str
    projects: tuple[ev.Words, ...] = ()
    next_at: datetime | None = None


class Tick(msgspec.Struct, frozen=True):
    """Tell everybody that there is no news, because the time for it has come."""

    next_at: datetime


class Note(msgspec.Struct, frozen=True):
    """Add to the timeline."""

    by: str
    text: str


class Assign(msgspec.Struct, frozen=True):
    """Put somebody in command."""

    by: str
    commander: str


class ChangeSeverity(msgspec.Struct, frozen=True):
    """Say how bad it is."""

    by: str
    severity: Severity
    why: str = ""


class Affect(msgspec.Struct, frozen=True, kw_only=True):
    """Say which projects it hits; ``graph`` never overrules a person."""

    by: str
    add: tuple[ev.Impact, ...] = ()
    remove: tuple[str, ...] = ()


class Mitigate(msgspec.Struct, frozen=True):
    """Say that it does no more harm."""

    by: str
    text: str = ""


class Close(msgspec.Struct, frozen=True, kw_only=True):
    """Say that it is over."""

    by: str
    cause: str
    actions: tuple[ev.Action, ...] = ()


class Reopen(msgspec.Struct, frozen=True, kw_only=True):
    """Say that it is not over."""

    by: str
    why: str
    finding: str = ""
    next_at: datetime | None = None


class Page(msgspec.Struct, frozen=True):
    """Order a call."""

    order: ev.PageDue


class Answer(msgspec.Struct, frozen=True):
    """Say what became of a call."""

    paged: ev.Paged


class Judge(msgspec.Struct, frozen=True):
    """Say that every way fails, or that one works again, if that is so and was not said."""


class Tell(msgspec.Struct, frozen=True):
    """Say that a project was told."""

    told: ev.Told


class Draft(msgspec.Struct, frozen=True):
    """Hand in the draft of the post-mortem."""

    markdown: str


Command = (
    Acknowledge | Expire | Join | Recover | Update | Tick | Note | Assign | ChangeSeverity | Affect | Mitigate | Close
    | Reopen | Page | Answer | Judge | Tell | Draft
)  # fmt: skip

"""Who is called when an incident opens: people, rotations, hours and escalation policies, as tables of the fleet file.

An address that is a secret (a webhook, a mail login) never stands here: a person's way names the variable that holds it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from services.fleet.table import Count, Name, Positive, Variable

#: The way of everybody who has a Slack user id.
SLACK = "slack"
#: Whom a step names to have it said in the channel of the affected projects.
CHANNEL = "channel"
_Clock = Annotated[str, Meta(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A table of the fleet file: unknown keys are errors."""


class Person(_Table, frozen=True):
    """Somebody who can be called."""

    #: Slack user id, as ``U0123ABCD``; empty for none.
    slack: str = ""
    #: Name of a way -> name of the variable that holds its apprise address, in the warden's environment or in ``ways.env``
    #: of the state directory.
    ways: dict[Name, Variable] = {}


class Rotation(_Table, frozen=True):
    """People who are on call one after the other. A policy names it as it names a person."""

    people: Annotated[tuple[Name, ...], Meta(min_length=1)]
    #: When the first one's first turn begins, by the clock of `time_zone`: ``2026-11-23T09:00``.
    begins: str
    #: Seconds of a turn. Hand-over stays at the same hour when the clocks change.
    every: Positive = 7 * 86_400.0
    time_zone: str = "UTC"


class Day(StrEnum):
    """A day of the week."""

    MON = "mon"
    TUE = "tue"
    WED = "wed"
    THU = "thu"
    FRI = "fri"
    SAT = "sat"
    SUN = "sun"


class Hours(_Table, frozen=True):
    """Hours of the week, such as those of an office. An `end` before the `start` is on the next day."""

    days: Annotated[tuple[Day, ...], Meta(min_length=1)] = (Day.MON, Day.TUE, Day.WED, Day.THU, Day.FRI)
    start: _Clock = "09:00"
    end: _Clock = "17:00"
    time_zone: str = "UTC"


class Step(_Table, frozen=True):
    """Whom to call, how, and when."""

    #: People, rotations, or ``channel``.
    whom: Annotated[tuple[Name, ...], Meta(min_length=1)]
    #: Names of ways; empty for all that each of them has.
    how: tuple[Name, ...] = ()
    #: Seconds after the incident was declared, or after its acknowledgement has expired.
    after: Annotated[float, Meta(ge=0)] = 0.0
    #: Seconds until the same are called again; None: once.
    repeat: Positive | None = 300.0
    #: Only within these hours, or only outside of them; a step whose time comes otherwise waits for them.
    within: str = ""
    outside: str = ""


class Escalation(_Table, frozen=True):
    """A policy: whom to call one after the other until somebody acknowledges."""

    steps: Annotated[tuple[Step, ...], Meta(min_length=1)]


class Incidents(_Table, frozen=True):
    """How incidents are handled. Times are seconds."""

    #: Policy of projects that name none, and of incidents that hit no project; empty: nobody is called.
    escalation: str = ""
    #: How long an acknowledgement holds.
    acknowledged_for: Positive = 3600.0
    #: Between two updates to those who are affected.
    update_every: Positive = 1800.0
    #: After a close: a finding that is back within it opens the incident again, a later one opens a new one.
    reopen_within: Positive = 86_400.0
    #: What one call may take; and what ``slack_mirror`` may take to answer.
    call_timeout: Positive = 20.0
    answer_within: Positive = 30.0
    #: The pause before a call that failed is made again; it doubles up to the longest.
    retry: Positive = 5.0
    retry_longest: Positive = 300.0
    #: Calls at once.
    calls: Count = 8

"""What an ultra opens and only a person closes, as events on ``ctl.incident.<number>.<event>``.

A number counts from 1 without a gap and belongs to one incident for ever. Every event but ``paged``
is appended under a fence over its incident, so of two who act at the same time one wins and the other one is told. ``page_due`` is the order to call a
person by one way; whoever has that way (the warden, or ``slack_mirror``) carries it out and answers with ``paged``.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from bus.events.finding import Kind, Severity
from bus.events.moment import Moment


class Carrier(StrEnum):
    """Who can call a person by a way."""

    #: The warden, through apprise: e-mail, ntfy, webhooks, SMS gateways and many more.
    APPRISE = "apprise"
    #: ``slack_mirror``, by direct message or in a channel.
    SLACK = "slack"


class JoinReason(StrEnum):
    """Why a finding belongs to an incident."""

    #: It is what the incident was opened for.
    OPENED = "opened"
    #: One of the two explains the other.
    CAUSE = "cause"
    #: Both are about the same thing.
    SUBJECT = "subject"
    #: Both are about work of one run tree.
    TREE = "tree"
    #: It had recovered, and is back.
    BACK = "back"
    #: A person says so.
    PERSON = "person"


class Impact(msgspec.Struct, frozen=True, kw_only=True):
    """One project that is affected, and why."""

    project: str
    #: In words for the project: ``shop/coder is paused``; several are joined by ``; ``.
    reason: str
    #: ``graph`` for the causal graph of the events, else the person who says so.
    by: str = "graph"


class Action(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is still to be done after an incident, and who does it."""

    text: str
    owner: str = ""


class Words(msgspec.Struct, frozen=True, kw_only=True):
    """What one project is told instead of what all are told."""

    project: str
    text: str


class Declared(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An incident is open."""

    title: str
    severity: Severity
    #: ``monitor`` for an ultra finding, else the person who declares it.
    by: str
    #: When what is wrong began, which may be before anybody knew.
    since: Moment
    detail: str = ""
    #: What a person runs; empty where there is nothing to run.
    command: str = ""
    #: Fingerprint of the finding that it is opened for; empty for a person's.
    finding: str = ""
    #: Kind of that finding; None without one.
    kind: Kind | None = None
    #: What it is about: a role, daemon, stream, guard; empty where nobody says.
    subject: str = ""
    affected: tuple[Impact, ...] = ()
    #: When the first update is owed to the affected projects; None: no clock runs.
    next_at: Moment | None = None


class Acknowledged(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A person has it: nobody is paged until the acknowledgement ends."""

    by: str
    #: When it ends and people are paged again; None: not before the close.
    until: Moment | None = None


class AcknowledgementExpired(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The acknowledgement's time is over and the incident is not: people are paged again from the first step on."""

    #: Whose it was.
    by: str


class Joined(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A finding belongs to this incident."""

    finding: str
    kind: Kind
    severity: Severity
    title: str
    subject: str
    reason: JoinReason
    #: Who says so: ``monitor``, or a person.
    by: str = "monitor"


class Recovered(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A finding of this incident is gone. The incident stays open until a person closes it."""

    finding: str
    title: str
    #: Findings of the incident that are still there.
    left: int = 0


class Updated(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """News for everybody who is affected."""

    text: str
    by: str
    #: Other words for single projects.
    projects: tuple[Words, ...] = ()
    #: Nobody had news when they were owed: the clock says so.
    automatic: bool = False
    #: Who is reminded that an update is owed; empty for nobody.
    nags: str = ""
    #: When the next one is owed; None: none is.
    next_at: Moment | None = None


class Noted(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A person adds something to the timeline; it goes to no channel of an affected project."""

    text: str
    by: str


class Assigned(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Somebody takes command, or hands it over."""

    commander: str
    by: str
    #: Who had it before; empty for nobody.
    was: str = ""


class SeverityChanged(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """It is worse or milder than it was said to be. Only ultra pages people."""

    severity: Severity
    was: Severity
    by: str
    why: str = ""


class Affected(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which projects it hits has changed, or why."""

    by: str
    #: New ones, and known ones with another reason.
    added: tuple[Impact, ...] = ()
    #: Projects that it does not hit. Those that a person removes the graph does not add again.
    removed: tuple[str, ...] = ()


class Mitigated(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """It does no more harm, and is not over: nobody is paged, updates are still owed."""

    by: str
    text: str = ""


class Closed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A person says that it is over."""

    by: str
    cause: str
    actions: tuple[Action, ...] = ()
    #: Seconds from the declaration, or from the last time that it was reopened.
    open_s: float = 0.0


class Reopened(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """It is not over after all, or its mitigation does not hold: people are paged again."""

    by: str
    why: str
    #: Finding that is back; empty where a person says so.
    finding: str = ""
    next_at: Moment | None = None


class PageDue(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A person is to be called by one way, now."""

    #: Names this call; its answer names it too.
    page: str
    person: str
    #: Name of the person's way, as the fleet file has it: an address, never its secret part.
    way: str
    carrier: Carrier
    #: Where the carrier finds the person: a Slack user id or channel; empty where the way's name is enough.
    target: str = ""
    #: Step of the policy, from 1; and how often that step was made in this round, from 1.
    level: int = 1
    turn: int = 1
    #: From 1; more than 1 after a failure.
    attempt: int = 1
    #: Name of the policy that asks for it.
    policy: str = ""


class Paged(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of a call: it was taken by the way's own service, or not. Nobody can say whether a person has read it."""

    page: str
    person: str
    way: str
    level: int
    attempt: int
    ok: bool
    #: Why it failed; empty for a success.
    error: str = ""
    #: Seconds from the order to the answer.
    took_s: float = 0.0


class PagingFailed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Every way by which people were to be called has failed, so perhaps nobody knows. It is tried again for ever."""

    #: ``person by way: error`` each.
    ways: tuple[str, ...]


class PagingRecovered(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A way works again after all had failed."""

    way: str
    person: str


class Told(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An affected project was told by an address of its own, beside its Slack channel; or could not be."""

    project: str
    #: Name of the variable that holds the address.
    way: str
    #: Sequence in CONTROL of the event that it was told of.
    about: int
    ok: bool
    #: Why it failed; empty for a success.
    error: str = ""


class Drafted(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The post-mortem was drafted, after a close."""

    #: The whole text; people go on from there.
    markdown: str


IncidentEvent = (
    Declared | Acknowledged | AcknowledgementExpired | Joined | Recovered | Updated | Noted | Assigned | SeverityChanged
    | Affected | Mitigated | Closed | Reopened | PageDue | Paged | PagingFailed | PagingRecovered | Told | Drafted
)  # fmt: skip

EVENTS: dict[str, type[msgspec.Struct]] = {
    "declared": Declared,
    "acknowledged": Acknowledged,
    "acknowledgement_expired": AcknowledgementExpired,
    "joined": Joined,
    "recovered": Recovered,
    "updated": Updated,
    "noted": Noted,
    "assigned": Assigned,
    "severity_changed": SeverityChanged,
    "affected": Affected,
    "mitigated": Mitigated,
    "closed": Closed,
    "reopened": Reopened,
    "page_due": PageDue,
    "paged": Paged,
    "paging_failed": PagingFailed,
    "paging_recovered": PagingRecovered,
    "told": Told,
    "drafted": Drafted,
}

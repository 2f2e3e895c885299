"""The fleet file's table ``[slack]``: how the app is reached, and what is shown in which channel."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from bus.events.finding import Severity
from services.fleet.table import Count, Positive

#: Slack's own address of the Web API; GovSlack has another.
API_URL = "https://slack.com/api/"


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A table of the fleet file: unknown keys are errors."""


class Mode(StrEnum):
    """How Slack reaches the app."""

    #: The app opens a WebSocket: no address of ours must be reachable.
    SOCKET = "socket"
    #: Slack calls an address of ours and signs what it sends.
    HTTP = "http"


class Thread(StrEnum):
    """What a rule's messages hang below."""

    #: Each stands by itself.
    NONE = "none"
    #: All of one invocation are one thread.
    INVOCATION = "invocation"


class Rule(_Table, frozen=True):
    """What one channel shows. Each list names what is taken; an empty one takes all."""

    #: Id (``C0123ABCD``) or name (``#fleet``) of the channel.
    channel: Annotated[str, Meta(min_length=1)]
    #: Events, as ``noun.event`` with ``*`` for any: ``finding.*``, ``invocation.dead_lettered``.
    events: tuple[str, ...] = ()
    projects: tuple[str, ...] = ()
    #: As ``project/role``.
    roles: tuple[str, ...] = ()
    severities: tuple[Severity, ...] = ()
    #: The part of what is taken that is shown, chosen by the event's id: 0.01 is one in a hundred.
    sample: Annotated[float, Meta(gt=0, le=1)] = 1.0
    thread: Thread = Thread.NONE


#: Everybody who is a full member of the workspace; in `view` alone.
EVERYBODY = "*"


class Permissions(_Table, frozen=True):
    """Who may do what from Slack: ids of users (``U0123ABCD``) and of groups (``S0123ABCD``). Nobody else may."""

    #: Look: status, roles, dead letters, incidents, named queries. Every other permission includes it.
    view: tuple[str, ...] = ()
    #: Redrive, discard, pause, resume, restart, reload, deploy, raise caps, decide about what agents propose.
    operate: tuple[str, ...] = ()
    #: Declare, acknowledge, command, update and close incidents.
    incident: tuple[str, ...] = ()
    #: Freeze and thaw.
    freeze: tuple[str, ...] = ()
    #: Throw and clear a hard freeze; includes freeze.
    hard: tuple[str, ...] = ()
    #: Ask the tables anything.
    sql: tuple[str, ...] = ()


class Slack(_Table, frozen=True):
    """The Slack app. Without tokens it writes what it would send into its log."""

    #: Whether the launcher runs it.
    enabled: bool = False
    mode: Mode = Mode.SOCKET
    #: Where signed requests are taken in mode http.
    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 3000
    path: Annotated[str, Meta(pattern="^/")] = "/slack/events"
    #: Base address of the Web API.
    api_url: str = API_URL
    #: Channel of what belongs to no project; empty for none.
    channel: str = ""
    #: What channels show beside what they show by themselves.
    rules: tuple[Rule, ...] = ()
    #: Messages a second in one channel: Slack takes about one.
    per_second: Positive = 1.0
    #: Messages that wait for one channel; from there on, those that are alike are shown as one.
    burst: Count = 20
    #: Seconds without a sign of life after which the socket counts as lost.
    patience: Annotated[float, Meta(ge=1)] = 30.0
    permissions: Permissions = Permissions()


#: Settings of the table that are read once, when the daemon starts.
AT_START = frozenset({"enabled", "mode", "host", "port", "path", "api_url", "patience"})


def at_start(settings: Slack) -> tuple[object, ...]:
    """What of the settings takes effect at the next start only."""
    return tuple(getattr(settings, name) for name in sorted(AT_START))

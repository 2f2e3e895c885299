"""What was shown in Slack, as events on ``ctl.slack.<id>.<event>``: which message stands for which events.

``posted`` and ``updated`` lie under the id of the post, which follows from its channel and its first event; ``refusing``,
``recovered`` and ``withheld`` under the channel. An event is shown when one of them names it, and never again.
"""

from __future__ import annotations

import msgspec


class Posted(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A message stands in a channel."""

    #: Slack's id of the channel.
    channel: str
    #: The channel as the fleet file names it, or the person.
    target: str
    #: Slack's name of the message in it.
    ts: str
    #: Stream of the events that it shows, and their sequences: ``17`` or ``17-311,320``.
    stream: str
    seqs: str
    #: What kind of event they are: ``finding.opened``.
    kind: str
    #: Id of the first of them.
    event: str
    #: What was meant to be done: ``new``, ``reply``, ``update``.
    place: str
    #: The message that it hangs below; empty for none.
    thread: str = ""
    #: What it is the head of: ``incident:7``; empty for nothing.
    key: str = ""
    #: How many events it shows.
    count: int = 1


class Updated(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A message that stands there says something else now."""

    channel: str
    target: str
    ts: str
    stream: str
    seqs: str
    kind: str
    event: str
    place: str
    key: str
    count: int = 1


class Refusing(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Slack takes nothing for a channel: what belongs there waits, and the other channels go on."""

    #: As the fleet file names it.
    channel: str
    #: Slack's word: ``is_archived``, ``missing_scope (chat:write)``.
    error: str
    #: What a person does about it; empty where nobody knows.
    remedy: str = ""


class Recovered(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Slack takes messages for the channel again."""

    channel: str
    refused_s: float


class Withheld(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Events are not shown in a channel: too many wait for one that takes nothing, or Slack takes no form of the message."""

    channel: str
    why: str
    stream: str
    seqs: str
    #: How many of each kind.
    kinds: dict[str, int]


EVENTS: dict[str, type[msgspec.Struct]] = {
    "posted": Posted,
    "updated": Updated,
    "refusing": Refusing,
    "recovered": Recovered,
    "withheld": Withheld,
}

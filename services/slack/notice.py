"""What is to be shown of one event in one channel. Pure."""

from __future__ import annotations

import hashlib
from datetime import datetime
from enum import StrEnum

import msgspec

from bus.events.incident import PageDue
from services.slack.message import Message


class Place(StrEnum):
    """Where a message goes."""

    #: A new message of the channel; with a key it is the head of a thread.
    NEW = "new"
    #: Below the head of its key; a new message where that was never shown.
    REPLY = "reply"
    #: In place of what the head of its key says; a new message where that was never shown.
    UPDATE = "update"


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """One event in one channel."""

    #: As the fleet file names it, or a user's id for a direct message.
    channel: str
    #: ``finding.opened``.
    kind: str
    stream: str
    seq: int
    #: Id of the event, and when it was stored.
    event: str
    at: datetime
    message: Message
    place: Place = Place.NEW
    #: What the head of its thread stands for: ``incident:7``; empty for nothing.
    key: str = ""
    #: It goes before everything that is not.
    urgent: bool = False
    #: It is worth nothing later: what Slack refuses of it is withheld, and not tried again.
    passing: bool = False
    #: The order that it carries out, which is to be answered.
    page: PageDue | None = None
    #: Incident of that order.
    incident: int = 0


def post_id(channel: str, what: str) -> str:
    """16 hexadecimal digits."""
    return hashlib.sha256(f"{channel}\0{what}".encode()).hexdigest()[:16]


def head_id(channel: str, key: str) -> str:
    """The post that is the head of a key in a channel."""
    return post_id(channel, key)

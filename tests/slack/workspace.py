"""What a Slack workspace holds: channels with their messages, users, groups, views, files."""

from __future__ import annotations

import copy
import itertools
import time
from dataclasses import dataclass, field
from typing import Any

TEAM, APP, BOT, BOT_USER = "T0FAKE", "A0FAKE", "B0FAKE", "U0BOT"


class Refused(Exception):
    """Slack's answer ``ok: false``."""

    def __init__(self, error: str, **more: Any) -> None:
        super().__init__(error)
        self.error, self.more = error, more


@dataclass
class Channel:
    """A conversation; of a direct message `user` is the other one."""

    id: str
    name: str
    archived: bool = False
    private: bool = False
    user: str = ""
    members: set[str] = field(default_factory=lambda: {BOT_USER})
    #: In the order in which they came, replies among them.
    messages: list[dict[str, Any]] = field(default_factory=list)

    @property
    def kind(self) -> str:
        """What its scopes begin with."""
        return "im" if self.user else "groups" if self.private else "channels"

    def find(self, ts: str) -> dict[str, Any]:
        """The message with this ts."""
        newest_first: list[dict[str, Any]] = self.messages[::-1]
        for message in newest_first:
            if message["ts"] == ts:
                return message
        raise Refused("message_not_found")

    def info(self) -> dict[str, Any]:
        """As conversations.info shows it."""
        return {
            "id": self.id,
            "name": self.name,
            "is_channel": not self.user,
            "is_im": bool(self.user),
            "is_private": self.private or bool(self.user),
            "is_archived": self.archived,
            "is_member": BOT_USER in self.members,
            "num_members": len(self.members),
        } | ({"user": self.user} if self.user else {})


@dataclass
class User:
    """A person."""

    id: str
    name: str
    deleted: bool = False
    email: str = ""
    tz: str = "Etc/UTC"

    def info(self) -> dict[str, Any]:
        """As users.info shows it."""
        profile = {"real_name": self.name.title(), "display_name": self.name, "email": self.email}
        return {
            "id": self.id,
            "team_id": TEAM,
            "name": self.name,
            "deleted": self.deleted,
            "tz": self.tz,
            "is_bot": False,
            "profile": profile,
        }


class Workspace:
    """All of it, with the rules that are Slack's own."""

    def __init__(self) -> None:
        self.channels: dict[str, Channel] = {}
        self.users: dict[str, User] = {}
        #: Group id -> its members.
        self.groups: dict[str, list[str]] = {}
        self.views: dict[str, dict[str, Any]] = {}
        #: The home tab of each user.
        self.homes: dict[str, dict[str, Any]] = {}
        self.files: dict[str, dict[str, Any]] = {}
        self._count = itertools.count(1)
        #: Microseconds of the last timestamp.
        self._last = 0

    def id(self, letter: str) -> str:
        """A new id that begins with a letter."""
        return f"{letter}{next(self._count):08d}"

    def ts(self) -> str:
        """A new timestamp: unique, and later than all before."""
        self._last = max(self._last + 1, int(time.time() * 1e6))
        return f"{self._last // 1_000_000}.{self._last % 1_000_000:06d}"

    def channel(self, name: str, **more: Any) -> Channel:
        """Make a channel that the bot is in."""
        made = Channel(self.id("C"), name, **more)
        self.channels[made.id] = made
        return made

    def user(self, name: str, **more: Any) -> User:
        """Make a user."""
        made = User(self.id("U"), name, **more)
        self.users[made.id] = made
        return made

    def direct(self, user: str) -> Channel:
        """The direct conversation with a user."""
        found = self.users.get(user)
        if found is None:
            raise Refused("user_not_found")
        if found.deleted:
            raise Refused("user_disabled")
        for channel in self.channels.values():
            if channel.user == user:
                return channel
        made = Channel(self.id("D"), "directmessage", user=user, members={BOT_USER, user})
        self.channels[made.id] = made
        return made

    def target(self, name: str) -> Channel:
        """Where chat.postMessage posts: an id, a name, or a user."""
        if name.startswith("U"):
            try:
                return self.direct(name)
            except Refused as exc:
                raise Refused("channel_not_found") from exc
        channel = self.channels.get(name) or next(
            (c for c in self.channels.values() if c.name == name.removeprefix("#")), None
        )
        if channel is None:
            raise Refused("channel_not_found")
        if channel.archived:
            raise Refused("is_archived")
        if BOT_USER not in channel.members:
            raise Refused("channel_not_found" if channel.private else "not_in_channel")
        return channel

    def known(self, id_: str) -> Channel:
        """A channel by its id, for those methods that take nothing else."""
        channel = self.channels.get(id_)
        if channel is None or (channel.private and BOT_USER not in channel.members):
            raise Refused("channel_not_found")
        return channel

    def post(self, args: dict[str, Any]) -> tuple[Channel, dict[str, Any]]:
        """Take a message."""
        channel = self.target(args.get("channel", ""))
        thread = args.get("thread_ts")
        if thread and not any(message["ts"] == thread for message in reversed(channel.messages)):
            raise Refused("thread_not_found")
        message: dict[str, Any] = {
            "type": "message",
            "user": BOT_USER,
            "bot_id": BOT,
            "app_id": APP,
            "team": TEAM,
            "ts": self.ts(),
            "text": args.get("text", ""),
        }
        message |= {name: args[name] for name in ("blocks", "attachments", "metadata") if args.get(name)}
        if thread:
            message["thread_ts"] = thread
            channel.find(thread)["thread_ts"] = thread
        channel.messages.append(message)
        return channel, message

    def update(self, args: dict[str, Any]) -> tuple[Channel, dict[str, Any]]:
        """Replace what a message says."""
        channel = self.known(args.get("channel", ""))
        if channel.archived:
            raise Refused("is_archived")
        message = channel.find(args.get("ts", ""))
        if message["user"] != BOT_USER:
            raise Refused("cant_update_message")
        message["text"] = args.get("text", message["text"])
        message |= {name: args[name] for name in ("blocks", "attachments", "metadata") if args.get(name) is not None}
        message["edited"] = {"user": BOT_USER, "ts": self.ts()}
        return channel, message

    def history(self, args: dict[str, Any], *, replies: bool) -> dict[str, Any]:
        """conversations.history, newest first, without replies; or conversations.replies, the parent first."""
        channel = self.known(args.get("channel", ""))
        if BOT_USER not in channel.members:
            raise Refused("not_in_channel")
        if replies:
            thread = args.get("ts", "")
            channel.find(thread)
            found = [m for m in channel.messages if thread in (m["ts"], m.get("thread_ts"))]
        else:
            found = [m for m in reversed(channel.messages) if m.get("thread_ts", m["ts"]) == m["ts"]]
        oldest, latest = float(args.get("oldest") or 0), float(args.get("latest") or "inf")
        inclusive = str(args.get("inclusive", "")).lower() in ("1", "true")
        found = [
            m for m in found if oldest < float(m["ts"]) < latest or (inclusive and float(m["ts"]) in (oldest, latest))
        ]
        start, limit = int(args.get("cursor") or 0), min(int(args.get("limit") or 100), 999)
        page = copy.deepcopy(found[start : start + limit])
        if str(args.get("include_all_metadata", "")).lower() not in ("1", "true"):
            for message in page:
                message.pop("metadata", None)
        more = start + limit < len(found)
        cursor = str(start + limit) if more else ""
        return {"messages": page, "has_more": more, "response_metadata": {"next_cursor": cursor}}

"""Where messages are shown: Slack, or a log. What can go wrong with it, in three kinds.

A call that Slack has answered is done or not done. One that it has not answered may have been done: whoever made it looks
for its mark among the messages of the channel before it is made again.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, Protocol

import aiohttp
import msgspec
import structlog

from bus import errors
from services.slack.message import Message, blocks, notification, plain

log = structlog.get_logger()

#: Type of the metadata of our messages.
MARK = "systems_post"
#: Slack's id of a conversation or a user.
_ID = re.compile(r"[CGDUW][A-Z0-9]{6,}")
#: Errors that are about this one message: another form of it may be taken.
_OF_MESSAGE = frozenset({
    "invalid_blocks", "invalid_blocks_format", "msg_too_long", "no_text", "invalid_arguments", "metadata_too_large",
    "invalid_metadata_format", "invalid_metadata_schema", "msg_blocks_too_long", "as_user_not_supported",
})  # fmt: skip
#: Errors that say that the message below or in place of which it goes is gone.
_OF_HEAD = frozenset({"message_not_found", "thread_not_found", "cant_update_message", "edit_window_closed", "cannot_reply_to_message"})  # fmt: skip
#: What a person does about an error.
REMEDIES = {
    "invalid_auth": "copy the token anew: OAuth & Permissions for xoxb-, Basic Information, App-Level Tokens for xapp-",
    "not_authed": "set SYSTEMS_SLACK_BOT_TOKEN; OAuth & Permissions shows it",
    "not_allowed_token_type": "the two tokens are swapped: xapp- opens the socket, xoxb- posts",
    "missing_scope": "add the scope under OAuth & Permissions, then Reinstall to Workspace",
    "account_inactive": "the app was removed from the workspace: Install App",
    "token_revoked": "the app was removed from the workspace: Install App",
    "channel_not_found": "check the name in fleet.toml, and invite the app with /invite @systems if the channel is private",
    "not_in_channel": "invite the app in that channel: /invite @systems",
    "is_archived": "unarchive the channel, or name another one in fleet.toml",
    "restricted_action": "an admin has restricted who may post there: Manage apps, or another channel in fleet.toml",
    "user_disabled": "this person has left: name somebody else under [people] in fleet.toml",
    "user_not_found": "check the person's Slack user id in fleet.toml: profile, More, Copy member ID",
}


class Limited(Exception):
    """Slack takes nothing for a while."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"limited for {seconds:g} s")
        self.seconds = seconds


class Refused(errors.BusError):
    """Slack does not do it, and has said why."""

    def __init__(self, error: str, needed: str = "") -> None:
        self.error = error
        #: With the scope that is missing.
        self.what = f"{error} ({needed})" if needed else error
        self.remedy = REMEDIES.get(error, "")
        super().__init__(f"{self.what}: {self.remedy}" if self.remedy else self.what)

    @property
    def of_message(self) -> bool:
        """Another message would be taken."""
        return self.error in _OF_MESSAGE

    @property
    def of_head(self) -> bool:
        """What it belongs to is gone."""
        return self.error in _OF_HEAD


class Unsure(errors.BusError):
    """Nobody can say whether it was done."""


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """What a message carries so that it can be found: which events it shows."""

    post: str
    stream: str
    seqs: str
    kind: str
    event: str
    place: str
    key: str = ""
    count: int = 1


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A message of ours that stands in a channel."""

    ts: str
    thread: str
    mark: Mark


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """Where a message stands."""

    channel: str
    ts: str


class Screen(Protocol):
    """What shows messages."""

    #: Whether what was shown can be found again, and is to be recorded.
    lasting: bool

    async def post(self, target: str, message: Message, mark: Mark, thread: str = "", *, bare: bool = False) -> Shown:
        """Show a new message, below another one or not; `bare` is without blocks.

        Raises:
            Limited, Refused, Unsure: see there.
        """
        ...

    async def update(self, at: Shown, message: Message, mark: Mark) -> None:
        """Have a message say something else. The same errors."""
        ...

    async def id(self, target: str) -> str:
        """The screen's own name of a channel that is named. The same errors."""
        ...

    def marks(self, target: str, since: datetime, thread: str = "") -> AsyncIterator[Found]:
        """The messages of ours in a channel, or below one of them. The same errors."""
        ...


class Console:
    """A log: what would be sent to Slack, as text."""

    lasting = False

    async def post(self, target: str, message: Message, mark: Mark, thread: str = "", *, bare: bool = False) -> Shown:  # noqa: ARG002 (as Screen has it)
        """Write it."""
        log.info("slack_message", channel=target, below=thread or None, text=plain(message))
        return Shown(channel=target, ts=mark.post)

    async def update(self, at: Shown, message: Message, mark: Mark) -> None:
        """Write it."""
        log.info("slack_message", channel=at.channel, instead_of=at.ts, kind=mark.kind, text=plain(message))

    async def id(self, target: str) -> str:
        """The same name."""
        return target

    async def marks(self, target: str, since: datetime, thread: str = "") -> AsyncIterator[Found]:  # noqa: ARG002 (as Screen has it)
        """None: a log is not read back."""
        nothing: tuple[Found, ...] = ()
        for found in nothing:
            yield found


class SlackScreen:
    """A workspace. `client` is slack_sdk's AsyncWebClient."""

    lasting = True

    def __init__(self, client: Any) -> None:
        self._client = client
        #: Name of a channel -> its id.
        self._ids: dict[str, str] = {}

    async def post(self, target: str, message: Message, mark: Mark, thread: str = "", *, bare: bool = False) -> Shown:
        """chat.postMessage."""
        arguments = self._said(message, mark, bare=bare) | {
            "channel": target,
            "unfurl_links": False,
            "unfurl_media": False,
        }
        answer = await self.call("chat_postMessage", **arguments, **({"thread_ts": thread} if thread else {}))
        self._ids[target] = answer["channel"]
        return Shown(channel=answer["channel"], ts=answer["ts"])

    async def update(self, at: Shown, message: Message, mark: Mark) -> None:
        """chat.update. What is found again is what the message was posted for: its mark stays."""
        arguments = self._said(message, mark, bare=False)
        del arguments["metadata"]
        await self.call("chat_update", channel=at.channel, ts=at.ts, **arguments)

    @staticmethod
    def _said(message: Message, mark: Mark, *, bare: bool) -> dict[str, Any]:
        metadata = {"event_type": MARK, "event_payload": msgspec.to_builtins(mark)}
        said: dict[str, Any] = {"text": notification(message), "metadata": metadata}
        return said if bare else said | {"blocks": blocks(message)}

    async def marks(self, target: str, since: datetime, thread: str = "") -> AsyncIterator[Found]:
        """conversations.history, or conversations.replies."""
        arguments: dict[str, Any] = {
            "channel": await self.id(target),
            "oldest": f"{since.timestamp():.6f}",
            "limit": 200,
            "include_all_metadata": True,
        }
        method = "conversations_history"
        if thread:
            method, arguments["ts"] = "conversations_replies", thread
        cursor = ""
        while True:
            answer = await self.call(method, **arguments, **({"cursor": cursor} if cursor else {}))
            for message in answer["messages"]:
                metadata = message.get("metadata") or {}
                if metadata.get("event_type") == MARK:
                    mark = msgspec.convert(metadata["event_payload"], type=Mark)
                    below = message.get("thread_ts", "")
                    yield Found(ts=message["ts"], thread="" if below == message["ts"] else below, mark=mark)
            cursor = (answer.get("response_metadata") or {}).get("next_cursor", "")
            if not cursor:
                return

    async def id(self, target: str) -> str:
        """Slack's id of a channel that is named, or of the direct conversation with a person."""
        if target in self._ids:
            return self._ids[target]
        if target[:1] in ("U", "W") and _ID.fullmatch(target):
            answer = await self.call("conversations_open", users=target)
            self._ids[target] = answer["channel"]["id"]
        elif _ID.fullmatch(target):
            self._ids[target] = target
        else:
            await self._list(target)
        return self._ids[target]

    async def _list(self, target: str) -> None:
        cursor = ""
        while True:
            more = {"cursor": cursor} if cursor else {}
            answer = await self.call("conversations_list", limit=500, types="public_channel,private_channel", **more)
            self._ids |= {f"#{channel['name']}": channel["id"] for channel in answer["channels"]}
            cursor = (answer.get("response_metadata") or {}).get("next_cursor", "")
            named = "#" + target.removeprefix("#")
            if named in self._ids:
                self._ids[target] = self._ids[named]
                return
            if not cursor:
                raise Refused("channel_not_found")

    async def call(self, method: str, **arguments: Any) -> Any:
        """Call the Web API, with its errors as ours."""
        from slack_sdk.errors import SlackApiError, SlackClientError  # noqa: PLC0415 (console mode has no use for it)

        try:
            return await getattr(self._client, method)(**arguments)
        except SlackApiError as exc:
            if exc.response.status_code == 429:
                raise Limited(float(exc.response.headers.get("Retry-After", 1))) from exc
            if exc.response.status_code >= 500:
                raise Unsure(f"Slack answered {exc.response.status_code}") from exc
            error, needed = str(exc.response.get("error", "unknown_error")), str(exc.response.get("needed") or "")
            if error == "ratelimited":
                raise Limited(float(exc.response.headers.get("Retry-After", 1))) from exc
            if error in ("internal_error", "fatal_error", "service_unavailable", "request_timeout"):
                raise Unsure(f"Slack answered {error}") from exc
            raise Refused(error, needed) from exc
        except (SlackClientError, aiohttp.ClientError, TimeoutError, OSError) as exc:
            raise Unsure(f"Slack gave no answer: {str(exc) or type(exc).__name__}") from exc

"""What people do in Slack, as the payloads that reach an app: over its socket, or signed to its request URL."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from typing import Any
from urllib.parse import urlencode

import aiohttp

from tests.slack.fake import FakeSlack, spoken
from tests.slack.sockets import Ack
from tests.slack.workspace import APP, BOT_USER, TEAM


class Person:
    """One user at their screen. Without `url` everything goes over the socket."""

    def __init__(self, slack: FakeSlack, user: str, *, url: str = "") -> None:
        self.slack, self.user, self.url = slack, user, url
        #: The payload of the last delivery.
        self.last: dict[str, Any] = {}

    async def slash(self, text: str, channel: str, *, command: str = "/systems", **more: Any) -> Ack:
        """Type a slash command; the response_url is in :attr:`last`."""
        self.last = {
            "token": "gone",
            "team_id": TEAM,
            "team_domain": "fake",
            "channel_id": channel,
            "channel_name": self.slack.workspace.channels[channel].name,
            "user_id": self.user,
            "user_name": self.slack.workspace.users[self.user].name,
            "command": command,
            "text": text,
            "api_app_id": APP,
            "is_enterprise_install": "false",
            "response_url": self.slack.response_url(),
            "trigger_id": self.slack.trigger(),
        }
        return await self._deliver("slash_commands", self.last, **more)

    async def click(self, action: dict[str, Any], channel: str, message: dict[str, Any], **more: Any) -> Ack:
        """Press a button (or choose in a menu): `action` is its element, as it was posted."""
        self.last = self._interaction("block_actions") | {
            "container": {"type": "message", "message_ts": message["ts"], "channel_id": channel, "is_ephemeral": False},
            "channel": {"id": channel, "name": self.slack.workspace.channels[channel].name},
            "message": message,
            "state": {"values": {}},
            "response_url": self.slack.response_url(),
            "actions": [action | {"action_ts": self.slack.workspace.ts(), "block_id": action.get("block_id", "b")}],
        }
        return await self._deliver("interactive", self.last, **more)

    async def click_home(self, action: dict[str, Any], **more: Any) -> Ack:
        """Press a button in the home tab."""
        view = self.slack.workspace.homes[self.user]
        self.last = self._interaction("block_actions") | {
            "container": {"type": "view", "view_id": view["id"]},
            "view": view,
            "actions": [action | {"action_ts": self.slack.workspace.ts(), "block_id": action.get("block_id", "b")}],
        }
        return await self._deliver("interactive", self.last, **more)

    async def submit(self, view: dict[str, Any], values: dict[str, dict[str, Any]], **more: Any) -> Ack:
        """Send a modal: `values` are block_id -> action_id -> the element's state."""
        filled = view | {"state": {"values": values}, "team_id": TEAM, "app_id": APP, "bot_id": BOT_USER}
        self.last = self._interaction("view_submission") | {"view": filled, "response_urls": []}
        return await self._deliver("interactive", self.last, **more)

    async def open_home(self, **more: Any) -> Ack:
        """Look at the app's home tab."""
        event = {
            "type": "app_home_opened",
            "user": self.user,
            "channel": self.slack.workspace.direct(self.user).id,
            "tab": "home",
            "event_ts": self.slack.workspace.ts(),
        }
        return await self.event(event, **more)

    async def event(self, event: dict[str, Any], *, event_id: str = "", **more: Any) -> Ack:
        """Anything else that the Events API tells."""
        self.last = {
            "token": "gone",
            "team_id": TEAM,
            "api_app_id": APP,
            "event": event,
            "type": "event_callback",
            "event_id": event_id or self.slack.workspace.id("Ev"),
            "event_time": int(time.time()),
            "authorizations": [{"team_id": TEAM, "user_id": BOT_USER, "is_bot": True}],
        }
        return await self._deliver("events_api", self.last, **more)

    async def answered(self) -> dict[str, Any]:
        """The answer to what was done last; what only says that it takes a moment is none."""
        response = self.slack.responses[self.last["response_url"]]

        def found() -> dict[str, Any] | None:
            return next((body for body in response.bodies if "the answer follows" not in body["text"]), None)

        body: dict[str, Any] = await self.slack.until(found)
        return body

    async def view(self) -> dict[str, Any]:
        """The modal that the last press has opened."""
        trigger = self.last["trigger_id"]
        view: dict[str, Any] = await self.slack.until(lambda: self.slack.workspace.views.get(trigger))
        return view

    async def shown(self, view: dict[str, Any], words: str) -> str:
        """What a modal says once these words are in it and nothing is to be filled in any more."""

        def found() -> str | None:
            now = self.slack.workspace.views[view["id"]]
            form = any(block["type"] == "input" for block in now["blocks"])
            return spoken(now) if not form and words in spoken(now) else None

        said: str = await self.slack.until(found)
        return said

    def _interaction(self, kind: str) -> dict[str, Any]:
        user = self.slack.workspace.users[self.user]
        return {
            "type": kind,
            "team": {"id": TEAM, "domain": "fake"},
            "user": {"id": self.user, "username": user.name, "name": user.name, "team_id": TEAM},
            "api_app_id": APP,
            "token": "gone",
            "trigger_id": self.slack.trigger(),
        }

    async def _deliver(self, kind: str, payload: dict[str, Any], **more: Any) -> Ack:
        if not self.url:
            return await self.slack.sockets.ask(kind, payload, **more)
        status, body = await deliver(self.url, kind, payload, self.slack.secret, **more)
        assert status == 200, (status, body)
        return Ack("", json.loads(body) if body.startswith(("{", "[")) else body or None)


async def deliver(
    url: str, kind: str, payload: dict[str, Any], secret: str, *, age_s: float = 0, retry: int = 0
) -> tuple[int, str]:
    """One signed delivery to an app's request URL: (status, body)."""
    if kind == "events_api":
        body, content = json.dumps(payload), "application/json"
    else:
        form = payload if kind == "slash_commands" else {"payload": json.dumps(payload)}
        body, content = urlencode(form), "application/x-www-form-urlencoded"
    sent = str(int(time.time() - age_s))
    mark = hmac.new(secret.encode(), f"v0:{sent}:{body}".encode(), hashlib.sha256).hexdigest()
    headers = {"Content-Type": content, "X-Slack-Request-Timestamp": sent, "X-Slack-Signature": f"v0={mark}"}
    if retry:
        headers |= {"X-Slack-Retry-Num": str(retry), "X-Slack-Retry-Reason": "http_timeout"}
    timeout = aiohttp.ClientTimeout(total=3 if not retry else 10)
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.post(url, data=body, headers=headers) as answer,
    ):
        return answer.status, await answer.text()

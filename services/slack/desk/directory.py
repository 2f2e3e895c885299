"""Who somebody in Slack is: their name, whether they belong here, and which of the named groups they are in.

Asked of Slack and kept for a minute: a person who leaves a group keeps its permissions that long. What Slack does not tell
grants nothing, and is said in the refusal.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import aiohttp
import structlog
from slack_sdk.errors import SlackApiError, SlackClientError
from slack_sdk.web.async_client import AsyncWebClient

from services.fleet.slack import Permissions
from services.slack.desk import permission
from services.slack.desk.permission import Who

log = structlog.get_logger()

#: Seconds for which an answer of Slack's counts.
_KEEP_S = 60.0
_FAULTS = (SlackApiError, SlackClientError, aiohttp.ClientError, TimeoutError, OSError)


class Directory:
    """Asks Slack who is who."""

    def __init__(self, client: AsyncWebClient, permissions: Callable[[], Permissions]) -> None:
        """`permissions` are those in effect, which name the groups that matter."""
        self._client = client
        self._permissions = permissions
        self._users: dict[str, tuple[float, dict[str, Any]]] = {}
        self._groups: dict[str, tuple[float, frozenset[str]]] = {}
        #: What Slack would not tell last, and why.
        self.problem = ""

    async def who(self, user: str, name: str = "") -> Who:
        """Somebody by id; `name` is what the delivery calls them, should Slack not say."""
        self.problem = ""
        info = await self._user(user)
        profile = info.get("profile", {})
        shown = profile.get("display_name") or info.get("name") or name
        found = [group for group in permission.groups(self._permissions()) if user in await self._members(group)]
        outside = ("is_bot", "is_restricted", "is_ultra_restricted", "is_stranger")
        return Who(
            id=user,
            name=str(shown),
            groups=frozenset(found),
            member=bool(info) and not any(info.get(what) for what in outside),
            left=bool(info.get("deleted")),
        )

    async def _user(self, user: str) -> dict[str, Any]:
        at, kept = self._users.get(user, (0.0, {}))
        if kept and time.monotonic() - at < _KEEP_S:
            return kept
        try:
            answer = await self._client.users_info(user=user)
        except _FAULTS as exc:
            self._unseen("who you are", exc)
            return {}
        info: dict[str, Any] = answer["user"]
        self._users[user] = (time.monotonic(), info)
        return info

    async def _members(self, group: str) -> frozenset[str]:
        at, kept = self._groups.get(group, (0.0, frozenset()))
        if at and time.monotonic() - at < _KEEP_S:
            return kept
        try:
            answer = await self._client.usergroups_users_list(usergroup=group)
        except _FAULTS as exc:
            self._unseen(f"who is in the group {group}", exc)
            return frozenset()
        members = frozenset(answer["users"])
        self._groups[group] = (time.monotonic(), members)
        return members

    def _unseen(self, what: str, exc: Exception) -> None:
        why = exc.response.get("error", "") if isinstance(exc, SlackApiError) else str(exc) or type(exc).__name__
        needed = exc.response.get("needed", "") if isinstance(exc, SlackApiError) else ""
        self.problem = f"Slack does not say {what}: {why}" + (f" (add the scope {needed})" if needed else "")
        log.warning("slack_directory_unread", what=what, error=why)

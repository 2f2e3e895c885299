"""``systems slack check``: whether Slack would do what the fleet asks of it, and what to click where it would not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec

from services.fleet.duty import Person
from services.fleet.slack import Mode, Slack
from services.slack.screen import Limited, Refused, SlackScreen, Unsure
from services.slack.tokens import Tokens

#: What the app asks for, and what for; infra/slack/manifest.yaml asks for the same.
SCOPES: dict[str, str] = {
    "chat:write": "post and change messages",
    "commands": "/systems",
    "channels:read": "channels by name, and whether they are archived",
    "groups:read": "the same for private channels",
    "channels:history": "find what was posted before posting again",
    "groups:history": "the same in private channels",
    "im:history": "the same in direct messages",
    "im:write": "call somebody by direct message",
    "users:read": "who somebody is, and whether they have left",
    "usergroups:read": "permissions given to user groups",
    "files:write": "long answers and charts",
}


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at."""

    what: str
    ok: bool
    found: str
    #: What to click or to change; empty where all is well.
    remedy: str = ""


async def check(
    client: Any, tokens: Tokens, settings: Slack, channels: Mapping[str, str], people: Mapping[str, Person]
) -> AsyncIterator[Line]:
    """Look at token, scopes, socket, channels and people, one after the other.

    Args:
        client: slack_sdk's AsyncWebClient.
        tokens: what it shows.
        settings: of the fleet file.
        channels: channel -> what it is for.
        people: of the fleet file.
    """
    screen = SlackScreen(client)
    try:
        who = await screen.call("auth_test")
    except (Refused, Limited, Unsure) as exc:
        yield _bad("bot token", exc)
        return
    yield Line(what="bot token", ok=True, found=f"{who['user']} in {who['team']} ({who['url']})")
    yield _scopes(str(who.headers.get("x-oauth-scopes", "")))
    if settings.mode is Mode.SOCKET:
        try:
            await screen.call("apps_connections_open", app_token=tokens.app_token)
            yield Line(what="app token", ok=True, found="a socket can be opened")
        except (Refused, Limited, Unsure) as exc:
            yield _bad("app token", exc)
    else:
        where = f"http://{settings.host}:{settings.port}{settings.path}"
        yield Line(
            what="requests", ok=True, found=f"taken at {where}; the three request URLs of the app must lead there"
        )
    for channel, purpose in channels.items():
        yield await _channel(screen, channel, purpose)
    for name, person in people.items():
        if person.slack:
            yield await _person(screen, name, person.slack)


def _scopes(given: str) -> Line:
    has = {scope.strip() for scope in given.split(",") if scope.strip()}
    missing = [scope for scope in SCOPES if scope not in has]
    if not missing:
        more = sorted(has - SCOPES.keys())
        return Line(what="scopes", ok=True, found="all that are needed" + (f", and {', '.join(more)}" if more else ""))
    lacks = "; ".join(f"{scope} ({SCOPES[scope]})" for scope in missing)
    remedy = (
        "api.slack.com/apps, your app, OAuth & Permissions, Bot Token Scopes: add them; then Reinstall to Workspace"
    )
    return Line(what="scopes", ok=False, found=f"missing: {lacks}", remedy=remedy)


async def _channel(screen: SlackScreen, channel: str, purpose: str) -> Line:
    what = f"channel {channel}"
    try:
        info = (await screen.call("conversations_info", channel=await screen.id(channel)))["channel"]
    except (Refused, Limited, Unsure) as exc:
        return _bad(what, exc)
    name = f"#{info.get('name', channel)}, {purpose}"
    for wrong, error in ((info.get("is_archived"), "is_archived"), (not info.get("is_member"), "not_in_channel")):
        if wrong:
            refused = Refused(error)
            return Line(what=what, ok=False, found=f"{name}: {refused.what}", remedy=refused.remedy)
    return Line(what=what, ok=True, found=name)


async def _person(screen: SlackScreen, name: str, user: str) -> Line:
    what = f"person {name}"
    try:
        found = (await screen.call("users_info", user=user))["user"]
    except (Refused, Limited, Unsure) as exc:
        return _bad(what, exc)
    if found.get("deleted"):
        refused = Refused("user_disabled")
        return Line(what=what, ok=False, found=f"{user}: has left the workspace", remedy=refused.remedy)
    return Line(what=what, ok=True, found=f"{user}, {found.get('name', '')}")


def _bad(what: str, exc: Exception) -> Line:
    if isinstance(exc, Refused):
        return Line(what=what, ok=False, found=exc.what, remedy=exc.remedy)
    remedy = (
        "try again" if isinstance(exc, Limited) else "check [slack] api_url and the way to the internet, then try again"
    )
    return Line(what=what, ok=False, found=str(exc), remedy=remedy)


def channels_of(settings: Slack, projects: Mapping[str, str]) -> dict[str, str]:
    """Every channel that the fleet shows anything in, with what for."""
    found: dict[str, list[str]] = {}
    if settings.channel:
        found.setdefault(settings.channel, []).append("the fleet's")
    for name, channel in projects.items():
        if channel:
            found.setdefault(channel, []).append(f"project {name}")
    for rule in settings.rules:
        found.setdefault(rule.channel, []).append(f"a rule for {', '.join(rule.events) or 'all'}")
    return {channel: " and ".join(purposes) for channel, purposes in found.items()}

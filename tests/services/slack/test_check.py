"""What ``systems slack check`` finds, and that the manifest asks for what the code needs, and for no more."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from services.fleet.duty import Person
from services.fleet.slack import Rule, Slack
from services.slack import app as slack_app
from services.slack import check
from services.slack.tokens import Tokens
from tests.slack import methods
from tests.slack.fake import FakeSlack

ROOT = Path(__file__).parents[3]
MANIFEST = yaml.safe_load((ROOT / "infra/slack/manifest.yaml").read_text())


async def checked(slack: FakeSlack, channels: dict[str, str], people: dict[str, Person]) -> dict[str, check.Line]:
    """Every line by what it is about."""
    tokens = Tokens(bot_token=slack.bot_token, app_token="xapp-fake")
    settings = Slack(api_url=slack.api)
    lines = check.check(slack_app.client(tokens, settings), tokens, settings, channels, people)
    return {line.what: line async for line in lines}


async def test_all_is_well(slack: FakeSlack) -> None:
    """A workspace that has what is needed has nothing to click."""
    slack.workspace.channel("fleet")
    ann = slack.workspace.user("ann").id
    lines = await checked(slack, {"#fleet": "the fleet's"}, {"ann": Person(slack=ann)})
    assert list(lines) == ["bot token", "scopes", "app token", "channel #fleet", "person ann"]
    assert all(line.ok for line in lines.values())


async def test_each_fault_says_what_to_click(slack: FakeSlack) -> None:
    """A missing scope, a wrong app token, an unknown and an archived channel, and somebody who has left are each named."""
    slack.scopes.discard("files:write")
    slack.app_token = "xapp-another"
    slack.workspace.channel("old", archived=True)
    slack.workspace.channel("away", members=set())
    gone = slack.workspace.user("bob", deleted=True).id
    channels = {"#old": "project a", "#away": "project b", "#none": "project c"}
    lines = await checked(slack, channels, {"bob": Person(slack=gone)})
    assert "files:write (long answers and charts)" in lines["scopes"].found
    assert "Reinstall to Workspace" in lines["scopes"].remedy
    assert "App-Level Tokens" in lines["app token"].remedy
    assert "unarchive" in lines["channel #old"].remedy
    assert "/invite @systems" in lines["channel #away"].remedy
    assert "fleet.toml" in lines["channel #none"].remedy
    assert "has left" in lines["person bob"].found
    assert not any(line.ok for what, line in lines.items() if what != "bot token")


def test_channels_say_what_they_are_for() -> None:
    """A channel of two projects and a rule is looked at once, and says all that it is for."""
    settings = Slack(channel="#a", rules=(Rule(channel="#a", events=("finding.*",)),))
    found = check.channels_of(settings, {"shop": "#a", "blog": "", "ledger": "#b"})
    assert found == {"#a": "the fleet's and project shop and a rule for finding.*", "#b": "project ledger"}


def test_manifest_asks_for_what_is_called() -> None:
    """Every method that the code calls has a scope in the manifest, and every scope there is needed by one, or by the desk."""
    asked = set(MANIFEST["oauth_config"]["scopes"]["bot"])
    assert asked == check.SCOPES.keys()
    said = "\n".join(file.read_text() for file in (ROOT / "services/slack").rglob("*.py"))
    called = {name for name in methods.SCOPES if re.search(rf"\b{name.replace('.', '_')}\b", said)}
    assert {"chat.postMessage", "chat.update", "conversations.history", "conversations.open"} <= called
    assert [name for name in called if not asked.intersection(methods.SCOPES[name])] == []
    used = {scope for name in called for scope in methods.SCOPES[name]}
    assert asked - used <= {"commands", "files:write", "usergroups:read"}


def test_manifest_can_be_pasted() -> None:
    """The manifest has what the app listens to, and stays within Slack's limits of names."""
    assert MANIFEST["settings"]["socket_mode_enabled"] is True
    assert MANIFEST["features"]["slash_commands"][0]["command"] == "/systems"
    assert MANIFEST["settings"]["event_subscriptions"]["bot_events"] == ["app_home_opened"]
    assert len(MANIFEST["display_information"]["name"]) <= 35
    assert len(MANIFEST["display_information"]["description"]) <= 140

"""Who somebody in Slack is, by what Slack says."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from services.fleet.slack import Permissions, Slack
from services.slack import app as slack_app
from services.slack.desk.directory import Directory
from services.slack.desk.permission import Permission, may
from services.slack.tokens import Tokens
from tests.slack.fake import FakeSlack, fake_slack


@pytest.fixture
async def slack() -> AsyncIterator[FakeSlack]:
    """A workspace with a group of one."""
    async with fake_slack() as running:
        running.workspace.groups["S0ONCALL"] = [running.workspace.user("ann").id]
        yield running


PERMISSIONS = Permissions(view=("*",), operate=("S0ONCALL",))


def of(slack: FakeSlack) -> Directory:
    """Who asks."""
    tokens = Tokens(bot_token=slack.bot_token, app_token=slack.app_token, signing_secret=slack.secret)
    return Directory(slack_app.client(tokens, Slack(api_url=slack.api)), lambda: PERMISSIONS)


async def test_a_group_grants_and_slack_is_asked_once(slack: FakeSlack) -> None:
    """Ann is in the group and Bob is not; what Slack has said is not asked again at once."""
    directory = of(slack)
    (ann,), bob = slack.workspace.groups["S0ONCALL"], slack.workspace.user("bob").id
    for _ in range(3):
        assert may(PERMISSIONS, await directory.who(ann), Permission.OPERATE)
        assert not may(PERMISSIONS, await directory.who(bob), Permission.OPERATE)
    assert (await directory.who(ann)).actor == f"slack:{ann} (ann)"
    assert (len(slack.of("users.info")), len(slack.of("usergroups.users.list"))) == (2, 1)


async def test_who_has_left_may_nothing(slack: FakeSlack) -> None:
    """A deactivated account is refused though its group is permitted."""
    (ann,) = slack.workspace.groups["S0ONCALL"]
    slack.workspace.users[ann].deleted = True
    who = await of(slack).who(ann)
    assert not any(may(PERMISSIONS, who, needs) for needs in Permission)


async def test_what_slack_does_not_tell_grants_nothing(slack: FakeSlack) -> None:
    """Without the scopes neither the group nor the star counts, and the reason is there to be told."""
    (ann,) = slack.workspace.groups["S0ONCALL"]
    slack.scopes -= {"users:read", "usergroups:read"}
    directory = of(slack)
    who = await directory.who(ann, "ann")
    assert who.actor == f"slack:{ann} (ann)"
    assert not any(may(PERMISSIONS, who, needs) for needs in Permission)
    assert (
        directory.problem
        == "Slack does not say who is in the group S0ONCALL: missing_scope (add the scope usergroups:read)"
    )

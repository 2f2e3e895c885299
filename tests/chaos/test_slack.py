"""A real fleet, a fake Slack, and a mirror that is killed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bus.store import CONTROL
from tests.chaos.fleet import Fleet
from tests.chaos.story import LIMIT_S
from tests.slack.fake import FakeSlack, fake_slack

pytestmark = [pytest.mark.slow, pytest.mark.chaos]

TOML = """
[slack]
enabled = true
channel = "#fleet"
api_url = "{api}"
per_second = 20
patience = 2

[[slack.rules]]
channel = "#work"
events = ["invocation.requested", "invocation.dead_lettered"]
thread = "invocation"

[projector]
enabled = false

[projects.shop]
slack_channel = "#shop"

[projects.shop.roles.coder]
handler = {{ kind = "function", target = "handlers:work" }}
max_attempts = 1
backoff = {{ base = 0.05, jitter = 0 }}
"""

HANDLERS = """
def work(n):
    if n % 3 == 0:
        raise ValueError(f"no <!channel> {n}")
    return n
"""


class SlackFleet(Fleet):
    """A fleet whose daemons find Slack's tokens."""

    def __init__(self, folder: Path, slack: FakeSlack) -> None:
        super().__init__(folder)
        self._tokens = {"SYSTEMS_SLACK_BOT_TOKEN": slack.bot_token, "SYSTEMS_SLACK_APP_TOKEN": slack.app_token}

    @property
    def environ(self) -> dict[str, str]:
        """With the tokens."""
        return super().environ | self._tokens


@pytest.fixture
async def slack() -> AsyncIterator[FakeSlack]:
    """A workspace with the channels of the fleet."""
    async with fake_slack() as running:
        for name in ("fleet", "work", "shop"):
            running.workspace.channel(name)
        yield running


@pytest.fixture
async def fleet(tmp_path: Path, slack: FakeSlack) -> AsyncIterator[SlackFleet]:
    """A fleet that does not run yet."""
    made = SlackFleet(tmp_path, slack)
    made.write(TOML.format(api=slack.api), HANDLERS)
    yield made
    await made.down()


def marks(slack: FakeSlack, name: str) -> list[dict[str, Any]]:
    """What the messages of a channel are marked with."""
    channel = next(c for c in slack.workspace.channels.values() if c.name == name)
    return [message["metadata"]["event_payload"] | {"ts": message["ts"]} for message in channel.messages]


async def test_mirror_is_killed(fleet: SlackFleet, slack: FakeSlack) -> None:
    """Work, deaths and a freeze are shown once each, in their channels and threads, although the mirror is killed in between."""
    await fleet.up()
    await slack.until(lambda: slack.sockets.connected)
    async with fleet.bus() as desk:
        ids = await desk.ask_many("shop/coder", 6)
        await desk.all_ended(ids)
        before = await fleet.kill("slack_mirror")
        ids += await desk.ask_many("shop/coder", 6)
        await desk.all_ended(ids)
        await fleet.pid("slack_mirror", other_than=before)
        frozen = await fleet.systems("freeze", "--reason", "for the test")
        assert frozen.status == 0, frozen.err

        def all_shown() -> bool:
            work = Counter(mark["kind"] for mark in marks(slack, "work"))
            dead = sum(mark["count"] for mark in marks(slack, "shop") if mark["kind"] == "invocation.dead_lettered")
            told = any(mark["kind"] == "freeze.frozen" for mark in marks(slack, "fleet"))
            return work["invocation.requested"] == 12 and work["invocation.dead_lettered"] == 4 and dead == 4 and told

        await slack.until(all_shown)
        status = await fleet.systems("slack", "status", "--output", "json")
        assert status.status == 0, status.err
        assert status.json()["line"]["state"] == "up"
        # What sweeps find goes on being posted, and each post is recorded after it: in a pause the record has all of them.
        async with asyncio.timeout(LIMIT_S):
            while True:
                posted = sum(len(marks(slack, name)) for name in ("fleet", "work", "shop"))
                if posted == len([r async for r in desk.bus.store.read(CONTROL, "ctl.slack.*.posted")]):
                    break
                await asyncio.sleep(0.1)
    for name in ("fleet", "work", "shop"):
        seen = Counter((mark["stream"], mark["seqs"], mark["place"]) for mark in marks(slack, name))
        assert set(seen.values()) <= {1}


@pytest.mark.soak
async def test_console_mode(tmp_path: Path) -> None:
    """Without tokens the daemon runs, and what it would send stands in its log."""
    fleet = Fleet(tmp_path)
    fleet.write(TOML.format(api="http://127.0.0.1:9/api/"), HANDLERS)
    try:
        await fleet.up()
        async with fleet.bus() as desk:
            await desk.all_ended(await desk.ask_many("shop/coder", 1))
            log = fleet.home.logs / "slack_mirror.log"
            while "shop/coder: dead lettered" not in log.read_text():
                await asyncio.sleep(0.05)
            status = await fleet.systems("slack", "status", "--output", "json")
            assert status.json()["line"]["state"] == "console"
            assert [r async for r in desk.bus.store.read(CONTROL, "ctl.slack.>")] == []
            previewed = await fleet.systems("slack", "preview", "--last", "5", "--channel", "#work")
            assert "shop/coder: dead lettered" in previewed.out
            checked = await fleet.systems("slack", "check")
            assert (checked.status, "SYSTEMS_SLACK_BOT_TOKEN" in checked.out) == (1, True)
    finally:
        await fleet.down()

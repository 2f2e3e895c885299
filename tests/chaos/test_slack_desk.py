"""A fleet of processes, with the logins that its server gives out, looked after from Slack alone."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from bus.events import finding
from services.slack import tokens
from tests.chaos.fleet import Fleet
from tests.services.slack.desk.office import button
from tests.slack.fake import FakeSlack, fake_slack, spoken
from tests.slack.people import Person

_FLEET = """
[slack]
enabled = true
api_url = "{api}"

[slack.permissions]
operate = ["{user}"]
freeze = ["{user}"]
{hard}

[projects.shop]
caps = [{{ cap = 1_000, window = "day" }}]

[projects.shop.roles.coder]
handler = {{ kind = "function", target = "handlers:code" }}
max_attempts = 1
max_tokens = 10
"""
_HANDLERS = """
from pathlib import Path

async def code(input):
    if not Path(input).exists():
        raise KeyError("no such file")
"""


class Guarded:
    """A fleet, and somebody who has nothing but Slack."""

    def __init__(self, fleet: Fleet, slack: FakeSlack) -> None:
        self.fleet, self.slack = fleet, slack
        self.channel = slack.workspace.channel("fleet").id
        self.ann = Person(slack, slack.workspace.user("ann").id)

    async def up(self, *, hard: bool) -> None:
        """Start, and wait for the socket."""
        user = self.ann.user
        names = f'hard = ["{user}"]' if hard else ""
        self.fleet.write(_FLEET.format(api=self.slack.api, user=user, hard=names), _HANDLERS)
        self.fleet.home.prepare()
        file = tokens.file(self.fleet.home)
        file.touch(mode=0o600)
        file.write_bytes(msgspec.json.encode({"bot_token": self.slack.bot_token, "app_token": self.slack.app_token}))
        await self.fleet.up()
        await self.slack.until(lambda: self.slack.sockets.connected)

    async def says(self, text: str) -> str:
        """Type a command: what comes back."""
        await self.ann.slash(text, self.channel)
        response = self.slack.responses[self.ann.last["response_url"]]
        body = await self.slack.until(
            lambda: next((one for one in response.bodies if "the answer follows" not in one["text"]), None), 60
        )
        return spoken(body)


@pytest.mark.soak
@pytest.mark.slow
async def test_everything_that_people_do_is_let_through_by_the_servers_own_permissions(tmp_path: Path) -> None:
    """Restart, reload, caps, pauses, dead letters, both freezes: each act of slack_desk and slack_hard is one that they may."""
    async with fake_slack() as slack:
        made = Guarded(Fleet(tmp_path), slack)
        fleet, file = made.fleet, tmp_path / "there"
        try:
            await made.up(hard=True)
            async with fleet.bus() as seen:
                asked = await seen.ask("shop/coder", str(file))
                await seen.story.event(asked.id, "dead_lettered")
                await seen.dead.until(lambda: seen.dead.records or None)
                assert "KeyError: 'no such file'" in await made.says("dlq")
                file.touch()
                assert "1 redriven" in await made.says(f"redrive {asked.id} the file is there")
                await seen.story.event(asked.id, "completed")
            assert "shop: 2,000 tokens each day (was 1,000)" in await made.says("quota raise shop 2k more work")
            assert "shop/coder is refused (paused): it loops" in await made.says("pause shop/coder it loops")
            assert "shop/coder goes on" in await made.says("resume shop/coder")
            assert "agent_runner-1 is alive after" in await made.says("restart agent_runner-1 it is slow")
            assert "slack_mirror: runs it already" in await made.says("deploy installed --plan to see")
            assert "got: the file ./x.whl" in await made.says("deploy ./x.whl new")
            assert "unknown release '9.9'" in await made.says("deploy 9.9 new")
            assert "installed is rolled out" in await made.says("deploy installed to be sure --watch 1s")
            assert "outside of slack_mirror" in await made.says("restart slack_mirror it is slow")
            await _approved(made)
            fleet.file.write_text(fleet.file.read_text().replace("max_attempts = 1", "max_attempts = 2"))
            assert "1 setting changed" in await made.says("reload more patience")
            assert "frozen (soft)" in await made.says("freeze it burns")
            assert "clear" in await made.says("thaw it is out")
            assert "frozen (hard)" in await made.says("freeze hard it burns --confirm hard")
            assert "this login cannot clear" in await made.says("thaw it is out")
            assert "clear" in await made.says("thaw hard it is out --confirm thaw")
            assert "the picture is in your direct messages" in await made.says("chart spend")
            (file_,) = slack.workspace.files.values()
            assert file_["content"].startswith(b"\x89PNG")
            assert "the projector" not in await made.says("sql SELECT count(*) AS n FROM events")
            ended = await fleet.systems("ops", "--output", "json")
            done = ended.json()["operations"]
            assert [one["action"] for one in done].count("deploy") == 1
            assert {one["who"] for one in done} == {f"slack:{made.ann.user} (ann)"}
            assert [one["action"] for one in done].count("restart") == 3
        finally:
            await fleet.down()


async def _approved(made: Guarded) -> None:
    """A triage's proposal is approved in the home tab, and carried out by the launcher."""
    raised = await made.fleet.systems("raise", "concern", "--title", "a runner is slow", "--output", "json")
    print_ = raised.json()["fingerprint"]
    async with made.fleet.bus() as seen:
        opened = f"ctl.finding.{print_}.opened"
        await seen.control.until(lambda: [record for record in seen.control.records if record.subject == opened])
        proposal = finding.Proposal(action="restart", target="agent_runner-1", why="it is slow")
        event = finding.Proposed(invocation="i1", proposals=(proposal,))
        await seen.bus.store.append(seen.bus.author.control(print_, event))
    await made.ann.open_home()
    homes = made.slack.workspace.homes
    home = await made.slack.until(lambda: homes.get(made.ann.user))
    await made.ann.click_home(button(home, "proposal_approve"))
    direct = made.slack.workspace.direct(made.ann.user).id
    await made.slack.said(direct, "restart of agent_runner-1 is done after", 60)

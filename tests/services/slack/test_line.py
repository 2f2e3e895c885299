"""The app's door, held against a fake Slack over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from services.fleet.slack import Mode, Slack
from services.slack import app as slack_app
from services.slack import line as lines
from services.slack.line import Http
from services.slack.standing import Line, Standing, State
from services.slack.tokens import Tokens
from tests.slack.fake import FakeSlack, Script, fake_slack
from tests.slack.people import Person, deliver


@pytest.fixture
async def slack() -> AsyncIterator[FakeSlack]:
    """A workspace."""
    async with fake_slack() as running:
        yield running


class Door:
    """An app with one command, reached by one line."""

    def __init__(self, slack: FakeSlack, **settings: object) -> None:
        self.settings = Slack(api_url=slack.api, port=0, **settings)  # type: ignore[arg-type]
        self.tokens = Tokens(bot_token=slack.bot_token, app_token=slack.app_token, signing_secret=slack.secret)
        self.client = slack_app.client(self.tokens, self.settings)
        self.app = slack_app.build(self.client, self.tokens)
        self.acted: list[str] = []
        self.states: list[Standing] = []
        self.app.command("/systems")(self._command)
        self.app.event("app_home_opened")(self._opened)

    async def _command(self, ack: Callable[..., object], body: dict[str, str]) -> None:
        self.acted.append(body["text"])
        await ack(f"did {body['text']}")  # type: ignore[misc]

    async def _opened(self, event: dict[str, str]) -> None:
        self.acted.append(event["user"])

    def line(self) -> Line:
        """The line of its mode."""
        return lines.of(self.app, self.tokens, self.client, self.settings, self.states.append)

    @asynccontextmanager
    async def reached(self) -> AsyncIterator[Line]:
        """With its line running."""
        line = self.line()
        task = asyncio.create_task(line.run())
        try:
            yield line
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def until(self, state: State, why: str = "") -> Standing:
        """Wait for a standing, with these words in it."""
        async with asyncio.timeout(30):
            while not self.states or self.states[-1].state is not state or why not in self.states[-1].why:
                await asyncio.sleep(0.01)
        return self.states[-1]


async def test_same_handlers(slack: FakeSlack) -> None:
    """A command acts and answers alike over the socket and over signed HTTP."""
    channel, user = slack.workspace.channel("fleet").id, slack.workspace.user("ann").id
    door = Door(slack)
    async with door.reached():
        await door.until(State.UP)
        ack = await Person(slack, user).slash("status", channel)
        assert ack.payload == {"text": "did status"}
    door = Door(slack, mode=Mode.HTTP)
    async with door.reached() as line:
        await door.until(State.UP)
        assert isinstance(line, Http)
        person = Person(slack, user, url=f"http://127.0.0.1:{line.port}/slack/events")
        assert (await person.slash("status", channel)).payload == "did status"
    assert door.acted == ["status"]


async def test_signature(slack: FakeSlack) -> None:
    """A wrong signature and one that is over five minutes old are refused, and nothing acts."""
    door = Door(slack, mode=Mode.HTTP)
    async with door.reached() as line:
        await door.until(State.UP)
        assert isinstance(line, Http)
        url = f"http://127.0.0.1:{line.port}/slack/events"
        form = {"command": "/systems", "text": "freeze", "team_id": "T0FAKE"}
        assert (await deliver(url, "slash_commands", form, "another secret"))[0] == 401
        assert (await deliver(url, "slash_commands", form, slack.secret, age_s=301))[0] == 401
    assert door.acted == []


async def test_repeated_delivery(slack: FakeSlack) -> None:
    """An event that Slack delivers again is acknowledged again and acts once."""
    user = slack.workspace.user("ann").id
    door = Door(slack)
    async with door.reached():
        await door.until(State.UP)
        person = Person(slack, user)
        await person.open_home()
        await slack.sockets.ask("events_api", person.last)
    assert door.acted == [user]


@pytest.mark.slow
async def test_socket_comes_back(slack: FakeSlack) -> None:
    """A socket that is cut, refreshed by Slack, or silent without any error is replaced by another one."""
    door = Door(slack, patience=1.5)
    async with door.reached():
        await door.until(State.UP)
        slack.sockets.drop()
        await slack.until(lambda: slack.sockets.made == 2)
        await door.until(State.UP)
        await slack.sockets.disconnect()
        await slack.until(lambda: slack.sockets.made >= 3 and slack.sockets.connected)
        await door.until(State.UP)
        slack.sockets.silent = True
        await door.until(State.LOST)
        await door.until(State.LOST, "hello")
        slack.sockets.silent = False
        await door.until(State.UP)


async def test_wrong_app_token(slack: FakeSlack) -> None:
    """A token that Slack refuses is a state that says what to click, and one that is repaired connects."""
    door = Door(slack)
    slack.app_token = "xapp-another"
    async with door.reached():
        refused = await door.until(State.REFUSED)
        assert "invalid_auth" in refused.why
        assert "App-Level Tokens" in refused.why
        slack.app_token = door.tokens.app_token
        await door.until(State.UP)


async def test_limits_are_checked(slack: FakeSlack) -> None:
    """A message that Slack would not take is refused, and is remembered as what the app must not do."""
    channel = slack.workspace.channel("fleet").id
    client = slack_app.client(Tokens(bot_token=slack.bot_token), Slack(api_url=slack.api))
    blocks = [{"type": "header", "text": {"type": "plain_text", "text": "x" * 151}}]
    with pytest.raises(Exception, match="invalid_blocks"):
        await client.chat_postMessage(channel=channel, text="x", blocks=blocks)
    assert slack.unmet == ["chat.postMessage: blocks[0] header: text: text of 151 characters, not 1 to 150"]
    slack.unmet.clear()
    slack.scripts.append(Script("ratelimited", retry_after=7))
    with pytest.raises(Exception, match="ratelimited") as caught:
        await client.chat_postMessage(channel=channel, text="x")
    assert caught.value.response.headers["Retry-After"] == "7"  # type: ignore[attr-defined]

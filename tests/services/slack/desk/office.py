"""A fleet with a Slack: a rig, a fake workspace, the app between them, and two people."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from bus.context import Context
from bus.events import desk as ev
from bus.store import Recorded
from services.fleet.entries import SLACK_KEY
from services.fleet.slack import Mode, Permissions, Slack
from services.slack import app as slack_app
from services.slack import desk
from services.slack.line import Http, Socket
from services.slack.standing import Line, Standing, State
from services.slack.tokens import Tokens
from tests.services.rig import Rig
from tests.slack.fake import FakeSlack, fake_slack, spoken
from tests.slack.people import Person


class Office:
    """What a test has."""

    def __init__(self, rig: Rig, slack: FakeSlack, mode: Mode) -> None:
        self.rig = rig
        self.slack = slack
        self.mode = mode
        #: What the app's handlers work with.
        self.parts: slack_app.Parts
        #: Users of the server that people's acts have logged in as.
        self.logins: list[str] = []
        self.channel = slack.workspace.channel("fleet").id
        self.ann, self.bob = (self._person(name) for name in ("ann", "bob"))

    def _person(self, name: str) -> Person:
        return Person(self.slack, self.slack.workspace.user(name).id)

    def login(self, user: str) -> Context:
        """The rig's server has one login for all; which one was meant is kept."""
        self.logins.append(user)
        return Context(url=self.rig.url)

    async def permit(self, **permissions: tuple[str, ...]) -> None:
        """Put permissions into effect."""
        settings = Slack(api_url=self.slack.api, mode=self.mode, port=0, permissions=Permissions(**permissions))
        await self.rig.bucket("registry").put(SLACK_KEY, msgspec.json.encode(settings))
        await self.rig.registry.load()

    async def says(self, person: Person, text: str) -> dict[str, Any]:
        """Type a command: the last answer that comes to its address."""
        await person.slash(text, self.channel)
        return await self.answered(person)

    async def answered(self, person: Person) -> dict[str, Any]:
        """The answer to what a person did last."""
        return await person.answered()

    async def view(self, person: Person) -> dict[str, Any]:
        """The modal that a person's last press has opened."""
        return await person.view()

    async def shown(self, view: dict[str, Any], words: str) -> str:
        """What a modal says once these words are in it and nothing is to be filled in any more."""
        return await self.ann.shown(view, words)

    async def asked(self, name: str, count: int = 1) -> list[Recorded]:
        """The desk's events of one name, waited for."""
        kind = ev.EVENTS[name]

        def found() -> list[Recorded] | None:
            records = [one for one in self.rig.control.records if isinstance(one.data, kind)]
            return records if len(records) >= count else None

        return await self.rig.control.until(found)


def button(body: dict[str, Any], action: str) -> dict[str, Any]:
    """The button of an action in a message or view."""
    for block in body["blocks"]:
        for element in block.get("elements", [block.get("accessory") or {}]):
            if element.get("action_id", "").partition(":")[0] == action:
                return element  # type: ignore[no-any-return]  # a block is a dict
    raise AssertionError(f"no button {action} in: {spoken(body)}")


@asynccontextmanager
async def office(rig: Rig, mode: Mode = Mode.SOCKET) -> AsyncIterator[Office]:
    """The app on a rig's bus, reached by one line, until left."""
    async with fake_slack() as slack:
        made = Office(rig, slack, mode)
        await made.permit()
        running = await rig._daemon("slack_mirror", "slack_mirror")
        await rig.registry.open()
        settings = rig.registry.settings.slack
        tokens = Tokens(bot_token=slack.bot_token, app_token=slack.app_token, signing_secret=slack.secret)
        web = slack_app.client(tokens, settings)
        bolt = slack_app.build(web, tokens)
        made.parts = slack_app.Parts(running, rig.registry, web)
        desk.register(bolt, made.parts, login=made.login)
        up = asyncio.Event()

        def told(standing: Standing) -> None:
            if standing.state is State.UP:
                up.set()

        line: Line = (
            Socket(bolt, tokens.app_token, web, settings, told) if mode is Mode.SOCKET else Http(bolt, settings, told)
        )
        task = asyncio.create_task(line.run())
        try:
            await asyncio.wait_for(up.wait(), 30)
            if isinstance(line, Http):
                url = f"http://127.0.0.1:{line.port}{settings.path}"
                made.ann.url = made.bob.url = url
            yield made
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await rig.registry.close()

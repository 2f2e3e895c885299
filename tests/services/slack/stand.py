"""A mirror between a real bus and a fake Slack, in the test's own process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec

from bus.events import finding
from bus.events.finding import Kind, Severity
from bus.ids import new_id
from bus.store import CONTROL, Recorded
from bus.subjects import Ref
from services.fleet.entries import SLACK_KEY, project_key
from services.fleet.registry import Registry
from services.fleet.slack import Slack
from services.fleet.spec import Project
from services.slack import app as slack_app
from services.slack.mirror import Mirror
from services.slack.screen import SlackScreen
from services.slack.tokens import Tokens
from tests.services.rig import Rig
from tests.slack.fake import FakeSlack
from tests.slack.workspace import Channel


class Stand:
    """One fleet, one workspace; mirrors come and go."""

    def __init__(self, rig: Rig, slack: FakeSlack) -> None:
        self.rig, self.slack = rig, slack
        self.bus = rig.bus
        self.fleet = slack.workspace.channel("fleet")

    async def settings(self, channels: dict[str, Channel], **settings: Any) -> None:
        """Set `[slack]`, and the channel of each project."""
        chosen: dict[str, Any] = {"channel": self.fleet.id, "api_url": self.slack.api, "per_second": 1000.0} | settings
        await self.bus.bucket("registry").put(SLACK_KEY, msgspec.json.encode(Slack(**chosen)))
        for name, channel in channels.items():
            await self.bus.bucket("registry").put(
                project_key(name), msgspec.json.encode(Project(slack_channel=channel.id))
            )

    @asynccontextmanager
    async def mirror(self) -> AsyncIterator[Mirror]:
        """A mirror that runs until left, and then stops wherever it is."""
        registry = Registry(self.bus.bucket("registry"))
        await registry.open()
        tokens = Tokens(bot_token=self.slack.bot_token, app_token=self.slack.app_token)
        client = slack_app.client(tokens, registry.settings.slack)
        mirror = Mirror(self.bus, registry, SlackScreen(client))
        task = asyncio.create_task(mirror.run())
        try:
            yield mirror
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await registry.close()
        if not task.cancelled() and task.exception() is not None:
            raise task.exception()  # type: ignore[misc]

    async def opened(self, name: str, title: str, severity: Severity = Severity.CONCERN) -> int:
        """Something is wrong."""
        event = finding.Opened(kind=Kind.BACKLOG, severity=severity, title=title, subject=name, since=datetime.now(UTC))
        return await self.bus.store.append(self.bus.author.control(new_id().replace("-", "")[-12:], event))

    async def control(self, id_: str, event: Any) -> int:
        """Any event of CONTROL."""
        return await self.bus.store.append(self.bus.author.control(id_, event))

    async def invocation(self, role: str, event: Any, id_: str = "") -> int:
        """Any event of an invocation."""
        project, _, name = role.partition("/")
        return await self.bus.store.append(self.bus.author.invocation(Ref(project, name, id_ or new_id()), event))

    async def records(self, event: str = "*") -> list[Recorded]:
        """What is recorded of Slack."""
        return [record async for record in self.bus.store.read(CONTROL, f"ctl.slack.*.{event}")]

    async def recorded(self, event: str, count: int = 1) -> list[Recorded]:
        """Wait until so many are recorded."""
        story = self.rig.control

        def found() -> list[Recorded]:
            of = [r for r in story.records if r.subject.startswith("ctl.slack.") and r.subject.endswith(f".{event}")]
            return of if len(of) >= count else []

        return await story.until(found)

    def titles(self, channel: Channel) -> list[str]:
        """The headers of a channel's messages, in their order."""
        return [message["blocks"][0]["text"]["text"] for message in channel.messages]

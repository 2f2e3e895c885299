"""The slack_mirror: shows what happens in Slack's channels, and lets people act from there; without tokens, in its log."""

from __future__ import annotations

import asyncio
import os

from services import credentials
from services.app.parts import answer_freezes, calm_collector, together, until_stopped, watch_ring
from services.daemon import Daemon, daemon
from services.fleet.registry import Registry
from services.fleet.slack import at_start
from services.home import Home
from services.receipts import Receipts
from services.slack import alone, status
from services.slack import tokens as slack_tokens
from services.slack.alarm import Alarm
from services.slack.mirror import Mirror
from services.slack.screen import Console, Screen, SlackScreen
from services.slack.standing import Line, NoLine
from services.warden import journal


async def start_mirror(running: Daemon) -> asyncio.Task[None]:
    """Mirrors and answers; the task ends only by failing.

    Raises:
        BadTokens: there are tokens, and they cannot be used.
    """
    bus = running.bus
    await journal.wait_until_applied(bus)
    registry = Registry(bus.bucket("registry"))
    await registry.open()
    running.teardown.push("registry", registry.close)
    settings = registry.settings.slack
    _report_config(running, registry)
    tokens = slack_tokens.load(os.environ, Home(running.home), settings.mode)
    screen: Screen
    line: Line
    if tokens is None:
        screen, line = Console(), NoLine()
    else:
        # The library costs memory and time to start, and console mode needs none of it.
        from services.slack import app, desk  # noqa: PLC0415
        from services.slack import line as lines  # noqa: PLC0415

        web = app.client(tokens, settings)
        bolt = app.build(web, tokens)
        desk.register(bolt, app.Parts(running, registry, web))
        screen = SlackScreen(web)
        line = lines.of(bolt, tokens, web, settings, lambda _: running.hurry())
    mirror = Mirror(bus, registry, screen)
    service = await status.serve(bus, mirror, line)
    running.teardown.push("status", service.close)

    async def work() -> None:
        await alone.turn(running)
        running.evidence = mirror.evidence
        await together(mirror.run(), line.run(), Alarm(bus).watch(line, settings.patience))

    # The first beat comes before the first message: of two that start, both know who goes first.
    await running.announce()
    task = running.accompany("mirror", work())
    answer_freezes(running, Receipts(running))
    watch_ring(running)
    return task


def _report_config(running: Daemon, registry: Registry) -> None:
    """Say which revision is in effect: how Slack is reached is read once."""
    started, runs_with = at_start(registry.settings.slack), registry.seen

    def revision() -> int:
        nonlocal runs_with
        if at_start(registry.settings.slack) == started:
            runs_with = registry.seen
        return runs_with

    running.config_revision = revision
    registry.listeners.append(running.hurry)


async def run_mirror(home: Home, instance: str) -> None:
    """The slack_mirror daemon."""
    calm_collector()
    async with daemon("slack_mirror", instance, home.path, credentials.load(home, "slack_mirror")) as running:
        task = await start_mirror(running)
        await until_stopped(running, task)

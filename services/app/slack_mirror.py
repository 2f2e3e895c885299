"""The slack_mirror: shows what happens in Slack's channels, and lets people act from there; without tokens, in its log."""

from __future__ import annotations

import asyncio
import os

import structlog

from services import credentials
from services.app.parts import answer_freezes, calm_collector, report_config, together, until_stopped, watch_ring
from services.daemon import Daemon, Evidence, daemon
from services.fleet.registry import Registry
from services.fleet.slack import Mode
from services.home import Home
from services.receipts import Receipts
from services.slack import tokens as slack_tokens
from services.warden import journal

log = structlog.get_logger()


async def start_mirror(running: Daemon) -> asyncio.Task[None]:
    """Mirrors and answers; the task ends only by failing."""
    bus = running.bus
    await journal.wait_until_applied(bus)
    registry = Registry(bus.bucket("registry"))
    await registry.open()
    running.teardown.push("registry", registry.close)
    report_config(running, registry)
    settings = registry.settings.slack
    tokens = slack_tokens.load(os.environ, Home(running.home), settings.mode)
    work = []
    if tokens is None:
        log.info(
            "slack_console",
            why="there are no tokens: what would be sent is written here; docs/slack.md says how to install",
        )
    else:
        # The library costs 30 MB, and console mode needs none of it.
        from services.slack import app, desk, line  # noqa: PLC0415

        web = app.client(tokens, settings)
        bolt = app.build(web, tokens)
        desk.register(bolt, app.Parts(running, registry, web))
        told = lambda standing: running.hurry()  # noqa: E731, ARG005
        reach: line.Line = (
            line.Socket(bolt, tokens.app_token, web, settings, told)
            if settings.mode is Mode.SOCKET
            else line.Http(bolt, settings, told)
        )
        work.append(reach.run())

    running.evidence = Evidence
    task = running.accompany("mirror", together(*work))
    await running.announce()
    answer_freezes(running, Receipts(running))
    watch_ring(running)
    return task


async def run_mirror(home: Home, instance: str) -> None:
    """The slack_mirror daemon."""
    calm_collector()
    async with daemon("slack_mirror", instance, home.path, credentials.load(home, "slack_mirror")) as running:
        task = await start_mirror(running)
        await until_stopped(running, task)

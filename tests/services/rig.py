"""A fleet inside the test's own process: a real server, and the warden and runners wired as the composition root wires them.

A role's handler is any function of the test. What needs a process to be killed is in tests/chaos.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from bus import plan
from bus.author import Author
from bus.bucket import Bucket
from bus.connection import Connection
from bus.context import Context
from bus.ids import new_id
from bus.server import EmbeddedServer
from bus.store import CONTROL, DEAD_LETTERS
from services.app.agent_runner import start_runner
from services.app.warden import start_warden
from services.daemon import Bus, Daemon, open_bus
from services.fleet.entries import publish, role_key
from services.fleet.registry import Registry
from services.fleet.spec import FunctionHandler, Role
from services.requests.requests import Accepted, Ask, Requests
from services.runner.runner import Runner
from services.warden import journal
from tests.chaos.story import LIMIT_S, Story
from tests.services import stage


class Rig:
    """One fleet. Everything that it starts it also ends."""

    def __init__(self, url: str, home: Path, bus: Bus, registry: Registry, stack: AsyncExitStack) -> None:
        self.url = url
        self.home = home
        self.bus = bus
        self.registry = registry
        self.requests = Requests(registry, bus.store, bus.author, bus.artifacts, bus.schedules)
        self.story = Story(bus.connection)
        self.control = Story(bus.connection, CONTROL)
        self.dead = Story(bus.connection, DEAD_LETTERS)
        self._stack = stack

    @property
    def connection(self) -> Connection:
        """The test's own connection."""
        return self.bus.connection

    def bucket(self, name: str) -> Bucket:
        """A bucket."""
        return self.bus.bucket(name)

    async def role(self, path: str, function: Callable[..., Any], **settings: Any) -> None:
        """Register a role that runs a function of the test."""
        name = f"act_{new_id().replace('-', '')}"
        setattr(stage, name, function)
        self._stack.callback(delattr, stage, name)
        await self.declare(path, Role(handler=FunctionHandler(target=f"tests.services.stage:{name}"), **settings))

    async def declare(self, path: str, role: Role) -> None:
        """Register a role, and make its consumer."""
        await self.put(path, role)
        declared = journal.declared(self.registry)
        await plan.apply(self.connection, declared, await plan.plan(self.connection, declared))

    async def put(self, path: str, role: Role) -> None:
        """Put a role's registry value, and know it."""
        project, _, name = path.partition("/")
        await self.bucket("registry").put(role_key(project, name), msgspec.json.encode(role))
        await self.registry.load()

    async def ask(self, path: str, input: Any = None, **more: Any) -> Accepted:
        """Request a role."""
        return await self.requests.submit(Ask(role=path, input=msgspec.Raw(msgspec.json.encode(input)), **more))

    def on_end(self, end: Callable[[], Awaitable[object]]) -> None:
        """Have something done when the rig ends, last in first out."""
        self._stack.push_async_callback(end)

    async def _daemon(self, kind: str, instance: str) -> Daemon:
        boot_id = new_id()
        bus = await open_bus(Context(url=self.url), instance, Author(f"/{kind}/{boot_id}", actor=kind))
        running = Daemon(kind, instance, self.home, bus, boot_id)
        running.teardown.push("bus", bus.close, 5)
        self._stack.push_async_callback(self.end, running)
        return running

    async def warden(self) -> tuple[Daemon, asyncio.Task[None]]:
        """Start a warden: the daemon, and the task that runs it."""
        running = await self._daemon("warden", "warden")
        return running, await start_warden(running)

    async def runner(self, instance: str = "agent_runner-1") -> tuple[Daemon, Runner]:
        """Start a runner."""
        running = await self._daemon("agent_runner", instance)
        return running, await start_runner(running, Context(url=self.url), self.home)

    async def acknowledged(self, consumer: str = "shop_coder") -> None:
        """Wait until nothing that a role's consumer handed out is unacknowledged.

        An acknowledgement is sent after its event is in the log, over another connection than the one that reads the log
        here: who has seen the event has to wait for it. A lost one would end by its delivery coming again after
        ``ack_wait`` (30 s by default), so the wait ends well before.
        """
        async with asyncio.timeout(30):
            while (await self.connection.api(f"CONSUMER.INFO.INVOCATIONS.{consumer}"))["num_ack_pending"]:
                await asyncio.sleep(0.02)

    async def end(self, running: Daemon) -> None:
        """End a daemon as SIGTERM does; a second time does nothing."""
        await running.teardown.run()
        assert not running.teardown.failed


@asynccontextmanager
async def open_rig(server: EmbeddedServer, home: Path) -> AsyncIterator[Rig]:
    """A bus with its streams, and nobody on it."""
    bus = await open_bus(Context(url=server.url), "test", Author("/test/rig", actor="tester"))
    registry = Registry(bus.bucket("registry"))
    streams = journal.declared(registry)
    await plan.apply(bus.connection, streams, await plan.plan(bus.connection, streams))
    await publish(bus.bucket("registry"), {})
    try:
        async with AsyncExitStack() as stack:
            rig = Rig(server.url, home, bus, registry, stack)
            for story in (rig.story, rig.control, rig.dead):
                await stack.enter_async_context(story.followed())
            yield rig
    finally:
        await bus.close()


async def until(condition: Callable[[], Any]) -> None:
    """Wait until a condition holds that no event announces."""
    async with asyncio.timeout(LIMIT_S):
        while not condition():
            await asyncio.sleep(0.005)

"""What all measurements stand on: one fresh server, its streams, requests to work off, and legs as processes."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import msgspec

from bus import envelope, leashed, plan, topology, wire
from bus.author import Author
from bus.context import Context
from bus.ids import new_id
from bus.server import EmbeddedServer, Options
from bus.store import INVOCATIONS
from services.app.parts import requests_of
from services.daemon import Bus, open_bus
from services.fleet.entries import publish
from services.fleet.registry import RegisteredRole, Registry
from services.requests.requests import Requests
from tests.bench import ours
from tests.bench.leg import Found, Task

#: Messages that are sent before the server is asked whether it follows.
_PORTION = 5_000
#: Seconds that one leg may take at most; a leg that hangs ends the bench with its words.
_LEG_S = 120.0

Side = Literal["ours", "floor"]
SIDES: tuple[Side, Side] = ("ours", "floor")


class Rig:
    """A server under measurement, and the only one who asks it for anything between the legs."""

    def __init__(self, server: EmbeddedServer, bus: Bus, folder: Path) -> None:
        self.server = server
        self.bus = bus
        self._folder = folder
        self._legs = 0

    async def clear(self) -> None:
        """An empty log, and no roles: every leg begins with the same server."""
        await publish(self.bus.bucket("registry"), {})
        await self.bus.connection.api(f"STREAM.PURGE.{INVOCATIONS}", timeout=60)

    async def leg(
        self,
        side: Side,
        *,
        count: int,
        concurrency: int,
        feed: bool = True,
        handler: str = "noop",
        marks: tuple[int, ...] = (),
        capped: bool = False,
        meanwhile: Callable[[str], Awaitable[None]] | None = None,
    ) -> Found:
        """Let a runner, or the floor, work requests off.

        `feed`: they lie there at the start. `meanwhile` is called with the role's name when the leg is ready.
        """
        self._legs += 1
        name = f"noop-{self._legs}"
        task = Task(
            url=self.server.url,
            home=str(self._folder),
            role=name,
            count=count,
            concurrency=concurrency,
            handler=handler,
            marks=marks,
            capped=capped,
        )
        pending = ours.role(task).in_flight if side == "ours" else concurrency
        consumer = topology.role_consumer(ours.PROJECT, name, ack_wait_s=900, max_deliver=7, max_ack_pending=pending)
        await self._apply(consumer)
        try:
            if feed:
                await self.feed(name, count)
            return await self._process(side, "runner" if side == "ours" else "claim", task, meanwhile)
        finally:
            await self.bus.connection.api(f"CONSUMER.DELETE.{INVOCATIONS}.{consumer.name}")

    async def publishing(self, side: Side, *, count: int, size: int) -> Found:
        """Let requests be submitted, or messages of the same size be published."""
        self._legs += 1
        task = Task(url=self.server.url, home=str(self._folder), role=f"ask-{self._legs}", count=count, size=size)
        return await self._process(side, "submit" if side == "ours" else "publish", task, None)

    async def feed(self, name: str, count: int) -> None:
        """Put `count` requests for a role into the log, as the front door writes them, but without waiting for each."""
        before = await self._stored()
        requests = self.front_door(name)
        for number in range(count):
            draft = await requests.draft(ours.ask(name))
            block = wire.fence(draft.event.id, None, "")
            self.bus.publisher.send(draft.event.subject, envelope.encode(draft.event), block)
            if number % _PORTION == 0:
                await self.bus.connection.nc.flush(60)
        await self._until_stored(before + count)

    async def fill(self, count: int) -> None:
        """Let `count` subjects of invocations that ended long ago lie in the log."""
        before = await self._stored()
        for number in range(count):
            self.bus.publisher.send(f"inv.bench.filler.{new_id()}.completed", b"{}")
            if number % _PORTION == 0:
                await self.bus.connection.nc.flush(60)
        await self._until_stored(before + count)

    async def request_size(self) -> int:
        """Bytes of one request as it lies in the log."""
        return len(envelope.encode((await self.front_door("size").draft(ours.ask("size"))).event))

    def front_door(self, name: str) -> Requests:
        """The requests of production, with a role that only they know."""
        registry = Registry(self.bus.bucket("registry"))
        role = ours.role(_NOBODY)
        registry.roles[ours.PROJECT, name] = RegisteredRole(
            project=ours.PROJECT, name=name, role=role, revision=1, limits=role.limits
        )
        return requests_of(self.bus, registry)

    async def _apply(self, *consumers: topology.Consumer) -> None:
        declared = topology.Topology(streams=topology.streams(), consumers=consumers)
        await plan.apply(self.bus.connection, declared, await plan.plan(self.bus.connection, declared))

    async def _stored(self) -> int:
        return int((await self.bus.connection.api(f"STREAM.INFO.{INVOCATIONS}"))["state"]["messages"])

    async def _until_stored(self, count: int) -> None:
        await self.bus.connection.nc.flush(60)
        async with asyncio.timeout(120):
            while await self._stored() < count:
                await asyncio.sleep(0.01)

    async def _process(
        self, side: Side, leg: str, task: Task, meanwhile: Callable[[str], Awaitable[None]] | None
    ) -> Found:
        words = self._folder / f"{side}.log"
        command = [sys.executable, "-m", f"tests.bench.{side}", leg, msgspec.json.encode(task).decode()]
        with words.open("wb") as said:
            process = await leashed.start(command, stdout=leashed.PIPE, stderr=said, grace=0)
        assert process.stdout is not None
        async with process:
            try:
                async with asyncio.timeout(_LEG_S):
                    ready = await process.stdout.readline()
                    if ready and meanwhile is not None:
                        await meanwhile(task.role)
                    answer = await process.stdout.read()
                    status = await process.wait()
            except TimeoutError as exc:
                raise RuntimeError(
                    f"expected {side} {leg} to end within {_LEG_S:g} s, got no result; it said: {words.read_text()[-2000:]}"
                ) from exc
        if status != 0 or not answer:
            raise RuntimeError(f"expected {side} {leg} to end well, got status {status}: {words.read_text()[-2000:]}")
        return msgspec.json.decode(answer, type=Found)


_NOBODY = Task(url="", home="", role="", count=0)


@asynccontextmanager
async def rig() -> AsyncIterator[Rig]:
    """A fresh server of its own on loopback, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="systems-bench-") as folder:
        async with EmbeddedServer(Options(store_dir=Path(folder) / "store")) as server:
            bus = await open_bus(Context(url=server.url), f"bench-{os.getpid()}", Author("/bench/rig"))
            try:
                ready = Rig(server, bus, Path(folder))
                await ready._apply()
                yield ready
            finally:
                await bus.close()

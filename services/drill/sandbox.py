"""Where drills happen: a project of their own that exists for the length of a drill, with runners of its own.

The fleet's runners leave the project :data:`~services.fleet.spec.SANDBOX` alone, because its work kills runners. Whatever a
drill leaves behind, also one that was itself killed, is cleared away before the next one begins: registry keys, standing
trips, unfinished work, dead letters, consumers, heartbeats. Its events stay in the log, as everybody's do.
"""

from __future__ import annotations

import asyncio
import os
import platform
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import msgspec
import structlog

from bus import errors, flags, invocation, leashed, subjects
from bus.events import daemon as daemons
from bus.invocation import Limits, Refused
from bus.store import CONTROL, INVOCATIONS, fold
from bus.subjects import Ref
from bus.trips import Trips
from services.daemon import Bus, control_id
from services.dead_letters import DeadLetters, Filter
from services.drill.witness import Witness, of_guards, of_project
from services.fleet.entries import project_key, role_key
from services.fleet.registry import Registry
from services.fleet.spec import SANDBOX, Project, Role
from services.home import Home
from services.launcher.main import child_environment
from services.requests.requests import Ask, Requests

log = structlog.get_logger()

#: Seat of the process that drills start.
RUNNER = "drill-runner"
#: Seconds between two looks at what no event announces.
LOOK_S = 0.01
#: Seconds that the warden gets to write down what left the registry.
_WARDEN_S = 5.0


class Sandbox:
    """One drill's place on the running fleet."""

    def __init__(self, bus: Bus, home: Home, actor: str, tag: str) -> None:
        self.bus = bus
        self.home = home
        self.actor = actor
        #: Ends the names of this drill's roles: no counter and no consumer of an earlier drill has the same.
        self.tag = tag
        self.registry = Registry(bus.bucket("registry"))
        self.trips = Trips(bus.bucket("trips"))
        self.work: Witness = of_project(bus.connection, SANDBOX)
        self.guards: Witness = of_guards(bus.connection)
        self._requests = Requests(self.registry, bus.store, bus.author, bus.artifacts, bus.schedules)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Sandbox]:
        """Clear away what an earlier drill left, watch, and clear away again however the block ends."""
        await self.clear_away()
        try:
            async with AsyncExitStack() as stack:
                await stack.enter_async_context(self.work.watching())
                await stack.enter_async_context(self.guards.watching())
                project = Project(description="Drills of the guards; gone when they are over")
                await self.bus.bucket("registry").put(project_key(SANDBOX), msgspec.json.encode(project))
                await self.registry.load()
                yield self
        finally:
            await self.clear_away()

    async def role(self, name: str, role: Role) -> str:
        """Register a role, and wait until the warden has made its consumer: its path. Again: with other settings."""
        full = f"{name}-{self.tag}"
        key = role_key(SANDBOX, full)
        await self.bus.bucket("registry").put(key, msgspec.json.encode(role))
        await self.registry.refresh(key)
        while await self.consumer(full) is None:
            await asyncio.sleep(LOOK_S)
        return f"{SANDBOX}/{full}"

    async def consumer(self, role: str) -> dict[str, Any] | None:
        """What the server says of a role's consumer; None while there is none."""
        try:
            return await self.bus.connection.api(f"CONSUMER.INFO.{INVOCATIONS}.{subjects.role_consumer(SANDBOX, role)}")
        except errors.ServerError:
            return None

    async def ask(self, path: str, input: Any = None) -> str:
        """Request one of the drill's roles: the invocation's id."""
        body = msgspec.Raw(msgspec.json.encode(input))
        return (await self._requests.submit(Ask(role=path, input=body, actor=self.actor))).id

    async def runner(self) -> leashed.Leashed:
        """Start a runner process that serves this project and nothing else; it ends with this process at the latest."""
        # Handlers are modules of this installation: the folder of the fleet file does not matter.
        where = ("--home", str(self.home.path), "--fleet", str(self.home.path / "fleet.toml"))
        command = (sys.executable, "-m", "services.app", "agent_runner", *where)
        words = self.home.logs / f"{RUNNER}.log"
        with words.open("ab") as said:
            return await leashed.start(
                [*command, "--instance", RUNNER, "--only", SANDBOX],
                env=child_environment(os.environ, self.home),
                stdout=said,
                stderr=said,
                grace=1.0,
            )

    async def buried_runner(self) -> None:
        """Do what a launcher does when a child of it has died: end its heartbeat, so that its claims are swept at once."""
        for beat in await self.bus.liveness.all():
            if beat.instance == RUNNER:
                await self.bus.liveness.end(beat.daemon, beat.boot_id)

    async def clear_away(self) -> None:
        """Leave nothing of any drill but its events. Each step is tried, whatever became of the others."""
        steps = (
            self._flag,
            self._registry_keys,
            self._heartbeats,
            self._unfinished,
            self._dead_letters,
            self._standing_trips,
            self._consumers,
            self._stream,
        )
        for step in steps:
            try:
                await step()
            except (errors.BusError, Refused) as exc:
                log.warning("drill_not_cleared_away", step=step.__name__.strip("_"), error=str(exc))

    async def _flag(self) -> None:
        bucket = self.bus.bucket(flags.BUCKET)
        switch = await flags.kill_switch(bucket, flags.DRILL)
        if switch.frozen:
            await bucket.put(flags.DRILL.soft, flags.clear(reason="the drill is over", by=self.actor))

    async def _registry_keys(self) -> None:
        bucket = self.bus.bucket("registry")
        roles: list[str] = []
        for key in await bucket.items():
            kind, _, name = key.partition(".")
            if name == SANDBOX or name.startswith((f"{SANDBOX}.", f"{SANDBOX}_")):
                await bucket.delete(key)
                if kind == "roles":
                    roles.append(key.replace(".", "_"))
        # Only then will nobody make the consumers anew.
        try:
            async with asyncio.timeout(_WARDEN_S):
                for name in roles:
                    while not await self._is_written_down(name):
                        await asyncio.sleep(LOOK_S)
        except TimeoutError:
            log.warning("registry_not_followed", roles=len(roles), why="the warden is away, or busy")

    async def _is_written_down(self, name: str) -> bool:
        last = await self.bus.store.last(CONTROL, f"ctl.registry.{name}.*")
        return last is None or last.subject.endswith(".removed")

    async def _heartbeats(self) -> None:
        await self.buried_runner()
        host = platform.node() or "localhost"
        seat = control_id(RUNNER, host)
        last = await self.bus.store.last(CONTROL, f"ctl.daemon.{seat}.*")
        if last is not None and isinstance(last.data, daemons.Started):
            stopped = daemons.Stopped(daemon="agent_runner", boot_id=last.data.boot_id, reason="the drill is over")
            await self.bus.store.append(self.bus.author.control(seat, stopped))

    async def _unfinished(self) -> None:
        found: dict[Ref, list[Any]] = {}
        async for record in self.bus.store.read(INVOCATIONS, f"inv.{SANDBOX}.>"):
            found.setdefault(subjects.parse_event(record.subject)[0], []).append(record)
        for ref, records in found.items():
            state = fold(records)
            if state is not None and not state.status.ended:
                cancel = invocation.Cancel(reason="the drill is over")
                await self.bus.invocations.carry_out(ref, cancel, Limits(), actor=self.actor)

    async def _dead_letters(self) -> None:
        dead = DeadLetters(self.bus, self.registry)
        wanted = Filter(role=f"{SANDBOX}/*")
        for letter in [letter async for letter in dead.select(wanted, self.bus.author.now())]:
            await dead.discard(letter, "the drill is over", self.actor)

    async def _standing_trips(self) -> None:
        for key in await self.trips.all():
            kind, _, rest = key.partition(".")
            scope = rest.split(".")[0]
            root = await self.bus.store.find(scope) if kind == "tree" else None
            if scope == SANDBOX or scope.startswith(f"{SANDBOX}_") or (root is not None and root.project == SANDBOX):
                await self.trips.clear(key)

    async def _consumers(self) -> None:
        names = (await self.bus.connection.api(f"CONSUMER.NAMES.{INVOCATIONS}")).get("consumers") or []
        for name in names:
            if name.startswith(f"{SANDBOX}_"):
                await self.bus.connection.api(f"CONSUMER.DELETE.{INVOCATIONS}.{name}")

    async def _stream(self) -> None:
        await self.bus.connection.api(f"STREAM.PURGE.{flags.DRILL.stream}")

"""The launcher: one per home. Starts the server and the daemons, keeps them running, and stops them in reverse order.

The server comes first, then whatever the caller sets up on the bus (see `Options.on_server_ready`), then the daemons. SIGTERM,
SIGINT and ``{"op":"shutdown"}`` stop everything in the reverse order; a second signal gives no more grace. If the launcher is
killed, every process it started ends by its leash, and ``systems up`` starts anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import assert_never

import msgspec
import structlog

from bus import context as contexts
from bus import errors, server
from bus.context import Context
from bus.server import EmbeddedServer
from services import credentials, notify
from services.fleet.daemons import Daemons
from services.fleet.spec import Fleet
from services.home import Home, write_json
from services.launcher import control
from services.launcher.control import Answer, ControlServer, Phase
from services.launcher.program import Child, ChildSpec
from services.launcher.reporter import LogReporter, Reporter
from services.launcher.supervisor import State, Supervisor
from services.release.release import Releases
from services.slack.tokens import VARIABLES

log = structlog.get_logger()

#: What a draining daemon needs beyond the longest grace of a role: release, farewell, connection.
STOP_MARGIN_S = 10.0

#: Seconds after which a start that goes on in spite of its cancellation is cancelled again.
CANCEL_AGAIN_S = 0.5

OnServerReady = Callable[[Context], AbstractAsyncContextManager[Reporter | None]]


@asynccontextmanager
async def nothing(_: Context) -> AsyncIterator[None]:
    """Sets up nothing on the bus."""
    yield None


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What a launcher is to run."""

    home: Home
    fleet: Fleet
    boot_id: str
    #: Wall time of the start.
    now: datetime
    #: The daemons in their order of start, as (name, command); a fleet's own are :func:`daemons`.
    daemons: tuple[tuple[str, tuple[str, ...]], ...]
    #: Entered when the server is ready and before the daemons start; left when they have stopped and the server still runs. The
    #: reporter it gives hears of children from then on.
    on_server_ready: OnServerReady = nothing
    #: Flush every write of the embedded server before it is acknowledged.
    sync_always: bool = False
    #: Environment to pass on; what it says of another fleet is taken out.
    environ: Mapping[str, str] = os.environ


class Launcher:
    """One run of a fleet."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.home = options.home
        self.phase = Phase.STARTING
        #: How the daemons are run: as the registry says once it is read.
        self.settings = options.fleet.daemons
        self.supervisor = Supervisor(self.settings.restart, LogReporter())
        #: Set when everything has been started once.
        self.ready = asyncio.Event()
        self._stopping = asyncio.Event()
        self._notifier: notify.Notifier | None = None

    async def run(self) -> None:
        """Run the fleet until somebody asks for its end.

        Raises:
            HomeUnusable: the state directory cannot be used, or another launcher runs there.
            BusError, OSError: the server or a daemon could not be started at all; what had been started is stopped again.
        """
        self.home.prepare()
        with self.home.lock(self.options.boot_id, self.options.now) as record:
            async with contextlib.AsyncExitStack() as stack:
                notifier = notify.of(self.options.environ, self._sentence)
                if notifier is not None:
                    self._notifier = await stack.enter_async_context(notifier)
                await stack.enter_async_context(ControlServer(Path(record.socket), self._handle, self._refuse))
                stack.enter_context(self._signals())
                await self._run()

    def take(self, settings: Daemons, commands: tuple[tuple[str, tuple[str, ...]], ...]) -> None:
        """Run other daemons than those it was made for, before they are started: as `settings` ask for, by these commands."""
        self.options = msgspec.structs.replace(self.options, daemons=commands)
        self.settings = settings
        self.supervisor.intensity(settings.restart)

    def command(self, verb: str, name: str, reason: str = "") -> str:
        """What a person runs for a child, by its whole path: ``…/systems restart warden --reason hung --home /srv/fleet``."""
        why = ["--reason", reason] if reason else []
        return self.home.command(verb, name, *why)

    def stop(self) -> None:
        """Ask for the end; the second time, for a quick one."""
        if self._stopping.is_set():
            log.warning("launcher_hurries", reason="asked to stop a second time")
            self.supervisor.hurry()
        self._stopping.set()

    async def _run(self) -> None:
        """Everything within the lock. The start is a task of its own so that it can be broken off."""
        async with self.supervisor, contextlib.AsyncExitStack() as bus:
            stop_asked = asyncio.create_task(self._stopping.wait())
            starting = asyncio.create_task(self._start(bus))
            try:
                await asyncio.wait({stop_asked, starting}, return_when=asyncio.FIRST_COMPLETED)
                if starting.done():
                    await starting
                    self.phase = Phase.READY
                    self.ready.set()
                    if self._notifier is not None:
                        self._notifier.ready()
                    log.info("launcher_ready", children=[child.name for child in self.supervisor.status()])
                    await stop_asked
            finally:
                self.phase = Phase.STOPPING
                if self._notifier is not None:
                    self._notifier.stopping()
                stop_asked.cancel()
                while not starting.done():
                    starting.cancel()
                    # Again: wait_for of Python 3.11 loses a cancellation that meets its result (cpython#86296).
                    await asyncio.wait({starting}, timeout=CANCEL_AGAIN_S)
                if not starting.cancelled() and starting.exception() and self._stopping.is_set():
                    log.warning("start_failed_while_stopping", error=str(starting.exception()))
                await self.supervisor.stop_all(keep={EmbeddedServer.name})

    async def _start(self, bus: contextlib.AsyncExitStack) -> None:
        context = await self._server()
        write_json(self.home.server_file, context)
        bus.callback(self.home.server_file.unlink, missing_ok=True)
        reporter = await bus.enter_async_context(self.options.on_server_ready(context))
        self._install_signals()  # what was set up on the bus may have installed its own
        if reporter is not None:
            self.supervisor.listen(reporter)
            bus.push_async_callback(self.supervisor.unlisten, reporter)
        for child in self._children():
            await self.supervisor.add(child, self.command("start", child.name), self.settings.restart_by(child.name))

    async def _server(self) -> Context:
        """The fleet's server: an embedded one that is started, or another that is only named."""
        fleet = self.options.fleet.server
        if fleet.url or fleet.context:
            named = contexts.load(None, fleet.url or None, fleet.context or None, self.options.environ)
            return named.anchored(Path.cwd())
        logins = credentials.make(self.home)
        embedded = EmbeddedServer(
            server.Options(
                store_dir=self.home.nats,
                port=fleet.port,
                prefer=self._last_port(),
                log_file=self.home.logs / f"{EmbeddedServer.name}.log",
                sync_always=self.options.sync_always,
                config=credentials.authorization(logins),
            )
        )
        await self.supervisor.add(embedded, self.home.command("up"))
        # A fixed address makes the next start come back to it, also after this file is gone.
        write_json(self.home.run / "port.json", embedded.port)
        return msgspec.structs.replace(logins[credentials.OPERATOR], url=embedded.url)

    def _last_port(self) -> int:
        """The port of the last run; 0 if there was none, or what is left of it is damaged."""
        try:
            return msgspec.json.decode((self.home.run / "port.json").read_bytes(), type=int)
        except FileNotFoundError:
            return 0
        except (OSError, msgspec.DecodeError) as exc:
            log.warning("last_port_unreadable", error=str(exc), action="taking a free one")
            return 0

    def _children(self) -> list[Child]:
        fleet = self.options.fleet
        # Once while the runner waits for its handlers, and once more while those that it stopped end.
        grace = 2 * max((role.grace for role in fleet.roles().values()), default=0.0) + STOP_MARGIN_S
        releases = Releases(self.home)
        return [
            Child(
                ChildSpec(
                    name=name,
                    command=command,
                    interpreter=partial(releases.interpreter, name),
                    # Whatever it starts can tell whose child it is: see `systems restart`.
                    env=child_environment(self.options.environ, self.home, name),
                    log_path=self.home.logs / f"{name}.log",
                    grace=grace,
                )
            )
            for name, command in self.options.daemons
        ]

    async def _handle(self, request: control.Request) -> Answer:
        if self.phase is not Phase.READY and not isinstance(request, control.Status | control.Shutdown):
            raise errors.Conflict(f"expected the launcher to be ready, got: it is {self.phase.value}; ask again later")
        match request:
            case control.Status():
                pass
            case control.Start(name):
                down = [
                    child.name for child in self.supervisor.status() if child.state in {State.GAVE_UP, State.STOPPED}
                ]
                for each in [name] if name else down:
                    self.supervisor.start(each)
            case control.Stop(name):
                await self.supervisor.stop(name)
            case control.RestartChild(name):
                self.supervisor.request_restart(name)
            case control.Shutdown():
                if not self._stopping.is_set():  # asked twice is not in a hurry: `systems down` is idempotent
                    self.stop()
            case _:
                assert_never(request)
        return self._say(ok=True)

    def _sentence(self) -> str:
        """How everything stands, for the service manager."""
        children = self.supervisor.status()
        run = sum(child.state is State.RUNNING for child in children)
        waits = [child.name for child in children if child.state is State.GAVE_UP]
        said = f"{self.phase.value}: {run} of {len(children)} children run"
        return said + (f"; {', '.join(waits)} waits for a person: systems cards" if waits else "")

    def _refuse(self, error: str) -> Answer:
        return self._say(ok=False, error=error)

    def _say(self, *, ok: bool, error: str = "") -> Answer:
        return Answer(ok=ok, phase=self.phase, error=error, pid=os.getpid(), children=self.supervisor.status())

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        self._install_signals()
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().remove_signal_handler(number)

    def _install_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self.stop)


def daemons(fleet: Fleet, home: Home, file: Path) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The daemons of a fleet in their order of start, as (name, command); `file` is the fleet file."""
    app = (sys.executable, "-m", "services.app")
    where = ("--home", str(home.path), "--fleet", str(file))

    def command(name: str, *more: str) -> tuple[str, tuple[str, ...]]:
        return name, (*app, name.partition("-")[0], *where, "--instance", name, *more)

    tables = fleet.projector
    found = [command("warden")]
    if tables.enabled:
        # It stops after the runners, and so sees what they did last.
        more = ["--memory-mb", str(tables.memory_mb), "--publish-s", f"{tables.publish:g}"]
        more += ["--archive", msgspec.json.encode(fleet.archive).decode()]
        if fleet.queries.folder:
            more += ["--queries", str(file.parent / fleet.queries.folder)]
        found.append(command("projector", *more))
    if fleet.slack.enabled:
        found.append(command("slack_mirror"))
    runners = range(1, fleet.daemons.agent_runner.instances + 1)
    return (*found, *(command(f"agent_runner-{number}") for number in runners))


def child_environment(environ: Mapping[str, str], home: Home, name: str = "") -> dict[str, str]:
    """The environment of a child: `environ` without what leads to another server or service manager, and with its home; of a daemon its name.

    Slack's tokens are for the daemon that uses them: work that runs below the others has no business with them.
    """
    left_out = {*contexts.VARIABLES, *notify.VARIABLES, "NATS_CONTEXT"} | (
        set() if name == "slack_mirror" else set(VARIABLES.values())
    )
    own = {"SYSTEMS_HOME": str(home.path)} | ({"SYSTEMS_DAEMON": name} if name else {})
    return {key: value for key, value in environ.items() if key not in left_out} | own

"""Actions as people ask for them, by the name of a daemon or none at all: what they need is looked up here.

The command line, Slack and an approved proposal come through the same functions.
"""

from __future__ import annotations

from pathlib import Path

from bus import errors
from bus.errors import BadAsk
from services.daemon import Bus
from services.fleet.entries import AppliedFile
from services.fleet.registry import Registry
from services.home import Home
from services.launcher import control
from services.launcher.main import STOP_MARGIN_S
from services.ops.operation import Operation
from services.ops.performing import perform
from services.ops.reload import ReloadFleet
from services.ops.restart import ALIVE_S, LAUNCHER, RestartDaemon


async def restart(
    bus: Bus,
    home: Home,
    registry: Registry,
    daemon: str,
    *,
    who: str,
    why: str,
    within: str = "",
    limit_s: float | None = None,
) -> Operation:
    """Restart a daemon, and wait until it is alive by evidence.

    Args:
        bus: where.
        home: whose launcher does it.
        registry: to know the grace of the roles.
        daemon: as `systems status` shows it.
        who: who asks.
        why: in their words.
        within: the daemon that the asking process belongs to; empty for none.
        limit_s: seconds that it may take; None for twice the longest grace of a role, and a minute more.

    Raises:
        HomeUnusable: no launcher runs here.
        UnknownName: there is no such daemon.
        ActionRefused, ActionFailed: it was not begun, or failed.
    """
    home.running()
    known = [child.name for child in (await control.ask(home, control.Status())).children]
    if daemon not in (*known, LAUNCHER):
        raise errors.UnknownName("daemon", daemon, [*known, LAUNCHER])
    action = restart_of(bus, home, registry, daemon, why, within=within, limit_s=limit_s)
    return await perform(bus, action, who=who, why=why)


def restart_of(
    bus: Bus, home: Home, registry: Registry, daemon: str, why: str, *, within: str, limit_s: float | None = None
) -> RestartDaemon:
    """The action, by the settings in effect; for its arguments see :func:`restart`."""
    taken = registry.settings.file
    return RestartDaemon(
        bus,
        home,
        daemon,
        why,
        within=within,
        limit_s=time_of(registry) if limit_s is None else limit_s,
        file=taken.path if taken is not None else "",
    )


def time_of(registry: Registry) -> float:
    """Seconds that a restart may take: what runs is drained first, twice the longest grace of a role, and a minute. Pure."""
    return 2 * max((one.role.grace for one in registry.roles.values()), default=0.0) + STOP_MARGIN_S + ALIVE_S


async def reload(bus: Bus, file: Path, *, who: str, why: str, exact: bool = False) -> Operation:
    """Take a fleet file while the fleet runs; `exact` as :class:`services.ops.reload.ReloadFleet` has it.

    Raises:
        ActionRefused: the file is at fault.
    """
    return await perform(bus, ReloadFleet(bus, file, who=who, why=why, exact=exact), who=who, why=why)


def file_of(registry: Registry) -> Path:
    """The fleet file that was taken last.

    Raises:
        BadAsk: none was, or it lies on another machine.
    """
    file: AppliedFile | None = registry.settings.file
    if file is None or not Path(file.path).is_file():
        got = f"{file.path} of {file.host}, which is not here" if file is not None else "none that was taken yet"
        raise BadAsk(f"expected a fleet file, got: {got}; name it with --fleet FILE")
    return Path(file.path)

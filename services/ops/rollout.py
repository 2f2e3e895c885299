"""A roll-out as people ask for it: the settings in effect make what they leave out."""

from __future__ import annotations

from collections.abc import Callable

from services.daemon import Bus
from services.fleet import durations
from services.fleet.registry import Registry
from services.home import Home
from services.launcher.main import STOP_MARGIN_S
from services.ops.deploy import Deploy
from services.release.release import INSTALLED, Release, Releases
from services.release.wheel import Wheel


def known(home: Home, name: str) -> Release | None:
    """A release that is there, by its name or version; None for what the launcher runs.

    Raises:
        UnknownName: there is none.
    """
    return None if name == INSTALLED else Releases(home).get(name)


def action(
    bus: Bus,
    home: Home,
    registry: Registry,
    what: Wheel | Release | None,
    *,
    who: str,
    why: str,
    within: str,
    watch: str = "",
    again: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Deploy:
    """The action, to be planned or performed.

    Args:
        bus: where.
        home: whose daemons are rolled.
        registry: to know the grace of the roles, and how long is watched.
        what: a wheel, a release that is there, or None for the installation that the launcher runs in.
        who: on whose behalf.
        why: in their words.
        within: the daemon that this process belongs to, whose own step is left to a person; empty for none.
        watch: how long everything rolled must stay up after each step, such as ``2m``; empty for ``[deploy] watch``.
        again: also if the release has failed before.
        say: told each step as it begins and ends.

    Raises:
        BadDuration: `watch` is none.
    """
    file = registry.settings.file
    return Deploy(
        bus,
        home,
        what,
        who,
        why,
        within=within,
        grace=2 * max((one.role.grace for one in registry.roles.values()), default=0.0) + STOP_MARGIN_S,
        watch_s=durations.seconds(watch) if watch else registry.settings.deploy.watch,
        fleet=file.path if file is not None else "",
        again=again,
        say=say,
    )

"""How the launcher runs the daemons of a fleet: the table ``[daemons]``. Times are seconds."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from services.fleet.table import Count, Positive

#: The shortest silence after which a daemon may be killed: three beats that did not come, and the question whether it lives.
MIN_SILENT_S = 10.0


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A table of the fleet file: unknown keys are errors."""


class RestartBy(StrEnum):
    """Who starts a daemon again that has ended."""

    #: The launcher, within the restart intensity; beyond it a person.
    ALWAYS = "always"
    #: A person alone. The launcher leaves it down, and does not kill it either when it hangs.
    HUMAN = "human"


class Daemon(_Table, frozen=True):
    """How the launcher runs one kind of daemon."""

    restart: RestartBy = RestartBy.ALWAYS


class AgentRunner(Daemon, frozen=True):
    """How the launcher runs agent_runner."""

    #: Processes on this machine; all of them share the work.
    instances: Count = 1


class Restart(_Table, frozen=True):
    """Restart intensity, as in OTP: more than `exits` within `period` seconds, and the failure climbs to a person."""

    exits: Count = 3
    period: Positive = 300.0


class Watchdog(_Table, frozen=True):
    """When the launcher kills a daemon of which nothing shows any more that it works."""

    #: Since the freshest sign of work of any kind.
    silent: Annotated[float, Meta(ge=MIN_SILENT_S)] = 30.0
    #: The same while it beats and has work in hand, such as a call of a model that blocks its event loop; and before its first beat.
    busy: Annotated[float, Meta(ge=MIN_SILENT_S)] = 300.0


class Daemons(_Table, frozen=True):
    """How the launcher runs the daemons."""

    agent_runner: AgentRunner = AgentRunner()
    warden: Daemon = Daemon()
    projector: Daemon = Daemon()
    slack_mirror: Daemon = Daemon()
    restart: Restart = Restart()
    watchdog: Watchdog = Watchdog()

    def restart_by(self, name: str) -> RestartBy:
        """Who restarts a daemon, by its instance name; the server is the launcher's to restart."""
        kind = name.partition("-")[0]
        table = getattr(self, kind, None) if kind in self.__struct_fields__ else None
        return table.restart if isinstance(table, Daemon) else RestartBy.ALWAYS

"""Everything that ``systems status`` shows, and what of it waits for a person."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec

from bus import flags
from bus.events.finding import Kind
from services.cards import Card
from services.config.drift import ConfigLine
from services.freezes import Freeze
from services.guards.proofs import GuardLine
from services.health.daemons import DaemonLine
from services.incident.line import IncidentLine
from services.monitor.status import Status
from services.projector.line import TablesLine
from services.quota.lines import QuotaLine
from services.release import versions


class Verdict(StrEnum):
    """How the fleet is."""

    NOMINAL = "nominal"
    CONCERN = "concern"
    ULTRA = "ultra"


class RoleLine(msgspec.Struct, frozen=True, kw_only=True):
    """A role's work."""

    role: str
    #: Waits to be handed out.
    backlog: int = 0
    #: Handed out and not finished: running, or waiting for a retry.
    in_flight: int = 0
    #: Pull requests open at the server; 0 means that nobody asks for this role's work, None that nobody can tell.
    waiting_pulls: int | None = 0
    completed: int = 0
    failed: int = 0


class ErrorLine(msgspec.Struct, frozen=True, kw_only=True):
    """One of the last failures."""

    at: datetime
    role: str
    invocation: str
    kind: str
    message: str


class TripLine(msgspec.Struct, frozen=True, kw_only=True):
    """A standing refusal."""

    key: str
    scope: str
    sentence: str


class Panel(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that `systems status` shows."""

    at: datetime
    verdict: Verdict
    #: Why it is not nominal, the worst first.
    reasons: tuple[str, ...]
    daemons: tuple[DaemonLine, ...]
    roles: tuple[RoleLine, ...]
    dead_letters: int
    oldest_in_flight_s: float | None
    oldest_in_flight: str
    last_errors: tuple[ErrorLine, ...]
    kill_switch: Freeze
    guards: tuple[GuardLine, ...]
    #: Guards that have tripped and stay so.
    trips: tuple[TripLine, ...] = ()
    #: Spend caps; None when there are none, or nobody can tell.
    quota: tuple[QuotaLine, ...] | None = None
    #: The projector's tables; None when nobody can tell, or there is none.
    tables: TablesLine | None = None
    #: The last sweep of the monitor, the next one, and what is open; None when it was not asked.
    monitor: Status | None = None
    #: Open incidents, the worst first.
    incidents: tuple[IncidentLine, ...] = ()
    #: The settings in effect, and where they differ from the fleet file and from what daemons run with.
    config: ConfigLine | None = None
    #: What waits for a person, about a daemon: the oldest first.
    cards: tuple[Card, ...] = ()
    #: What could not be looked at, and why.
    unseen: tuple[str, ...] = ()
    #: Of a past moment: what no log can tell of it. Neither good nor bad.
    unrecorded: tuple[str, ...] = ()

    @property
    def waits(self) -> tuple[str, ...]:
        """What waits for a person beside the cards, each with what that person runs."""
        said: list[str] = [f"{line.told}: {line.command}" for line in self.incidents]
        said += filter(None, [versions.relaunch(self.daemons)])
        if self.dead_letters:
            said.append(f"{self.dead_letters:,} dead letter{'s' if self.dead_letters > 1 else ''}: systems dlq ls")
        if self.kill_switch.mode is flags.Mode.HARD:
            said.append("a hard freeze: systems thaw --hard")
        said += [f"a stopped run tree: systems loop clear {t.key[5:]}" for t in self.trips if t.key.startswith("tree.")]
        for found in self.monitor.findings if self.monitor is not None else ():
            said += [f"{found.fingerprint}: {proposal}" for proposal in found.proposals]
            if found.kind == Kind.RAISED and not found.silenced_by:
                said.append(f"{found.title}: systems findings close {found.fingerprint} --reason TEXT")
        return tuple(said)

"""Actions that a triage proposed and the allow-list lets run without a person.

Each goes through the same door as a person's (:func:`services.ops.performing.perform`): its events say who asked and why, and
its refusals hold. What this does not know how to do stays a proposal, and waits for a person like those that are not allowed.
"""

from __future__ import annotations

import structlog

from bus import errors
from bus.events import finding
from services.daemon import Bus
from services.fleet.registry import Registry
from services.home import Home
from services.ops.asked import restart_of
from services.ops.performing import perform
from services.ops.restart import RestartDaemon

log = structlog.get_logger()

#: On whose behalf it is done.
WHO = "triage"


class Proposed:
    """Does what is allowed, one after the other: who hands a proposal over waits until it is done or has failed."""

    def __init__(self, bus: Bus, registry: Registry, home: Home, daemon: str) -> None:
        """`daemon` is the instance that does it, which may not restart itself."""
        self._bus = bus
        self._registry = registry
        self._home = home
        self._daemon = daemon

    async def carry(self, proposal: finding.Proposal, fingerprint: str) -> None:
        """Do it; what became of it is in the log of actions, and never raised: a triage goes on."""
        if proposal.action != RestartDaemon.name:
            log.info("proposal_waits", action=proposal.action, target=proposal.target, finding=fingerprint)
            return
        why = f"finding {fingerprint}: {proposal.why}"
        action = restart_of(self._bus, self._home, self._registry, proposal.target, why, within=self._daemon)
        try:
            await perform(self._bus, action, who=WHO, why=why)
        except errors.BusError as exc:
            log.warning("proposal_failed", target=proposal.target, finding=fingerprint, error=str(exc))

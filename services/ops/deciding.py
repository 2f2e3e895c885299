"""A person decides about what a triage proposes: approved, it is done as any action is; rejected, that is on the record.

What may be decided is looked at again: a finding that is gone, a newer answer of the triage, an action that was done or
rejected meanwhile are told instead of acted upon.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from bus import errors
from bus.events import finding
from bus.events import ops as ev
from services.daemon import Bus
from services.fleet.registry import Registry
from services.home import Home
from services.monitor.ledger import Ledger
from services.monitor.memory import Known
from services.ops import asked
from services.ops.operation import Operation, Status
from services.ops.performing import operations
from services.ops.restart import RestartDaemon


class Proposal(msgspec.Struct, frozen=True, kw_only=True):
    """Which proposal is meant: of which finding, in which answer, at which place."""

    fingerprint: str
    invocation: str
    place: int

    @property
    def name(self) -> str:
        """What it is known by."""
        return f"proposal {self.fingerprint} {self.invocation} {self.place}"


class Decided(msgspec.Struct, frozen=True, kw_only=True):
    """What a person decided upon."""

    proposal: finding.Proposal
    #: What was done; None: it was rejected.
    operation: Operation | None = None


async def approve(bus: Bus, home: Home, registry: Registry, meant: Proposal, *, who: str, within: str = "") -> Decided:
    """Do it.

    Args:
        bus: where.
        home: whose launcher restarts daemons.
        registry: of the fleet.
        meant: which.
        who: who approves.
        within: the daemon that the asking process belongs to; empty for none.

    Raises:
        Conflict: it may not be decided any more, or nobody but a person can do it.
        BusError: it was refused or failed.
    """
    proposal = await _standing(bus, meant)
    if proposal.action != RestartDaemon.name:
        raise errors.Conflict(
            f"expected an action that can be done from here ({RestartDaemon.name}), got: {proposal.action} of {proposal.target}; "
            "it waits for a person at the command line"
        )
    why = f"{_why(meant)} {proposal.why}"
    done = await asked.restart(bus, home, registry, proposal.target, who=who, why=why, within=within)
    return Decided(proposal=proposal, operation=done)


async def reject(bus: Bus, meant: Proposal, *, who: str, why: str) -> Decided:
    """Leave it, and say so on the record.

    Raises:
        Conflict: it may not be decided any more.
    """
    proposal = await _standing(bus, meant)
    id_ = bus.author.new_id()
    request = ev.Requested(action=proposal.action, target=proposal.target, who=who, why=f"{_why(meant)} {proposal.why}")
    refused = ev.Refused(reason=f"rejected by {who}: {why}")
    for event in (request, refused):
        await bus.store.append(bus.author.control(id_, event, actor=who))
    return Decided(proposal=proposal)


async def _standing(bus: Bus, meant: Proposal) -> finding.Proposal:
    """The proposal, if it is still to be decided."""
    ledger = Ledger(bus)
    await ledger.catch_up()
    return standing(
        meant,
        ledger.known.get(meant.fingerprint),
        ledger.proposed.get(meant.fingerprint),
        (await operations(bus)).values(),
    )


def standing(
    meant: Proposal, known: Known | None, proposed: finding.Proposed | None, done: Iterable[Operation]
) -> finding.Proposal:
    """The proposal, if it is still to be decided. Pure.

    Raises:
        Conflict: it is not; says what has happened since.
    """
    if known is None:
        raise errors.Conflict(f"expected finding {meant.fingerprint} to be open, got: it is closed since")
    if proposed is None or proposed.invocation != meant.invocation or meant.place >= len(proposed.proposals):
        raise errors.Conflict(
            f"expected the newest answer of the triage about {meant.fingerprint}, got an older one; see systems findings"
        )
    proposal = proposed.proposals[meant.place]
    for one in done:
        same = (one.action, one.target) == (proposal.action, proposal.target) and one.why.startswith(_why(meant))
        rejected = one.status is Status.REFUSED and one.reason.startswith("rejected by ")
        if (
            same
            and one.requested_at >= known.finding.since
            and (rejected or one.status in (Status.RUNNING, Status.DONE))
        ):
            what = one.reason if rejected else f"{one.sentence} is {one.status.value}"
            raise errors.Conflict(
                f"expected a proposal that nobody has decided upon, got: {what}, since {one.requested_at:%Y-%m-%d %H:%M:%S} UTC"
            )
    return proposal


def _why(meant: Proposal) -> str:
    """How the reason of an action begins that a finding's proposal asked for."""
    return f"finding {meant.fingerprint}:"

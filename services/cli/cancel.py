"""``systems cancel``: call an invocation off, whether it is scheduled, queued, running, waiting or dead."""

from __future__ import annotations

from bus.invocation import Cancel, Limits, Status
from services.cli import output
from services.cli.common import DEFAULTS, Common
from services.cli.exits import Exit
from services.cli.session import operator
from services.dead_letters import DeadLetters
from services.requests.requests import delayed


async def cancel(id: str, /, *, reason: str = "", common: Common = DEFAULTS) -> int:
    """Call an invocation off, wherever it stands. A running handler is stopped; its result no longer counts.

    Args:
        id: Id of the invocation.
        reason: Why; goes into the event, with your name.
        common: Which fleet, and how to print.
    """
    async with operator(common) as session:
        ref = await session.find(id)
        # Whether it may be cancelled does not depend on its role's limits: the role may be gone.
        outcome = await session.bus.invocations.carry_out(ref, Cancel(reason=reason), Limits(), actor=session.actor)
        before = outcome.before.status
        if before is Status.SCHEDULED:
            await session.bus.schedules.remove(delayed(ref))
        if before is Status.DEAD_LETTERED:
            await DeadLetters(session.bus, await session.registry()).remove_of(ref)
    if common.json:
        output.json({"id": ref.id, "was": before, "is": outcome.after.status})
    else:
        print(f"{ref.id} was {before}, and is {outcome.after.status}")
    return Exit.DONE

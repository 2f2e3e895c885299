"""The loop breaker: two roles that ask one another without end."""

from __future__ import annotations

import asyncio

from services.drill.drill import Fired, NotProven
from services.drill.faults import FREE
from services.drill.sandbox import Sandbox
from services.fleet.spec import FunctionHandler, Role

#: Turns after which they would stop by themselves: nobody has to be stopped by a breaker that does not work.
_TURNS = 40


class Loop:
    """A run tree that goes back and forth is stopped while it still turns."""

    name = "loop"
    guard = "loop breaker"
    expected = f"two roles that ask one another to be stopped within {_TURNS} turns"
    works = True

    async def run(self, sandbox: Sandbox) -> Fired:
        """Let them ask one another, and time the trip from the event that passed the limit."""
        role = Role(handler=FunctionHandler(target="services.drill.faults:answer"), **FREE)
        ping, pong = await sandbox.role("ping", role), await sandbox.role("pong", role)
        async with await sandbox.runner():
            root = await sandbox.ask(ping, {"me": ping, "other": pong, "left": _TURNS})
            await self._stopped_or_over(sandbox, root)
            tripped = await sandbox.guards.event("tripped", id_=root)
            seen = len(sandbox.work.all("requested"))
            await sandbox.work.until(lambda: self._still(sandbox))
        passed = [r for r in sandbox.work.records if r.subject.split(".")[3] == tripped.data.invocation]
        if not passed:
            raise NotProven("a trip by an invocation of the tree", tripped.data.invocation)
        asked = len(sandbox.work.all("requested"))
        if asked > _TURNS:
            raise NotProven(self.expected, f"{asked} requests")
        return Fired(
            took_s=max(0.0, (tripped.stored_at - passed[0].stored_at).total_seconds()),
            evidence=(
                f"{ping} and {pong} asked one another from {root} on",
                f"tripped by {tripped.data.role}: {tripped.data.reason.value}, {tripped.data.count} of {tripped.data.limit}",
                f"{seen} requests were made until then, {asked - seen} more after it; all have ended",
            ),
        )

    async def _stopped_or_over(self, sandbox: Sandbox, root: str) -> None:
        """Wait for the trip, or for the last turn, which no trip may come after.

        Raises:
            NotProven: they turned to their end.
        """
        trip = asyncio.ensure_future(sandbox.guards.event("tripped", id_=root))
        end = asyncio.ensure_future(sandbox.work.until(lambda: len(sandbox.work.all("completed")) > _TURNS))
        try:
            await asyncio.wait({trip, end}, return_when=asyncio.FIRST_COMPLETED)
            if not trip.done():
                raise NotProven(self.expected, f"all {_TURNS} turns done")
        finally:
            trip.cancel()
            end.cancel()

    @staticmethod
    def _still(sandbox: Sandbox) -> bool:
        """Whether everything that was asked for has ended."""
        asked = {r.subject.split(".")[3] for r in sandbox.work.all("requested")}
        ended = {r.subject.split(".")[3] for name in ("completed", "dead_lettered") for r in sandbox.work.all(name)}
        return asked <= ended

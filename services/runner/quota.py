"""What a runner needs of the quota breaker; :class:`services.quota.desk.QuotaDesk` gives it."""

from __future__ import annotations

from typing import Protocol

from bus.events.invocation import Hold, Requested, Settlement, Usage
from bus.invocation import Cost
from bus.subjects import Ref
from services.fleet.registry import RegisteredRole


class Quota(Protocol):
    """Reserves before a claim, and follows what becomes of it."""

    def covers(self, role: RegisteredRole) -> bool:
        """Whether a cap covers a role."""
        ...

    def reserve_now(self, role: RegisteredRole, ref: Ref, request: Requested, prompt: str = "") -> Hold | None:
        """Reserve without waiting, where there is much room; None: :meth:`reserve` has to be asked."""
        ...

    async def reserve(self, role: RegisteredRole, ref: Ref, request: Requested, prompt: str = "") -> Hold | None:
        """Reserve what an attempt may use; waits until there is room. None: no cap covers it any more.

        Raises:
            bus.refusal.GuardRefused: it cannot be counted (no price, no declared maximum), or its run tree was stopped.
        """
        ...

    def give_back(self, hold: Hold) -> None:
        """Undo a reservation whose claim was not written."""
        ...

    def settle(self, settlement: Settlement) -> None:
        """Follow the end of a claim, after it was written."""
        ...

    def cost(self, role: RegisteredRole, usage: Usage, hold: Hold | None) -> Cost:
        """What a usage is settled at."""
        ...

    def wake(self) -> None:
        """A role, a cap or a price has changed."""
        ...

    async def close(self) -> None:
        """Send what is owed to the counters."""
        ...

"""What a runner needs of the quota breaker; :class:`services.quota.desk.QuotaDesk` gives it."""

from __future__ import annotations

from typing import Protocol

from bus.events.invocation import Hold, Requested, Settlement, Usage
from bus.invocation import Cost
from bus.subjects import Ref
from services.fleet.registry import RegisteredPrompt, RegisteredRole


class Quota(Protocol):
    """Reserves before a claim, and follows what becomes of it."""

    def covers(self, role: RegisteredRole) -> bool:
        """Whether a cap covers a role."""
        ...

    async def reserve(
        self, role: RegisteredRole, ref: Ref, request: Requested, prompt: RegisteredPrompt | None
    ) -> Hold:
        """Reserve what an attempt may use; waits until there is room.

        Raises:
            bus.refusal.GuardRefused: it cannot be counted (no price, no declared maximum).
        """
        ...

    def give_back(self, hold: Hold) -> None:
        """Undo a reservation whose claim was not written."""
        ...

    def settle(self, settlement: Settlement) -> None:
        """Follow the end of a claim, after it was written."""
        ...

    def cost(self, usage: Usage) -> Cost:
        """What a usage costs."""
        ...


class Uncapped:
    """No caps at all: for runners of a bus that counts nothing."""

    def covers(self, role: RegisteredRole) -> bool:
        """No."""
        del role
        return False

    async def reserve(
        self, role: RegisteredRole, ref: Ref, request: Requested, prompt: RegisteredPrompt | None
    ) -> Hold:
        """Nothing to reserve on."""
        del role, request, prompt
        return Hold(id=ref.id)

    def give_back(self, hold: Hold) -> None:
        """Nothing was reserved."""

    def settle(self, settlement: Settlement) -> None:
        """Nothing is counted."""

    def cost(self, usage: Usage) -> Cost:
        """Nothing."""
        del usage
        return Cost()

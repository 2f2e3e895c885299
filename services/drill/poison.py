"""The poison-message breaker: a message that kills each runner that takes it."""

from __future__ import annotations

import asyncio

from bus.events.invocation import DeathReason
from services.drill.drill import Fired, NotProven
from services.drill.faults import FREE
from services.drill.sandbox import Sandbox
from services.fleet.spec import FunctionHandler, Role

#: Runners that it may kill.
_CRASHES = 2


class Poison:
    """After the last crash that its role allows, the message is a dead letter and kills nobody any more."""

    name = "poison"
    guard = "poison-message breaker"
    expected = f"a message that has killed {_CRASHES} runners to be dead-lettered"
    works = True

    async def run(self, sandbox: Sandbox) -> Fired:
        """Start a runner as often as it dies, and time the burial from the last death."""
        target = FunctionHandler(target="services.drill.faults:die")
        path = await sandbox.role("poison", Role(handler=target, max_crashes=_CRASHES, **FREE))
        id_ = await sandbox.ask(path)
        loop = asyncio.get_running_loop()
        evidence: list[str] = []
        died_at = loop.time()
        for crash in range(1, _CRASHES + 1):
            async with await sandbox.runner() as runner:
                await runner.exited()
                died_at = loop.time()
                evidence.append(f"pid {runner.child_pid} was killed by {id_}")
            await sandbox.buried_runner()
            await sandbox.work.event("swept", id_=id_, count=crash)
        dead = await sandbox.work.event("dead_lettered", id_=id_)
        if dead.data.reason is not DeathReason.CRASHES_SPENT:
            raise NotProven("a death of reason crashes_spent", dead.data.reason.value)
        evidence.append(f"dead-lettered at sequence {dead.seq} after {dead.data.crashes} crashes")
        return Fired(took_s=loop.time() - died_at, evidence=tuple(evidence))

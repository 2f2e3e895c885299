"""Bringing the bus to its declared shape, as an action: what exists is changed only under a decision."""

from __future__ import annotations

from typing import Any

from bus import errors, wire
from bus import plan as planner
from bus.store import CONTROL
from bus.topology import Topology
from services.daemon import Bus
from services.declaration import Difference, carry_out, refuse_frozen
from services.fleet import entries as registered
from services.ops.operation import No
from services.ops.performing import perform


class ApplyTopology:
    """The steps of a plan, and the registry that it asks for."""

    name = "apply"
    target = "the bus"
    lock = "the topology"
    limit_s = 300.0

    def __init__(
        self,
        bus: Bus,
        topology: Topology,
        difference: Difference,
        wanted: dict[str, bytes] | None,
        who: str,
        *,
        allow_destructive: bool,
    ) -> None:
        """`wanted` is the whole registry; None leaves it as it is."""
        self._bus = bus
        self._topology = topology
        self._difference = difference
        self._wanted = wanted
        self._who = who
        self._allow_destructive = allow_destructive
        self._why = ""

    @property
    def policy(self) -> str:
        """What exists and is changed or deleted."""
        return ", ".join(changed(self._difference)[:3])

    async def perform(self, *, why: str, decision: int) -> None:
        """Do it, with its events; where there is nothing yet to write them to, without."""
        self._why = why
        if await _has_control(self._bus):
            if not self._difference.empty:
                await perform(self._bus, self, who=self._who, why=why, decision=decision)
            return
        await self.check()
        await self.carry_out("")

    async def check(self) -> No | None:
        """Nothing is thawed by the way, and nothing lost that nobody named.

        Raises:
            FrozenShape: the kill switch is thrown.
            Conflict: something would be lost.
        """
        await refuse_frozen(self._bus, self._difference)
        if not self._allow_destructive:
            planner.refuse_destructive(list(self._difference.steps))
        return None

    async def carry_out(self, id_: str) -> dict[str, Any]:
        """Do the steps, then put the registry."""
        await carry_out(self._bus, self._topology, self._difference, allow_destructive=self._allow_destructive)
        keys: list[str] = []
        if self._wanted is not None:
            headers = registered.provenance(self._who, self._why or "systems apply", id_)
            keys = await registered.publish(self._bus.bucket("registry"), self._wanted, headers)
        steps = [f"{step.action} {step.kind} {step.name}" for step in self._difference.steps]
        return {"steps": steps, "keys": keys}


def changed(difference: Difference) -> list[str]:
    """What exists and would be changed or deleted, by name. Pure."""
    steps = [f"{step.kind} {step.name}" for step in difference.steps if step.action != "create"]
    keys = [f"registry {change.key}" for change in difference.registry if change.action != "create"]
    return steps + keys


async def _has_control(bus: Bus) -> bool:
    try:
        await bus.connection.api(f"STREAM.INFO.{CONTROL}")
    except errors.ServerError as exc:
        if exc.code != wire.Code.STREAM_NOT_FOUND:
            raise
        return False
    return True

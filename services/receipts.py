"""Receipts: each daemon's answer to a freeze and to a thaw, once for each of its boots.

A receipt says that this process has seen the flag, at which sequence it stopped, and what it holds. The one for a thaw is
given when what was held is settled. A daemon that starts in a freeze answers too: whoever is alive owes one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import structlog

from bus import errors
from bus.events.freeze import Receipt, Stage
from bus.flags import DRILL, REAL, KillSwitch, Switch
from bus.ids import key_id
from services.daemon import Daemon

log = structlog.get_logger()

#: Seconds until a receipt that could not be written is tried again, and between two looks without news.
_AGAIN_S = 0.5


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """What a daemon has in hand at a freeze or a thaw."""

    cut: int = 0
    running: int = 0
    held: int = 0
    spooled: int = 0


async def _nothing_to_settle() -> Held:
    return Held()


class Receipts:
    """Answers for one daemon."""

    def __init__(
        self,
        running: Daemon,
        *,
        stopped: Callable[[], Held] = Held,
        settle: Callable[[], Awaitable[Held]] = _nothing_to_settle,
    ) -> None:
        """Make it.

        Args:
            running: whose receipts.
            stopped: what is in hand as the freeze begins.
            settle: writes what was held, once writes are taken again: how much that was.
        """
        self._running = running
        self._stopped = stopped
        self._settle = settle
        #: Ids of the freezes that were answered and not thawed yet, by switch.
        self._answered: dict[str, str] = {}

    async def run(self) -> None:
        """For ever."""
        gate = self._running.bus.gate
        while True:
            try:
                await self._look(REAL, gate.switch)
                await self._look(DRILL, gate.drill)
            except errors.BusError as exc:
                log.warning("receipt_unwritten", error=str(exc), again_s=_AGAIN_S)
                await asyncio.sleep(_AGAIN_S)
            await gate.changed(_AGAIN_S)

    async def _look(self, switch: Switch, state: KillSwitch) -> None:
        answered = self._answered.get(switch.letter)
        if state.frozen and state.id and state.id != answered:
            await self._write(state.id, Stage.FREEZE, self._stopped() if switch is REAL else Held())
            self._answered[switch.letter] = state.id
        elif not state.frozen and state.id and answered is not None:
            held = await self._settle() if switch is REAL else Held()
            if self._running.bus.gate.switch.frozen and switch is REAL:
                return  # frozen again before all of it was settled
            await self._write(answered, Stage.THAW, held)
            del self._answered[switch.letter]

    async def _write(self, id_: str, stage: Stage, held: Held) -> None:
        running = self._running
        bus = running.bus
        receipt = Receipt(
            stage=stage,
            daemon=running.kind,
            instance=running.instance,
            boot_id=running.boot_id,
            stopped_at_seq=bus.store.last_written,
            cut=held.cut,
            running=held.running,
            held=held.held,
            spooled=held.spooled,
        )
        event_id = key_id("freeze.receipt", f"{id_}/{stage}/{running.boot_id}")
        await bus.store.append(bus.author.control(id_, receipt, event_id=event_id))
        log.info("receipt", freeze=id_, stage=stage.value, held=held.held, spooled=held.spooled)

"""Receipts: each daemon's answer to a freeze and to a thaw, once for each of its boots.

A receipt says that this process has seen the flag, at which sequence it stopped, and what it holds. The one for a thaw is
given when what was held is settled. A daemon that starts in a freeze answers too: whoever is alive owes one. And so does one
that starts in a thaw, or was asked too late to have seen the freeze: a thaw waits for every runner that beats.
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
from services import freezes
from services.daemon import Daemon

log = structlog.get_logger()

#: Seconds until a receipt that could not be written is tried again, or the record is asked again.
_AGAIN_S = 0.5
#: Seconds between two looks without news.
_LOOK_S = 5.0
#: Seconds after a clear in which the record is asked for a freeze that was not seen here: the warden, which has seen it, may
#: still be writing it down.
_MISSED_S = 10.0


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
        #: Ids of the last freezes that were answered, and of the last whose thaw was, by switch.
        self._stopped_at: dict[str, str] = {}
        self._settled_at: dict[str, str] = {}
        #: The clear of the real switch that was seen last, and the loop time until which the record is asked about it.
        self._clear: tuple[str, float] = ("", 0.0)

    async def run(self) -> None:
        """For ever."""
        gate = self._running.bus.gate
        while True:
            heeded = gate.changes
            try:
                await self._look(REAL, gate.switch)
                await self._look(DRILL, gate.drill)
            except errors.BusError as exc:
                log.warning("receipt_unwritten", error=str(exc), again_s=_AGAIN_S)
                await asyncio.sleep(_AGAIN_S)
            if gate.changes == heeded:
                soon = asyncio.get_running_loop().time() < self._clear[1]
                await gate.changed(_AGAIN_S if soon else _LOOK_S)

    async def _look(self, switch: Switch, state: KillSwitch) -> None:
        stopped = self._stopped_at.get(switch.letter, "")
        if not state.id:
            return  # nobody ever put the flag, or it was only heard
        if state.frozen:
            if state.id != stopped:
                await self._write(state.id, Stage.FREEZE, self._stopped() if switch is REAL else Held())
                self._stopped_at[switch.letter] = state.id
            return
        settled = self._settled_at.get(switch.letter, "")
        owed = stopped if stopped != settled else await self._missed(state.id) if switch is REAL else ""
        if owed in {"", settled}:
            return
        held = await self._settle() if switch is REAL else Held()
        if self._running.bus.gate.switch.frozen and switch is REAL:
            return  # frozen again before all of it was settled
        await self._write(owed, Stage.THAW, held)
        self._stopped_at[switch.letter] = self._settled_at[switch.letter] = owed

    async def _missed(self, clear: str) -> str:
        """The freeze that is being thawed and was never seen here; empty for none.

        It ended before this daemon looked, or before it began: its thaw waits for us all the same.
        """
        now = asyncio.get_running_loop().time()
        if clear != self._clear[0]:
            self._clear = (clear, now + _MISSED_S)
        return await freezes.unthawed(self._running.bus) if now < self._clear[1] else ""

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

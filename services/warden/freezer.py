"""The kill switch's server layer: it makes the server refuse what the flag forbids, and leads the way back.

What is to be done is decided in :mod:`services.warden.freeze` from what is seen; here it is seen and done. Each step can be
done again, so a warden that dies between two of them is no more than a delay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import msgspec
import structlog

from bus import errors, flags, topology
from bus.events import freeze as ev
from bus.flags import Switch
from bus.store import CONTROL, Recorded
from bus.trips import RAMP, Ramp
from services import roster
from services.daemon import Bus
from services.warden import freeze
from services.warden.freeze import Record, Seen, Step

log = structlog.get_logger()

#: Seconds between two looks without news.
_LOOK_S = 0.5
#: The same for the drill's switch while it is clear: nobody's safety hangs on it.
_REST_S = 5.0
#: Seconds between two looks at the record while the flag, the stream and the record last seen all say that nothing is frozen:
#: only another warden could have written there.
_RECORD_S = 10.0
#: What makes a stream refuse every message and every batch, and drop nothing.
_FROZEN = {"discard": "new", "max_bytes": 1}
#: Who puts the clear of a freeze whose time is over.
BY = "its time being over"


class Roles:
    """What a thaw does to roles; the real switch has some, the drill's has none."""

    def __init__(
        self,
        order: Callable[[], list[str]],
        backlog: Callable[[str, int], int],
        put_back: Callable[[], Awaitable[int]],
        turn: Callable[[], Awaitable[None]],
    ) -> None:
        #: Roles, the cheapest risk first.
        self.order = order
        #: What of a role was asked up to a sequence and is not claimed yet, and may be.
        self.backlog = backlog
        #: Puts back the claims of holders that are gone: how many.
        self.put_back = put_back
        #: Turns the valves to what is wanted now.
        self.turn = turn


class Freezer:
    """Looks after one kill switch."""

    def __init__(self, bus: Bus, switch: Switch, roles: Roles | None = None) -> None:
        self._bus = bus
        self._switch = switch
        self._roles = roles
        self._record = Record()
        self._read_to = 0
        #: Loop time of the next look at the record of a switch that is clear.
        self._read_at = 0.0
        #: Roles that the present thaw has released; None when nothing is withheld.
        self._released: set[str] | None = None
        #: Of the role that a ramp is at: the sequence up to which its backlog goes, and the loop time to wait for it.
        self._ramping: tuple[str, int, float] = ("", 0, 0.0)
        #: Roles that a ramp is through with.
        self._climbed: set[str] = set()
        #: Set when the switch was looked at for the first time: before that nobody knows what it withholds.
        self.known = asyncio.Event()
        self._put_back: dict[str, int] = {}
        #: True: guards keep still, because nothing may be written or nothing is settled yet.
        self.standstill = True

    def withholds(self, role: str) -> bool:
        """Whether the switch, or a thaw that has not come to it yet, keeps a role closed."""
        return self._state.frozen or (self._released is not None and role not in self._released)

    @property
    def _state(self) -> flags.KillSwitch:
        gate = self._bus.gate
        return gate.switch if self._switch is flags.REAL else gate.drill

    async def run(self) -> None:
        """For ever."""
        while True:
            try:
                while await self.look() not in {Step.NOTHING, Step.WAIT}:
                    pass
            except errors.BusError as exc:
                log.warning("freezer_waits", switch=self._switch.soft, error=str(exc), again_s=_LOOK_S)
            rests = self._switch is not flags.REAL and not (self._state.frozen or self._record.stands)
            await self._bus.gate.changed(_REST_S if rests else _LOOK_S)

    async def look(self) -> Step:
        """Look once and do what is next: what that was."""
        if self._bus.gate.stale or (self._state.frozen and not self._state.id):
            self.standstill = True
            return Step.NOTHING  # heard, or unreadable: not known yet
        seen = await self._see()
        now = self._bus.author.now()
        step = freeze.decide(seen, now)
        self._keep_still(seen, step)
        match step:
            case Step.FREEZE:
                await self._set_stream(_FROZEN)
                log.warning("stream_frozen", stream=self._switch.stream)
            case Step.RECORD:
                await self._close()
                await self._record_freeze(seen)
            case Step.CHANGE:
                state = seen.switch
                await self._write(ev.Changed(mode=state.mode.value, why=state.problem, by=state.by))
            case Step.MISS:
                missing = tuple(sorted(freeze.late(seen, now)))
                await self._write(ev.Missing(instances=missing, waited_s=freeze.RECEIPT_S))
                log.error("receipts_missing", instances=missing)
            case Step.CLEAR:
                value = flags.clear(reason="its time is over", by=BY)
                await self._bus.bucket(flags.BUCKET).put(self._switch.soft, value)
                await self._bus.gate.changed(_LOOK_S)  # which has to read it first
            case Step.THAW:
                await self._thaw(seen)
            case Step.RELEASE:
                return await self._release(seen, now)
            case _:
                pass
        return step

    def _keep_still(self, seen: Seen, step: Step) -> None:
        if seen.switch.frozen or step in {Step.THAW, Step.WAIT}:
            self.standstill = True
            self._released = set()
            self._ramping, self._climbed = ("", 0, 0.0), set()
        elif step is Step.RELEASE and self._released is None:
            self._released = set()
        elif step is Step.NOTHING:
            self.standstill = False
            self._released = None
        self.known.set()

    async def _see(self) -> Seen:
        """What there is to see: of a clear switch, twice a second and for ever, no more than the stream."""
        bus, state = self._bus, self._state
        config = await self._config()
        stream_frozen = config.get("discard") == "new" and config.get("max_bytes") == 1
        now = asyncio.get_running_loop().time()
        if state.frozen or stream_frozen or self._record.stands or now >= self._read_at:
            await self._read()
            self._read_at = now + _RECORD_S
        if not (state.frozen or stream_frozen or self._record.stands):
            return Seen(switch=state, stream_frozen=False, record=self._record, alive={})
        beats = await bus.liveness.all()
        return Seen(
            switch=state,
            stream_frozen=stream_frozen,
            record=self._record,
            alive={beat.boot_id: beat.instance for beat in beats},
            silent=await roster.unaccounted(self._bus, beats) if state.frozen else {},
            since={beat.boot_id: beat.started_at for beat in beats},
            runners=frozenset(
                beat.boot_id for beat in beats if beat.daemon == "agent_runner" and self._roles is not None
            ),
        )

    async def _config(self) -> dict[str, Any]:
        config: dict[str, Any] = (await self._bus.connection.api(f"STREAM.INFO.{self._switch.stream}"))["config"]
        return config

    async def _set_stream(self, change: dict[str, Any]) -> None:
        config = await self._config() | change
        await self._bus.connection.api(f"STREAM.UPDATE.{self._switch.stream}", config, timeout=15)

    async def _close(self) -> None:
        self._released = set()
        if self._roles is not None:
            await self._clear_ramp()
            await self._roles.turn()

    async def _record_freeze(self, seen: Seen) -> None:
        # The sequence is read after the server has begun to refuse: nothing may follow it.
        info = await self._bus.connection.api(f"STREAM.INFO.{self._switch.stream}")
        state = seen.switch
        event = ev.Frozen(
            mode=state.mode.value,
            seq=info["state"]["last_seq"],
            reason=state.reason or state.text,
            by=state.by,
            until=state.until,
            owe=tuple(sorted({*seen.alive.values(), *seen.silent.values()})),
        )
        await self._write(event, state.id)
        log.warning("frozen", freeze=state.id, mode=state.mode.value, seq=event.seq, reason=event.reason)

    async def _thaw(self, seen: Seen) -> None:
        if seen.record.stands and seen.record.thawing_at is None:
            # Counted and written while the server still refuses: what is settled afterwards is none of the freeze's.
            info = await self._bus.connection.api(f"STREAM.INFO.{self._switch.stream}")
            state = seen.switch
            await self._write(
                ev.Thawing(seq=info["state"]["last_seq"], reason=state.reason, by=state.by, ramp=state.ramp)
            )
        if seen.stream_frozen:
            declared = next(s.config for s in topology.streams() if s.name == self._switch.stream)
            await self._set_stream({field: declared.get(field, -1) for field in _FROZEN})
        log.warning("thawing", freeze=seen.record.id)

    async def _release(self, seen: Seen, now: datetime) -> Step:
        record = seen.record
        if self._roles is not None:
            if record.id not in self._put_back:
                count = await self._roles.put_back()
                if self._state.frozen:
                    return Step.WAIT  # thrown again meanwhile: the next look freezes
                self._put_back[record.id] = count
            self.standstill = False
            opened = await self._open_roles(seen)
            if self._state.frozen or not opened:
                return Step.WAIT
            await self._clear_ramp()
        self._released = None
        written = await self._written(record)
        frozen_s = (now - record.frozen_at).total_seconds() if record.frozen_at is not None else 0.0
        put_back = self._put_back.pop(record.id, 0)
        await self._write(ev.Thawed(frozen_s=round(frozen_s, 3), written=written, put_back=put_back))
        log.warning("thawed", freeze=record.id, frozen_s=round(frozen_s, 3), put_back=put_back)
        return Step.RELEASE

    async def _open_roles(self, seen: Seen) -> bool:
        """Open the roles, with a ramp one after the other: whether all are open, and the backlog of a ramp is gone."""
        roles, ramp = self._roles, seen.switch.ramp
        assert roles is not None
        assert self._released is not None
        if ramp is not None:
            share = Ramp(per_second=ramp / max(1, len(seen.runners)))
            if self._bus.gate.ramp_put != share.per_second:
                await self._bus.trips.bucket.put(RAMP, msgspec.json.encode(share))
        for role in roles.order():
            if self._state.frozen:
                return False
            if role not in self._released:
                self._released.add(role)
                await roles.turn()
                log.info("role_released", role=role)
            if ramp is not None and await self._climbs(role, roles, ramp):
                return False
        return True

    async def _climbs(self, role: str, roles: Roles, ramp: float) -> bool:
        """Whether a role's backlog of before its release is still being claimed at the ramp's rate."""
        now = asyncio.get_running_loop().time()
        if self._ramping[0] != role:
            if role in self._climbed:
                return False
            info = await self._bus.connection.api(f"STREAM.INFO.{self._switch.stream}")
            seq = int(info["state"]["last_seq"])
            # What never comes to be claimed (nobody serves the role) must not hold up the roles behind it for ever.
            self._ramping = (role, seq, now + 2 * roles.backlog(role, seq) / ramp + freeze.SETTLE_S)
        _, seq, until = self._ramping
        left = roles.backlog(role, seq)
        if left > 0 and now < until:
            return True
        if left > 0:
            log.warning("role_not_ramped", role=role, left=left, action="going on with the next role")
        self._climbed.add(role)
        self._ramping = ("", 0, 0.0)
        return False

    async def _clear_ramp(self) -> None:
        await self._bus.trips.clear(RAMP)

    async def _written(self, record: Record) -> int:
        """Events between the freeze and the thaw: counted in the stream."""
        thawing = await self._bus.store.last(CONTROL, f"ctl.freeze.{record.id}.thawing")
        return 0 if thawing is None or thawing.data is None else max(0, thawing.data.seq - record.seq)

    async def _write(self, event: Any, id_: str = "") -> None:
        bus = self._bus
        await bus.store.append(bus.author.control(id_ or self._record.id, event))
        await self._read()

    async def _read(self) -> None:
        """Fold what CONTROL says of this switch since the last look."""
        async for recorded in self._bus.store.read(CONTROL, "ctl.freeze.*.*", start=self._read_to + 1):
            self._read_to = recorded.seq
            if recorded.data is not None:
                self._record = evolve(self._record, recorded, self._switch.letter)


def evolve(record: Record, recorded: Recorded, letter: str) -> Record:
    """What CONTROL says of a switch's last freeze, after one more event. Pure."""
    id_ = recorded.subject.split(".")[2]
    data = recorded.data
    if not id_.startswith(letter):
        return record
    if isinstance(data, ev.Frozen):
        return Record(id=id_, mode=data.mode, seq=data.seq, frozen_at=recorded.stored_at, stopped=_stopped(record, id_))
    if isinstance(data, ev.Receipt) and id_ != record.id and data.stage is ev.Stage.FREEZE:
        # A daemon that was quicker than the server layer: the freeze is not on the record yet.
        return msgspec.structs.replace(record, early=record.early | {(id_, data.boot_id)})
    if id_ != record.id:
        return record
    match data:
        case ev.Changed():
            return msgspec.structs.replace(record, mode=data.mode, why=data.why)
        case ev.Missing():
            return msgspec.structs.replace(record, missing=record.missing | set(data.instances))
        case ev.Receipt(stage=ev.Stage.FREEZE):
            return msgspec.structs.replace(record, stopped=record.stopped | {data.boot_id})
        case ev.Receipt():
            return msgspec.structs.replace(record, settled=record.settled | {data.boot_id})
        case ev.Thawing():
            return msgspec.structs.replace(record, thawing_at=recorded.stored_at)
        case ev.Thawed():
            return msgspec.structs.replace(record, thawed=True)
        case _:
            return record


def _stopped(record: Record, id_: str) -> frozenset[str]:
    return frozenset(boot for early, boot in record.early if early == id_)

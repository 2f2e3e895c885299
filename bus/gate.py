"""The gate that every write passes: whether the kill switch, or a standing trip, refuses it right now.

One gate for each connection. It hears of a flag the moment it is put (a plain subscription) and confirms it by reading the
flags from their stream once a second. What was heard can only freeze: a publish that the stream then refused is heard too,
so a clear counts when it has been read. Without a confirmed look for :data:`STALE_S` it refuses, because nobody can say
that the switch is clear. What stays writable is :data:`ALWAYS`, and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from datetime import UTC, datetime

import msgspec
import structlog
from nats.aio.subscription import Subscription

from bus import errors, flags, trips, wire
from bus.bucket import Bucket
from bus.connection import Connection
from bus.flags import DRILL, REAL, KillSwitch, Mode, Switch
from bus.refusal import GuardRefused, Reason, Refusal
from bus.store import Store

log = structlog.get_logger()

#: Seconds without a confirmed look at the flags after which writes are refused.
STALE_S = 5.0
#: Seconds between two looks.
_LOOK_S = 1.0
#: Seconds that a look may take: short enough that a second one fits before the first one's belief ends.
_ANSWER_S = 1.5
#: What may be written in a freeze, by the beginning of its subject: people's flags, heartbeats, standing trips, the record
#: (receipts, guards, incidents, what people did), counters that follow the log, the copies of dead letters, acknowledgements
#: and requests to the server.
ALWAYS = ("$KV.flags.", "$KV.liveness.", "$KV.trips.", "ctl.", "spend.", "dlq.", "$JS.ACK.", "$JS.API.", "_INBOX.")
#: The same for people, in a refusal.
ALLOWED = "flags, heartbeats, receipts, guard and incident events, settling of spend, acknowledgements, every read"
#: What the drill switch stops, and nothing else does.
_DRILLED = "drill."


class Gate:
    """Whether writes may go out. Open it before use; a gate that was never opened refuses."""

    def __init__(
        self, connection: Connection, store: Store, bucket: Callable[[str], Bucket], *, also: tuple[str, ...] = ()
    ) -> None:
        self._connection = connection
        self._store = store
        self._flags = bucket(flags.BUCKET)
        self._trips = bucket(trips.BUCKET)
        #: Beginnings of subjects that may pass in a freeze: a person's own tools have more of them.
        self.passes = (*ALWAYS, *also)
        self.switch = KillSwitch()
        self.drill = KillSwitch()
        #: Standing trips, by key of the bucket ``trips``.
        self.trips: dict[str, Refusal] = {}
        #: The ramp of a thaw as the warden has put it for each runner; None while none stands.
        self.ramp_put: float | None = None
        #: The one that a clear has asked for, until the warden's is there: what is in hand already must not go first.
        self._ramp_asked: float | None = None
        #: Called (without arguments) after each change of a switch or the trips.
        self.listeners: list[Callable[[], None]] = []
        #: How often a switch or the trips have changed: for those who must not miss a change while they act on another.
        self.changes = 0
        self._loop = asyncio.get_running_loop()
        #: Loop time until which the last confirmed look is believed.
        self._believed_until = 0.0
        self._why = "the flags were never read"
        self._seen: dict[str, tuple[int, ...]] = {}
        #: The flags' stream as it was before the last whole look at them.
        self._state = (-1, -1)
        self._nudged = asyncio.Event()
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._heard: Subscription | None = None

    async def open(self) -> None:
        """Read the flags and trips once, then keep watching."""
        self._heard = await self._connection.nc.sink("$KV.flags.>", self._hear)
        # A question that went down with the server is asked again as soon as it is back, not a second later: two in a row, and
        # writes would be refused although the server is there.
        self._connection.on_back.add(self._nudged.set)
        await self._look(STALE_S)
        await self._read_trips()
        self._tasks = [
            asyncio.create_task(self._look_for_ever(), name="gate_flags"),
            asyncio.create_task(self._watch_trips(), name="gate_trips"),
        ]

    async def close(self) -> None:
        """Stop watching."""
        self._connection.on_back.discard(self._nudged.set)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._heard is not None:
            await self._connection.nc.unsink(self._heard)

    @property
    def stale(self) -> bool:
        """The flags could not be read for too long."""
        return self._loop.time() > self._believed_until

    @property
    def closed(self) -> bool:
        """Writes are refused right now: frozen, or not verified."""
        return self.switch.frozen or self.stale

    @property
    def ramp(self) -> float | None:
        """Invocations a second that this process may claim after a thaw; None for no bound."""
        return self.ramp_put if self.ramp_put is not None else self._ramp_asked

    async def opened(self) -> None:
        """Wait until writes may go out."""
        while self.closed:
            await self.changed(_LOOK_S)

    async def changed(self, seconds: float) -> None:
        """Wait for the next change of a switch or the trips, at most so long."""
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return

    def check(self, subject: str) -> None:
        """Pass if a message may be written to a subject.

        Raises:
            GuardRefused: it may not; the refusal says why and until when.
        """
        if not self.switch.frozen and self._loop.time() <= self._believed_until and not self.drill.frozen:
            return
        if subject.startswith(self.passes):
            return
        if subject.startswith(_DRILLED):
            if self.drill.frozen:
                raise GuardRefused(_of_switch(self.drill, "drill"))
            return
        if self.closed:
            raise GuardRefused(self._closed())

    def refusal(self, *, role: str = "", root: str = "") -> Refusal | None:
        """Why work may not go on: the switch first, then the trips that cover a ``project/role`` or a run tree."""
        if self.closed:
            return self._closed()
        if root and (found := self.trips.get(trips.tree_key(root))) is not None:
            return found
        if not role:
            return None
        now = datetime.now(UTC)
        return next((trip for trip in self.trips.values() if trip.covers(role) and trip.stands(now)), None)

    def _closed(self) -> Refusal:
        if self.switch.frozen:
            return _of_switch(self.switch, "system")
        return Refusal(
            reason=Reason.UNVERIFIED_FLAG,
            scope="system",
            because=f"the kill switch could not be read for {STALE_S:g} s ({self._why})",
            clears="the server",
            command="systems status",
            allowed="reads, where the server answers",
        )

    def know(self, key: str, refusal: Refusal | None) -> None:
        """Heed a trip that this process has put or cleared itself, before the watch brings it."""
        if refusal is None:
            self.trips.pop(key, None)
        else:
            self.trips[key] = refusal
        self._tell()

    def _hear(self, subject: str, _reply: str, payload: bytes, block: bytes | None) -> None:
        """A flag is being put: freeze at once if that is what it says, and look what was stored."""
        key = subject.removeprefix("$KV.flags.")
        for switch in (REAL, DRILL):
            if key not in {switch.soft, switch.hard} or block is not None:
                continue  # a mark that it is gone has headers, and changes no mode
            flag = flags.parse(payload)
            state = self.switch if switch is REAL else self.drill
            if flag.frozen and not state.frozen:
                mode = Mode.HARD if key == switch.hard else Mode.SOFT
                heard = KillSwitch(
                    mode=mode, since=datetime.now(UTC), reason=flag.reason, by=flag.by, problem=flag.problem
                )
                self._set(switch, heard)
        self._nudged.set()

    async def _look_for_ever(self) -> None:
        while True:
            try:
                async with asyncio.timeout(_LOOK_S):
                    await self._nudged.wait()
            except TimeoutError:
                pass
            self._nudged.clear()
            was_closed = self.closed
            await self._look()
            if self.closed != was_closed:
                self._tell()

    async def _look(self, limit_s: float = _ANSWER_S) -> None:
        """Read the flags; a look that fails believes nothing new."""
        begun = self._loop.time()
        try:
            # A question that went down with the server must not use up the time for which the last answer is believed.
            async with asyncio.timeout(limit_s):
                state = await self._state_of_flags()
                if state != self._state or not (_known(self.switch) and _known(self.drill)):
                    for switch in (REAL, DRILL):
                        await self._look_at(switch)
                    self._state = state
        except TimeoutError:
            self._why = f"expected an answer within {limit_s:g} s, got none"
            return
        except errors.ServerError as exc:
            if exc.code != wire.Code.STREAM_NOT_FOUND or not await self._nothing_to_freeze():
                self._why = str(exc)
                return
        except errors.BusError as exc:
            self._why = str(exc)
            return
        self._believed_until = begun + STALE_S

    async def _state_of_flags(self) -> tuple[int, int]:
        """Last sequence and number of messages of the flags: while both stay, so does every flag. One question, not one a flag."""
        state = (await self._connection.api(f"STREAM.INFO.{self._flags.stream}"))["state"]
        return state["last_seq"], state["messages"]

    async def _look_at(self, switch: Switch) -> None:
        last = [await self._flags.latest(key) for key in (switch.soft, switch.hard) if key]
        revisions = tuple(entry.revision if entry is not None else 0 for entry in last)
        known = self.switch if switch is REAL else self.drill
        if self._seen.get(switch.soft) == revisions and _known(known):
            return
        if switch.soft not in self._seen and any(entry is not None and entry.gone for entry in last):
            known = await self._of_record(switch)
        before = known if _known(known) else KillSwitch()
        state = await flags.kill_switch(self._flags, switch, before)
        self._seen[switch.soft] = revisions
        if state.problem and state.problem != known.problem:
            log.info("kill_switch_flag", mode=state.mode.value, problem=state.problem)
        if state != known:
            self._set(switch, state)

    async def _of_record(self, switch: Switch) -> KillSwitch:
        """What the record says a switch was, when its flag is gone and with it what it said."""
        last = await self._store.last("CONTROL", "ctl.freeze.*.*")
        if last is None or last.data is None:
            return KillSwitch()
        _, _, id_, event = last.subject.split(".")
        if not id_.startswith(switch.letter) or event == "thawed":
            return KillSwitch()
        frozen = await self._store.last("CONTROL", f"ctl.freeze.{id_}.frozen")
        if frozen is None or frozen.data is None or event == "thawing":
            return KillSwitch()
        said = frozen.data
        return KillSwitch(mode=Mode(said.mode), since=frozen.stored_at, reason=said.reason, by=said.by, id=id_)

    async def _nothing_to_freeze(self) -> bool:
        """No flags and no log: a bus that is being made."""
        try:
            await self._connection.api(f"STREAM.INFO.{REAL.stream}")
        except errors.ServerError as exc:
            return exc.code == wire.Code.STREAM_NOT_FOUND
        except errors.BusError:
            return False
        return False

    async def _read_trips(self) -> None:
        try:
            for key, entry in (await self._trips.items()).items():
                self._take(key, entry.value)
        except errors.BusError as exc:
            log.info("trips_unread", error=str(exc))

    async def _watch_trips(self) -> None:
        while True:
            try:
                async with aclosing(self._trips.watch()) as entries:
                    async for entry in entries:
                        if entry.gone:
                            self._drop(entry.key)
                        else:
                            self._take(entry.key, entry.value)
                        self._tell()
            except errors.BusError as exc:
                missing = isinstance(exc, errors.ServerError) and exc.code == wire.Code.STREAM_NOT_FOUND
                # A bus that is being made has nothing yet that a trip could refuse: no news for whoever finds it so.
                told = log.info if missing and await self._nothing_to_freeze() else log.warning
                told("trips_unwatched", error=str(exc), again_s=_LOOK_S)
                await asyncio.sleep(_LOOK_S)

    def _take(self, key: str, value: bytes) -> None:
        try:
            if key == trips.RAMP:
                self.ramp_put = msgspec.json.decode(value, type=trips.Ramp).per_second
            else:
                self.trips[key] = msgspec.json.decode(value, type=Refusal)
        except msgspec.DecodeError as exc:
            log.error("trip_unreadable", key=key, error=str(exc), kept="last good")

    def _drop(self, key: str) -> None:
        if key == trips.RAMP:
            self.ramp_put = self._ramp_asked = None
        self.trips.pop(key, None)

    def _set(self, switch: Switch, state: KillSwitch) -> None:
        if switch is REAL:
            if self.switch.frozen or state.frozen:
                self._ramp_asked = state.ramp
            self.switch = state
        else:
            self.drill = state
        self._tell()

    def _tell(self) -> None:
        self.changes += 1
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        for listener in list(self.listeners):
            listener()


def _known(state: KillSwitch) -> bool:
    """Whether it was read: what was only heard has no id."""
    return bool(state.id) or not state.frozen


def _of_switch(switch: KillSwitch, scope: str) -> Refusal:
    hard = switch.mode is Mode.HARD
    said = switch.reason or switch.text
    return Refusal(
        reason=Reason.FROZEN,
        scope=scope,
        because=f"the kill switch is thrown ({switch.mode.value})"
        + (f" by {switch.by}" if switch.by else "")
        + (f": {said}" if said else ""),
        since=switch.since,
        until=switch.until,
        clears="only a person" if hard else "a person",
        command=f"systems thaw {'--hard ' if hard else ''}--reason TEXT",
        allowed=ALLOWED,
    )

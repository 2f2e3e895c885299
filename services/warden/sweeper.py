"""The stuck-claim sweep and the scan of the poison-message breaker, on the live bus.

It follows the log and the heartbeats, and acts within a second or two: claims of a dead holder are swept and handed out
again, or buried when their crashes are spent. It decides nothing by itself: ``holders`` and ``stranded`` say where to
look, ``bus.invocation.decide`` says what may be done, and the fence referees between it and a runner that was quicker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from copy import copy
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import structlog

from bus import errors, invocation, subjects, wire
from bus.events import invocation as ev
from bus.events.message import Rejected
from bus.follower import Follower
from bus.ids import key_id
from bus.invocation import Refused, Status
from bus.store import INVOCATIONS
from services import parked
from services.daemon import Bus
from services.fleet.registry import Registry
from services.warden import stranded, work_file
from services.warden.holders import Holders
from services.warden.reading import LogTrimmed, last, unbroken
from services.warden.work import Open, OpenWork

log = structlog.get_logger()

#: Seconds between two looks at the holders of claims.
_SWEEP_EVERY_S = 0.25
#: Seconds between two scans for stranded work.
_SCAN_EVERY_S = 1.0
#: Seconds between two checkpoints: what a restart reads again is at most this much of the log.
_SAVE_EVERY_S = 10.0
#: Invocations acted on at the same time.
_AT_ONCE = 64
#: Invocations that one scan brings back at most: a question about them has to fit into a message.
_AT_A_SCAN = 10_000


class Sweeper:
    """Follows, looks, acts."""

    def __init__(self, bus: Bus, registry: Registry, folder: Path, still: Callable[[], bool] = lambda: False) -> None:
        """Make it; while `still` says so nothing is taken or given back: a freeze stops the claims' clock."""
        self._still = still
        self._bus = bus
        self._registry = registry
        #: Where the checkpoint is kept.
        self._file = folder / "warden.checkpoint"
        self.work = OpenWork()
        self.holders = Holders()
        self._log = Follower(bus.connection, INVOCATIONS, ["inv.>"])
        self._caught_up = asyncio.Event()
        self._hearing = asyncio.Event()
        self._reports: asyncio.Queue[Rejected] = asyncio.Queue()
        self._since = 0.0
        #: Invocations swept, put back or buried since the start.
        self.acted = 0

    @property
    def lag(self) -> int:
        """Messages of the log that are not folded yet; at least 1 before the first look is over."""
        return self._log.pending if self._caught_up.is_set() else max(1, self._log.pending)

    async def caught_up(self) -> None:
        """Wait until everything is folded that was in the log at the start."""
        await self._caught_up.wait()

    @property
    def last_answer_at(self) -> datetime | None:
        """When the server last said anything about the log."""
        answered = self._log.last_answer_at
        if answered is None:
            return None
        return self._bus.author.now() - timedelta(seconds=asyncio.get_running_loop().time() - answered)

    async def run(self) -> None:
        """For ever."""
        self._since = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_log())
            group.create_task(self._report_for_ever())
            group.create_task(self._follow_heartbeats())
            group.create_task(self._sweep_for_ever())
            group.create_task(self._scan_for_ever())

    async def _follow_log(self) -> None:
        while True:
            try:
                await self._fold_log()
            except LogTrimmed as exc:
                log.warning("log_folded_anew", error=str(exc))
                self._caught_up.clear()

    async def _look_behind(self) -> None:
        await unbroken(self._bus.connection, self._log.position)

    async def _fold_log(self) -> None:
        loop = asyncio.get_running_loop()
        info = await self._bus.connection.api(f"STREAM.INFO.{INVOCATIONS}")
        created, first, end = info["created"], info["state"]["first_seq"], info["state"]["last_seq"]
        target = await last(self._bus.connection)
        self.work = work_file.load(self._file, created, first, end, now=self._bus.author.now(), monotonic=loop.time())
        start = self.work.position = max(self.work.position, first - 1)
        self._log = Follower(self._bus.connection, INVOCATIONS, ["inv.>"], start=start + 1, on_begin=self._look_behind)
        if self.work.position >= target:
            self._caught_up.set()
        saved_at = loop.time()
        async for batch in self._log.batches():
            now, wall = loop.time(), self._bus.author.now()
            for delivery in batch:
                rejected = self.work.take(delivery, now, wall)
                if rejected is not None:
                    self._reports.put_nowait(rejected)
            if not self._caught_up.is_set() and self._log.position >= target:
                # Trimmed while it was read: what was skipped would never be seen to end.
                await unbroken(self._bus.connection, start)
                log.info("log_folded", sequence=self._log.position, unfinished=len(self.work.open))
                self._caught_up.set()
            if loop.time() - saved_at > _SAVE_EVERY_S:
                self._save(created)
                saved_at = loop.time()
            # A long replay must not starve the heartbeat.
            await asyncio.sleep(0)

    def _save(self, created: str) -> None:
        now, monotonic = self._bus.author.now(), asyncio.get_running_loop().time()
        work_file.save(self._file, self.work, created, now=now, monotonic=monotonic)

    async def _report_for_ever(self) -> None:
        """Rubbish is told on the side: a server that takes no event must not keep us from reading on."""
        while True:
            rejected = await self._reports.get()
            try:
                await self._report(rejected)
            except errors.BusError as exc:
                log.warning("rubbish_unreported", subject=rejected.subject, seq=rejected.seq, error=str(exc))

    async def _report(self, rejected: Rejected) -> None:
        log.warning("rubbish_found", subject=rejected.subject, seq=rejected.seq, reason=rejected.reason)
        # The id is derived, so the report of a replay after a restart is the same event and stored once... within the
        # server's duplicate window; beyond it the last event on the subject tells.
        name = f"{rejected.stream}-{rejected.seq}"
        event = self._bus.author.control(name, rejected, event_id=key_id("message.rejected", name))
        if await self._bus.store.last("CONTROL", event.subject) is None:
            await self._bus.store.append(event)

    async def _follow_heartbeats(self) -> None:
        # A watch that is slow to begin must not make everybody look dead.
        for beat in await self._bus.liveness.all():
            self.holders.beat(beat)
        self._since = asyncio.get_running_loop().time()
        self._hearing.set()
        async for sign in self._bus.liveness.watch():
            if sign.heartbeat is not None:
                self.holders.beat(sign.heartbeat)
            else:
                self.holders.gone(sign.boot_id, expired=sign.expired, now=asyncio.get_running_loop().time())

    async def _sweep_for_ever(self) -> None:
        await self._caught_up.wait()
        await self._hearing.wait()
        while True:
            if not self._still():
                await self.sweep()
            await asyncio.sleep(_SWEEP_EVERY_S if self.work.by_holder else _SCAN_EVERY_S)

    async def sweep(self) -> None:
        """Look once for claims of dead holders, and take them."""
        now = asyncio.get_running_loop().time()
        up_since = max(self._since, self._bus.connection.up_since)
        for holder, ids in list(self.work.by_holder.items()):
            reason = self.holders.verdict(holder, now=now, up_since=up_since)
            if reason is not None:
                log.warning("holder_dead", holder=holder, reason=str(reason), claims=len(ids))
                # Copies: a claim that changes hands while its sweep waits for its turn is not the dead one's any more.
                await self._at_once([self._sweep(copy(self.work.open[id_]), reason) for id_ in list(ids)])

    async def put_back(self) -> int:
        """Put the claims of dead holders back at nobody's cost, after a freeze that they did not outlive: how many."""
        await self._caught_up.wait()
        await self._hearing.wait()
        before = self.acted
        while True:
            while self.lag > 0:
                await asyncio.sleep(_SWEEP_EVERY_S)
            now = asyncio.get_running_loop().time()
            up_since = max(self._since, self._bus.connection.up_since)
            held = list(self.work.by_holder)
            dead = [h for h in held if self.holders.verdict(h, now=now, up_since=up_since) is not None]
            items = [copy(self.work.open[id_]) for holder in dead for id_ in list(self.work.by_holder.get(holder, ()))]
            await self._at_once([self._give_back(item) for item in items])
            if self._bus.gate.closed or all(holder in self.holders.alive for holder in held):
                return self.acted - before
            # Of a holder that is silent just after the bus came back nothing is known yet; it will be, within seconds.
            await asyncio.sleep(_SWEEP_EVERY_S)

    async def _give_back(self, item: Open) -> None:
        command = invocation.Release(reason=ev.ReleaseReason.FREEZE, holder=item.holder)
        try:
            await self._bus.invocations.carry_out(
                item.ref, command, self._registry.limits(item.ref.project, item.ref.role)
            )
        except Refused as refused:
            log.info("put_back_not_needed", invocation=item.ref.id, reason=refused.reason.value)
            return
        self.acted += 1
        self._answer(item.reply, wire.ACK)
        log.warning("put_back_after_freeze", invocation=item.ref.id, holder=item.holder)

    async def _sweep(self, item: Open, reason: ev.SweepReason) -> None:
        reply, limits = item.reply, self._registry.limits(item.ref.project, item.ref.role)
        spent = item.delivery >= limits.max_deliver
        try:
            outcome = await self._bus.invocations.carry_out(
                item.ref, invocation.Sweep(holder=item.holder, reason=reason), limits
            )
            if outcome.after.status is Status.QUEUED and spent:
                # The server will not hand it out again: what cannot be delivered must not wait for ever.
                outcome = await self._bus.invocations.carry_out(item.ref, invocation.Bury(), limits)
        except Refused as refused:
            log.info("sweep_not_needed", invocation=item.ref.id, reason=refused.reason.value)
            return
        self.acted += 1
        over = outcome.after.status.ended
        self._answer(reply, wire.ACK if over else wire.nak(0))
        log.warning(
            "swept", invocation=item.ref.id, role=f"{item.ref.project}/{item.ref.role}", reason=str(reason), ended=over
        )

    def _answer(self, reply: str, what: bytes) -> None:
        self._bus.publisher.send(reply, what)

    async def _scan_for_ever(self) -> None:
        await self._caught_up.wait()
        stood = False
        while True:
            await asyncio.sleep(_SCAN_EVERY_S)
            still = self._still()
            stood = stood or still
            if not self._bus.connection.is_up or self.lag > 0 or still:
                # What we have not folded yet may be just the event that we would miss.
                continue
            if stood:
                # What was handed out before or in a freeze has waited for the freeze: its time begins now.
                for item in self.work.open.values():
                    item.handed_at = 0.0
                stood = False
            try:
                await self.scan()
            except errors.BusError as exc:
                log.warning("scan_failed", error=str(exc))

    async def scan(self) -> None:
        """Look once for stranded work, and bring it back."""
        loop = asyncio.get_running_loop()
        unfinished = [key for key, count in self.work.unfinished.items() if count and key[2] is not Status.RUNNING]
        roles = {(project, name) for project, name, _ in unfinished}
        consumers = {role: await self._consumer(*role) for role in roles}
        scheduled = any(status is Status.SCHEDULED for *_, status in unfinished)
        if not scheduled and not any(consumer and consumer.hungry for consumer in consumers.values()):
            # Where all runners have their hands full nothing can be lost; a backlog of a million is not looked through then.
            return
        now = loop.time()
        lost: list[tuple[Open, invocation.Command]] = []
        for item in list(self.work.open.values()):
            consumer = consumers.get((item.ref.project, item.ref.role))
            if not stranded.handed_out(item, consumer):
                item.handed_at = 0.0
            elif not item.handed_at:
                item.handed_at = now
            command = stranded.decide(item, consumer, now)
            if command is not None:
                lost.append((item, command))
        await self._at_once([self._bring_back(*each) for each in await self._really_lost(lost[:_AT_A_SCAN], now)])

    async def _really_lost(
        self, found: list[tuple[Open, invocation.Command]], now: float
    ) -> list[tuple[Open, invocation.Command]]:
        """Without what a runner holds in its hand, because a guard or a ramp does not let it claim yet."""
        waiting = {item.requested_seq for item, _ in found if item.status is not Status.SCHEDULED}
        if not waiting:
            return found
        runners = sum(beat.daemon == "agent_runner" for beat in self.holders.alive.values())
        held = await parked.held(self._bus.connection, waiting, runners)
        for item, _ in found:
            if item.requested_seq in held:
                item.handed_at = now  # asked again when it is due again
        return [each for each in found if each[0].requested_seq not in held]

    async def _bring_back(self, item: Open, command: invocation.Command) -> None:
        limits, lost = self._registry.limits(item.ref.project, item.ref.role), item.requested_seq
        try:
            await self._bus.invocations.carry_out(item.ref, command, limits)
        except Refused as refused:
            log.info("not_stranded", invocation=item.ref.id, reason=refused.reason.value)
            return
        if lost:
            # The lost delivery would hold one of the role's places until its ack_wait.
            consumer = subjects.role_consumer(item.ref.project, item.ref.role)
            self._answer(wire.ack_subject(INVOCATIONS, consumer, lost), wire.ACK)
        self.acted += 1
        log.warning("stranded_put_back", invocation=item.ref.id, command=type(command).__name__)

    async def _consumer(self, project: str, role: str) -> stranded.Consumer | None:
        name = subjects.role_consumer(project, role)
        try:
            return stranded.read(await self._bus.connection.api(f"CONSUMER.INFO.{INVOCATIONS}.{name}"))
        except errors.ServerError as exc:
            if exc.code == wire.Code.CONSUMER_NOT_FOUND:
                return None
            raise

    async def bury(self, seq: int, consumer: str) -> None:
        """The server said that the work item at a sequence is out of deliveries, as far as a consumer goes.

        Raises:
            Unanswered: not now, a freeze stands; ask again.
        """
        if self._still():
            raise errors.Unanswered("a burial in a freeze", 0)
        records = [r async for r in self._bus.store.read(INVOCATIONS, "inv.>", start=seq, limit=1)]
        if not records or records[0].seq != seq:
            return
        ref, _ = subjects.parse_event(records[0].subject)
        if consumer != subjects.role_consumer(ref.project, ref.role):
            # Anybody may have a consumer of his own on the log; what that gives up on is still good work.
            return
        limits = self._registry.limits(ref.project, ref.role)
        state = await self._bus.store.state(ref)
        if state is None or state.status.ended or state.requested_seq != seq:
            return
        try:
            if state.claim is not None:
                sweep = invocation.Sweep(holder=state.claim.holder, reason=ev.SweepReason.ACK_WAIT)
                outcome = await self._bus.invocations.carry_out(ref, sweep, limits)
                if outcome.after.status.ended:
                    return
            await self._bus.invocations.carry_out(ref, invocation.Bury(), limits)
        except Refused as refused:
            log.info("burial_not_needed", invocation=ref.id, reason=refused.reason.value)
            return
        self.acted += 1
        log.warning("buried", invocation=ref.id, role=f"{ref.project}/{ref.role}", reason="deliveries spent")

    async def _at_once(self, work: list[Coroutine[Any, Any, None]]) -> None:
        gate = asyncio.Semaphore(_AT_ONCE)

        async def one(item: Coroutine[Any, Any, None]) -> None:
            async with gate:
                try:
                    await item
                except errors.BusError as exc:
                    # The server takes nothing just now; the next round looks again.
                    log.warning("guard_could_not_act", error=str(exc))

        async with asyncio.TaskGroup() as group:
            for item in work:
                group.create_task(one(item))

"""One role at one runner: deliveries become claims, and claims are handed to an :class:`~services.runner.attempt.Attempt`.

The path of a fresh delivery costs no read: its own sequence is the fence of the claim. Only what was delivered before, or
put back, or lost its fence, is folded from the log first. What is acknowledged here without a claim has ended, or is not
the latest work item of its invocation; JetStream fences appends and not acks, so nothing else may be.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import msgspec
import structlog

from bus import errors, invocation, wire
from bus.events import invocation as ev
from bus.invocation import Invocation, Refused
from bus.invocations import last_id
from bus.puller import Puller
from bus.refusal import GuardRefused
from bus.store import INVOCATIONS, Recorded, fold, read
from bus.subjects import Ref, parse_event, role_consumer
from services.fleet.registry import RegisteredRole
from services.runner.attempt import Attempt
from services.runner.desk import Desk, LeftForLater
from services.runner.handler import Handler
from services.runner.running import Running, Stop

log = structlog.get_logger()

#: Seconds until a role that cannot be counted (no price, no declared maximum) is looked at again.
_RECOUNT_S = 5.0


class Worker:
    """Claims and runs the invocations of one role."""

    def __init__(self, desk: Desk, role: RegisteredRole) -> None:
        self._desk = desk
        self.role = role
        self._handler: Handler | None = None
        self._build_error: Exception | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        # Asking for the running loop costs a system call each time.
        self._loop = asyncio.get_running_loop()
        self.handled = 0
        self.puller = Puller(
            desk.connection,
            INVOCATIONS,
            role_consumer(role.project, role.name),
            capacity=role.role.concurrency,
            on_message=self._take,
            on_lost=self._lost,
        )

    async def open(self) -> None:
        """Build the handler and start pulling."""
        await self._build()
        await self.puller.open()

    async def change(self, role: RegisteredRole) -> None:
        """Work under a new revision from the next claim on; what runs finishes under the one it began with."""
        old = self._handler
        rebuild = role.role.handler != self.role.role.handler or role.role.concurrency != self.role.role.concurrency
        self.role = role
        self.puller.capacity = role.role.concurrency
        if rebuild or old is None:
            await self._build()
            if old is not None:
                self._desk.retire(old, [t for t in self._tasks if not t.done()])

    async def close(self) -> None:
        """Stop pulling and wait for what runs."""
        await self.puller.drain()
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.puller.close()
        if self._handler is not None:
            await self._handler.close()

    async def _build(self) -> None:
        self._build_error = None
        try:
            self._handler = self._desk.build(self.role.role)
        except Exception as exc:  # noqa: BLE001 (a handler module may raise anything; it is reported with each claim)
            self._handler = None
            self._build_error = exc
            log.error("handler_unusable", role=self.role.path, revision=self.role.revision, error=str(exc))

    def _lost(self, why: str) -> None:
        log.warning("consumer_missing", role=self.role.path, why=why, action="waiting for the warden to make it")

    def _take(self, delivery: wire.Delivery) -> None:
        task = self._loop.create_task(self._work(delivery))
        self._tasks.add(task)
        task.add_done_callback(self._worked)

    def _worked(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self.puller.done()
        if not task.cancelled() and (exc := task.exception()) is not None:
            # Nothing was acknowledged, so the work comes back by ack_wait or by the warden's scan.
            log.error("work_broke_off", role=self.role.path, error=repr(exc), exc_info=exc)

    async def _work(self, delivery: wire.Delivery) -> None:
        stored_at = datetime.fromtimestamp(delivery.stored_ns / 1e9, UTC)
        record = read(delivery.seq, delivery.subject, stored_at, delivery.data)
        if not isinstance(record.data, ev.Requested):
            # Kept in the stream and reported by the warden, who sees all of it; here it is stepped over.
            log.warning("rubbish_stepped_over", subject=delivery.subject, seq=delivery.seq, problem=record.problem)
            self._acknowledge(delivery)
            return
        ref, _ = parse_event(delivery.subject)
        gate = self._desk.gate
        guarded = gate.closed or gate.trips or gate.ramp is not None
        if guarded and not await self._admitted(ref, delivery, record.data):
            return
        if self._desk.draining:
            await self._put_back(ref, delivery)
            return
        try:
            running = await self._claim(ref, delivery, record)
        except LeftForLater:
            return
        if running is None:
            return
        attempt = Attempt(self._desk, running, self._build_error)
        try:
            if self._desk.draining:
                # The drain began while the claim was being written: nothing has begun that would need a grace.
                running.stop_reason = Stop.DRAIN
                await attempt.stopped(None)
            else:
                await attempt.run()
        finally:
            self._desk.keeper.remove(running)
        self.handled += attempt.handled

    async def _admitted(self, ref: Ref, delivery: wire.Delivery, request: ev.Requested) -> bool:
        """Wait, parked, until a guard lets the work be claimed: False when it is not to be claimed at all."""
        desk, root = self._desk, request.root or ref.id
        async with desk.parking.parked(delivery, self.role.role.ack_wait):
            while True:
                refusal = desk.gate.refusal(role=self.role.path, root=root)
                if refusal is None:
                    await desk.turns.turn()
                    if desk.gate.refusal(role=self.role.path, root=root) is None:
                        return True
                    continue  # something was thrown while it waited for its turn
                if refusal.scope.startswith("tree ") and not desk.gate.closed:
                    await self._bury(ref, delivery)
                    return False
                if desk.draining:
                    # Where nothing may be written it comes again when its time at the server is over.
                    return not desk.gate.closed
                await desk.gate.changed(1.0)

    async def _bury(self, ref: Ref, delivery: wire.Delivery) -> None:
        """Give up on work of a run tree that was stopped: a person may redrive it."""
        command = invocation.Bury(reason=ev.DeathReason.TREE_STOPPED)
        try:
            await self._desk.invocations.carry_out(ref, command, self.role.limits)
        except Refused as refused:
            log.info("burial_not_needed", invocation=ref.id, reason=refused.reason.value)
        self._acknowledge(delivery)

    async def _claim(self, ref: Ref, delivery: wire.Delivery, record: Recorded) -> Running | None:
        """Append the claim; None when there is nothing (left) to do here."""
        # What the claim names is what the work is done with, whatever is registered meanwhile.
        role, handler = self.role, self._handler
        prompt = self._desk.registry.prompt(role.role)
        command = invocation.Claim(
            holder=self._desk.boot_id,
            runner=self._desk.runner,
            delivery=delivery.delivery,
            reply=delivery.reply,
            registry_revision=role.revision,
            prompt_digest=prompt.digest if prompt else "",
        )
        fresh = delivery.delivery == 1 and record.data.generation == 0
        hold: ev.Hold | None = None
        if self._desk.quota.covers(role):
            text = prompt.text if prompt else ""
            hold = self._desk.quota.reserve_now(role, ref, record.data, text)
            if hold is None:
                hold = await self._reserve(ref, delivery, record.data, text)
            command = msgspec.structs.replace(command, hold=hold)
        try:
            running = await self._claimed(ref, delivery, role, command, record, fresh=fresh)
        except BaseException:
            self._give_back(hold)
            raise
        if running is None:
            self._give_back(hold)
        else:
            running.handler, running.prompt = handler, prompt.text if prompt else ""
        return running

    def _give_back(self, hold: ev.Hold | None) -> None:
        if hold is not None:
            self._desk.quota.give_back(hold)

    async def _reserve(self, ref: Ref, delivery: wire.Delivery, request: ev.Requested, prompt: str) -> ev.Hold | None:
        """Reserve, parked, for as long as it takes. None: no cap covers the role any more.

        Raises:
            LeftForLater: there is nothing to claim: this runner ends, or the run tree was stopped.
        """
        desk, task = self._desk, asyncio.current_task(self._loop)
        assert task is not None
        desk.reserving.add(task)
        try:
            async with desk.parking.parked(delivery, self.role.role.ack_wait):
                while True:
                    try:
                        return await desk.quota.reserve(self.role, ref, request, prompt)
                    except GuardRefused as exc:
                        if exc.refusal.scope.startswith("tree "):
                            await self._bury(ref, delivery)
                            raise LeftForLater from exc
                        log.warning("cannot_be_counted", role=self.role.path, reason=str(exc))
                        await desk.gate.changed(_RECOUNT_S)
        except asyncio.CancelledError:
            if not desk.draining:
                raise
            task.uncancel()
        finally:
            desk.reserving.discard(task)
        await self._put_back(ref, delivery)
        raise LeftForLater

    async def _claimed(
        self,
        ref: Ref,
        delivery: wire.Delivery,
        role: RegisteredRole,
        command: invocation.Claim,
        record: Recorded,
        *,
        fresh: bool,
    ) -> Running | None:
        """Decide and append, until there is a claim or a reason against it."""
        while True:
            records = [record] if fresh else await self._desk.store.history(ref)
            state = fold(records)
            if state is None or state.requested_seq != delivery.seq:
                self._acknowledge(delivery)
                return None
            if self._still_ours(ref, state):
                return None
            try:
                decided = invocation.decide(state, command, role.limits, self._desk.author.now())
            except Refused as refused:
                if refused.reason is not invocation.Misfit.HELD:
                    self._acknowledge(delivery)
                return None
            try:
                return await self._hold(ref, delivery, role, state, decided, last_id(records))
            except errors.SequenceConflict:
                fresh = False

    def _still_ours(self, ref: Ref, state: Invocation) -> bool:
        """Whether this runner is at work on it: then its renewals came too late for the server, and nothing else is wrong.

        What is told to the server for the first delivery counts for this one too.
        """
        held = self._desk.keeper.running.get(ref.id)
        now = self._desk.monotonic()
        if held is None or held.state.claim != state.claim or not held.holds(now):
            return False
        log.warning("delivered_again_while_at_work", invocation=ref.id, role=self.role.path)
        held.renew(now)
        return True

    async def _hold(
        self,
        ref: Ref,
        delivery: wire.Delivery,
        role: RegisteredRole,
        state: Invocation,
        decided: list[ev.InvocationEvent],
        cause: str,
    ) -> Running | None:
        try:
            written = await self._desk.append(
                ref, state, decided, cause, refused=lambda: self._desk.parking.park(delivery, role.role.ack_wait)
            )
        finally:
            self._desk.parking.release(delivery)
        state = written.state
        if state.status is not invocation.Status.RUNNING:
            # Its crashes were spent before we could begin: buried instead of claimed.
            log.warning("dead_lettered", invocation=ref.id, role=role.path, reason=decided[-1])
            self._acknowledge(delivery)
            return None
        running = Running(self._desk, ref, role, delivery, state, written.cause, self._desk.monotonic())
        running.task = asyncio.current_task(self._loop)
        self._desk.keeper.add(running)
        return running

    async def _put_back(self, ref: Ref, delivery: wire.Delivery) -> None:
        """What arrives while we drain goes back to the queue, at nobody's cost."""
        records = await self._desk.store.history(ref)
        state = fold(records)
        if state is not None and state.requested_seq == delivery.seq:
            command = invocation.Release(reason=ev.ReleaseReason.DRAIN)
            try:
                await self._desk.invocations.carry_out(ref, command, self.role.limits, records=records)
            except Refused as refused:
                log.info("drained_delivery_dropped", invocation=ref.id, reason=refused.reason.value)
                if refused.reason is invocation.Misfit.HELD:
                    # An acknowledgement would end the holder's delivery.
                    return
        self._acknowledge(delivery)

    def _acknowledge(self, delivery: wire.Delivery) -> None:
        self._desk.answer(delivery.reply, wire.ACK)

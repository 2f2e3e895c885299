"""One role at one runner: deliveries become claims, claims become results.

The path of a fresh delivery costs no read: its own sequence is the fence of the claim. Only what was delivered before, or
put back, or lost its fence, is folded from the log first. Every result is appended under the claim's fence and only then
acknowledged, because JetStream fences appends and not acks: of a zombie's result and the rescuer's, one is refused.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import msgspec
import structlog

from bus import errors, invocation, wire
from bus.events import invocation as ev
from bus.invocation import Invocation, Refused
from bus.invocations import Written, last_id
from bus.puller import Puller
from bus.store import INVOCATIONS, Append, Recorded, fold, read
from bus.subjects import Ref, parse_event, role_consumer
from services.fleet.registry import RegisteredRole
from services.fleet.schema import InputMismatch, NotJson
from services.requests.requests import Ask, RequestRefused
from services.runner import failure
from services.runner.backoff import delay
from services.runner.desk import Desk
from services.runner.handler import Context, FollowUp, Handler, Permanent, Result
from services.runner.running import Environment, Running, Stop

log = structlog.get_logger()

_T = TypeVar("_T")

#: Requests that a completion may carry: a batch holds 1,000 messages, and the completion is one of them.
FOLLOW_UP_LIMIT = 900
#: Seconds until an append is tried again that the server refused for reasons of its own.
_AGAIN_S = 1.0
#: Seconds that a retry waits at most, whatever its error asks for: more than that no calendar may hold.
_LONGEST_WAIT_S = 30 * 86400.0
#: Bytes of output that an event holds; a larger one goes to the artifacts.
OUTPUT_LIMIT = 256 * 1024


class _KeyTaken(Exception):
    """The claim's fence held, and that of a keyed follow-up did not."""


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
        if self._desk.draining:
            await self._put_back(ref, delivery)
            return
        running = await self._claim(ref, delivery, record)
        if running is None:
            return
        try:
            if self._desk.draining:
                # The drain began while the claim was being written: nothing has begun that would need a grace.
                running.stop_reason = Stop.DRAIN
                await self._stopped(running, None, None)
            else:
                await self._run(running)
        finally:
            self._desk.keeper.remove(running)

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
                if refused.reason is not invocation.Refusal.HELD:
                    self._acknowledge(delivery)
                return None
            try:
                running = await self._hold(ref, delivery, role, state, decided, last_id(records))
            except errors.SequenceConflict:
                fresh = False
                continue
            if running is not None:
                running.handler, running.prompt = handler, prompt.text if prompt else ""
            return running

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
        written = await self._write(ref, state, decided, cause)
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

    async def _run(self, running: Running) -> None:
        context: Context | None = None
        try:
            if running.handler is None:
                raise Permanent(str(self._build_error)) from self._build_error  # noqa: TRY301 (told apart below like any error)
            context = await self._context(running)
            result = await running.handler(context)
            if running.stop_reason is None:
                # A drain that comes while the result is stored must not cost it.
                running.settling = True
                await self._complete(running, context, result)
                return
            await self._stopped(running, context, None)
        except asyncio.CancelledError as stop:
            if running.stop_reason is None:
                raise
            task = asyncio.current_task()
            while task is not None and task.uncancel() > 0:
                pass
            await self._stopped(running, context, stop)
        except errors.SequenceConflict:
            await self._fence_lost(running)
        except Exception as exc:  # noqa: BLE001 (whatever a handler raises is its result)
            await self._fail(running, context, exc)

    async def _context(self, running: Running) -> Context:
        request = running.state.request
        raw = request.input
        if request.input_ref is not None:
            raw = msgspec.Raw(await self._desk.artifacts.get(request.input_ref))
        return Context(
            ref=running.ref,
            input=raw,
            attempt=running.state.claim.attempt if running.state.claim else 1,
            prompt=running.prompt,
            environment=Environment(self._desk, running),
            progress=running.progress,
            request=running.request,
            artifact=running.artifact,
        )

    async def _complete(self, running: Running, context: Context, result: Result) -> None:
        output, output_ref = result.output, None
        if len(bytes(output)) > OUTPUT_LIMIT:
            content = bytes(output)
            output_ref = await self._insist(
                running.ref, lambda: running.artifact("output.json", content, "application/json")
            )
            output = ev.EMPTY
        while True:
            try:
                await self._hand_in(running, context, result, output, output_ref)
                break
            except _KeyTaken:
                # Somebody asked with a follow-up's key just now: another look finds that invocation.
                continue
        self._acknowledge(running.delivery)
        self.handled += 1

    async def _hand_in(
        self, running: Running, context: Context, result: Result, output: msgspec.Raw, output_ref: ev.ArtifactRef | None
    ) -> None:
        follow_ups: list[Append] = []
        if result.follow_ups:
            follow_ups = await self._insist(running.ref, lambda: self._follow_ups(running, result.follow_ups))
        command = invocation.Complete(
            holder=self._desk.boot_id,
            delivery=running.delivery.delivery,
            output=output,
            output_ref=output_ref,
            usage=context.spent + result.usage,
            duration_ms=self._elapsed(running),
            follow_ups=tuple(parse_event(item.event.subject)[0].id for item in follow_ups),
            artifacts=tuple(dict.fromkeys((*context.kept, *result.artifacts))),
            tail=result.tail,
        )
        await self._settle(running, command, follow_ups)

    async def _follow_ups(self, running: Running, wanted: tuple[FollowUp, ...]) -> list[Append]:
        if len(wanted) > FOLLOW_UP_LIMIT:
            raise Permanent(
                f"expected at most {FOLLOW_UP_LIMIT} follow-up requests from one completion, got: {len(wanted):,}; "
                "let a follow-up ask for the rest"
            )
        drafts: list[Append] = []
        for follow_up in wanted:
            ask = Ask(
                role=follow_up.role,
                input=follow_up.input,
                idempotency_key=follow_up.idempotency_key,
                asker=running.asker,
            )
            try:
                draft = await self._desk.requests.draft(ask)
            except (RequestRefused, errors.UnknownName, errors.BadSubject, InputMismatch, NotJson) as exc:
                raise Permanent(f"a follow-up request was refused: {exc}") from exc
            if ask.idempotency_key and (
                # In one batch the server would take both: each fence is compared with the state before it.
                any(other.scope == draft.scope for other in drafts)
                or await self._desk.store.last(INVOCATIONS, draft.scope) is not None
            ):
                continue
            drafts.append(draft)
        return drafts

    async def _fail(self, running: Running, context: Context | None, exc: BaseException) -> None:
        error, at_least = failure.classify(exc)
        wait = max(delay(running.role.role.backoff, running.state.errors + 1, random.random()), at_least or 0.0)
        wait = min(wait, _LONGEST_WAIT_S)
        command = invocation.Fail(
            holder=self._desk.boot_id,
            delivery=running.delivery.delivery,
            error=error,
            retry_at=self._desk.author.now() + timedelta(seconds=wait),
            usage=context.spent if context else ev.Usage(),
            duration_ms=self._elapsed(running),
            artifacts=tuple(context.kept) if context else (),
        )
        try:
            state = (await self._settle(running, command, [])).state
        except errors.SequenceConflict:
            await self._fence_lost(running)
            return
        self.handled += 1
        if state.status is invocation.Status.WAITING:
            log.info(
                "failed", invocation=running.ref.id, role=running.role.path, kind=error.kind, retry_s=round(wait, 3)
            )
            # The renewals must be over before the delay starts: a late one would replace it by ack_wait.
            self._desk.keeper.remove(running)
            self._desk.answer(running.delivery.reply, wire.nak(wait))
        else:
            log.warning(
                "dead_lettered", invocation=running.ref.id, role=running.role.path, kind=error.kind, error=error.message
            )
            self._acknowledge(running.delivery)

    async def _stopped(self, running: Running, context: Context | None, stop: BaseException | None) -> None:
        """The handler ended because it was told to; `stop` may carry what it said last."""
        role = running.role.role
        detail = "\n".join(getattr(stop, "__notes__", ()))
        match running.stop_reason:
            case Stop.TIMEOUT:
                why = f"expected a result within {role.timeout:g} s, got none; it was stopped"
                await self._fail(running, context, failure.HandlerError("timeout", why, detail=detail))
            case Stop.HUNG:
                why = f"expected progress at least every {role.progress_timeout:g} s, got none; it was stopped"
                await self._fail(running, context, failure.HandlerError("hung", why, detail=detail))
            case Stop.DRAIN:
                try:
                    command = invocation.Release(reason=ev.ReleaseReason.DRAIN, holder=self._desk.boot_id)
                    await self._settle(running, command, [])
                except errors.SequenceConflict:
                    await self._fence_lost(running)
                else:
                    self._acknowledge(running.delivery)
            case _:
                await self._fence_lost(running)

    async def _settle(self, running: Running, command: invocation.Command, follow_ups: list[Append]) -> Written:
        """Append what ends the claim, under the claim's fence."""
        # From here on only the claim is kept alive: a handler that is done can neither hang nor take too long.
        running.settling = True
        while True:
            state = running.state
            decided = invocation.decide(state, command, running.role.limits, self._desk.author.now())
            try:
                return await self._write(running.ref, state, decided, running.cause, follow_ups)
            except errors.SequenceConflict:
                present = await self._desk.store.state(running.ref)
                if present is None or present.claim != state.claim:
                    raise
                if present.last_seq == state.last_seq:
                    raise _KeyTaken from None
                # The claim stands: it was only rubbish that moved the fence.
                running.state = present

    async def _write(
        self,
        ref: Ref,
        state: Invocation,
        decided: list[ev.InvocationEvent],
        cause: str,
        also: list[Append] | None = None,
    ) -> Written:
        """Append under the fence, for as long as it takes.

        A server that takes nothing now (its disk is full, its stream is frozen) must not cost a result that was paid for.
        """
        return await self._insist(
            ref, lambda: self._desk.invocations.append(ref, state, decided, cause=cause, also=also or ())
        )

    async def _insist(self, ref: Ref, write: Callable[[], Awaitable[_T]]) -> _T:
        """Write until the server takes it, or says that somebody else was quicker."""
        while True:
            try:
                return await write()
            except errors.SequenceConflict:
                raise
            except (errors.ServerError, errors.Unanswered) as exc:
                log.error("server_takes_nothing", invocation=ref.id, error=str(exc), again_s=_AGAIN_S)
                await asyncio.sleep(_AGAIN_S)

    async def _fence_lost(self, running: Running) -> None:
        """Somebody else has written: our result does not count. Acknowledge only what has ended."""
        self._desk.keeper.remove(running)
        state = await self._desk.store.state(running.ref)
        log.warning(
            "claim_lost",
            invocation=running.ref.id,
            role=running.role.path,
            status=str(state.status) if state else "trimmed",
        )
        if state is None or state.status.ended or state.requested_seq != running.delivery.seq:
            self._acknowledge(running.delivery)

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
                if refused.reason is invocation.Refusal.HELD:
                    # An acknowledgement would end the holder's delivery.
                    return
        self._acknowledge(delivery)

    def _acknowledge(self, delivery: wire.Delivery) -> None:
        self._desk.answer(delivery.reply, wire.ACK)

    def _elapsed(self, running: Running) -> float:
        return round((self._desk.monotonic() - running.started_at) * 1000, 3)

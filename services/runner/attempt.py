"""One try at one invocation: its handler runs, and how that ended is written under the claim's fence.

A result is appended first and acknowledged afterwards. A server that takes nothing for a while costs no result: the claim
is kept alive and the append tried again. When the fence is lost somebody else has written, and nothing of ours counts.
"""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from functools import partial

import msgspec
import structlog

from bus import errors, invocation, wire
from bus.events import guard
from bus.events import invocation as ev
from bus.invocations import Written
from bus.refusal import GuardRefused, Reason, Refusal
from bus.store import Append
from bus.trips import pause_key
from services.guards import pauses
from services.runner import failure
from services.runner.backoff import delay
from services.runner.desk import Desk, LeftForLater
from services.runner.follow_ups import drafts, named
from services.runner.handler import Context, Permanent, Result
from services.runner.running import Environment, Running, Stop
from services.runner.spool import Spooled

log = structlog.get_logger()

#: Seconds that a retry waits at most, whatever its error asks for: more than that no calendar may hold.
_LONGEST_WAIT_S = 30 * 86400.0
#: Kind of the error of a provider that takes no more for now.
_TOO_MANY = "http_429"
#: Kinds of errors after which nobody can say what was used.
_UNTOLD = frozenset({"bad_usage", "no_usage"})
#: Bytes of output that an event holds; a larger one goes to the artifacts.
OUTPUT_LIMIT = 256 * 1024


class _KeyTaken(Exception):
    """The claim's fence held, and that of a keyed follow-up did not."""


class Attempt:
    """One claimed invocation, from its handler's start to the event that ends the claim."""

    def __init__(self, desk: Desk, running: Running, unusable: Exception | None) -> None:
        self._desk = desk
        self.running = running
        #: Why there is no handler.
        self._unusable = unusable
        self._context: Context | None = None
        self._result: Result | None = None
        #: The result, or the error, lies in the spool.
        self._kept = False
        #: A result, or an error, was written.
        self.handled = False

    async def run(self) -> None:
        """Run the handler and write how it ended."""
        try:
            if self.running.handler is None:
                raise Permanent(str(self._unusable)) from self._unusable  # noqa: TRY301 (told apart below like any error)
            context = self._context = await self._make_context()
            result = await self.running.handler(context)
            if self.running.stop_reason is None:
                # A drain that comes while the result is stored must not cost it.
                self.running.settling = True
                await self._complete(context, result)
                return
            await self.stopped(None)
        except asyncio.CancelledError as stop:
            if self.running.stop_reason is None:
                raise
            task = asyncio.current_task()
            while task is not None and task.uncancel() > 0:
                pass
            await self.stopped(stop)
        except errors.SequenceConflict:
            await self._fence_lost()
        except LeftForLater:
            log.warning("left_for_later", invocation=self.running.ref.id, role=self.running.role.path)
        except GuardRefused as exc:
            await self._guarded(exc)
        except Exception as exc:  # noqa: BLE001 (whatever a handler raises is its result)
            refusal = self._refused() if isinstance(exc, failure.HandlerError) and exc.guarded else None
            if refusal is not None:
                await self._guarded(GuardRefused(refusal))
            else:
                await self._fail(exc)

    async def _make_context(self) -> Context:
        request = self.running.state.request
        raw = request.input
        if request.input_ref is not None:
            raw = msgspec.Raw(await self._desk.artifacts.get(request.input_ref))
        return Context(
            ref=self.running.ref,
            input=raw,
            attempt=self.running.state.claim.attempt if self.running.state.claim else 1,
            prompt=self.running.prompt,
            environment=Environment(self._desk, self.running),
            progress=self.running.progress,
            metered=self.running.metered,
            gate=self._check_gate,
            request=self.running.request,
            artifact=self.running.artifact,
            raise_concern=self.running.raise_concern,
        )

    def _check_gate(self) -> None:
        """What a handler asks before it acts outside the bus."""
        refusal = self._refusal()
        if refusal is not None:
            raise GuardRefused(refusal)

    def _refusal(self) -> Refusal | None:
        request = self.running.state.request
        return self._desk.gate.refusal(role=self.running.role.path, root=request.root or self.running.ref.id)

    def _refused(self) -> Refusal | None:
        """What refused a handler that says so: a guard that stands, or a freeze that came and went while it ran.

        None: nothing did, as far as is known here, and a word of the handler alone does not spare it an attempt.
        """
        return self._refusal() or self.running.frozen_by

    async def _complete(self, context: Context, result: Result) -> None:
        self._result = result
        output, output_ref = result.output, None
        if len(bytes(output)) > OUTPUT_LIMIT:
            content = bytes(output)
            output_ref = await self._desk.insist(
                self.running.ref,
                lambda: self.running.artifact("output.json", content, "application/json"),
                refused=self._keep_result,
            )
            output = ev.EMPTY
        while True:
            try:
                await self._hand_in(context, result, output, output_ref)
                break
            except _KeyTaken:
                # Somebody asked with a follow-up's key just now: another look finds that invocation.
                continue
        self._acknowledge()
        self.handled = True

    async def _hand_in(
        self, context: Context, result: Result, output: msgspec.Raw, output_ref: ev.ArtifactRef | None
    ) -> None:
        follow_ups: list[Append] = []
        if result.follow_ups:
            wanted = result.follow_ups
            follow_ups = await self._desk.insist(
                self.running.ref, lambda: drafts(self._desk, self.running.asker, wanted), refused=self._keep_result
            )
        command = self._command(context, result)
        command = msgspec.structs.replace(command, output=output, output_ref=output_ref)
        await self._settle(command, follow_ups)

    def _command(self, context: Context, result: Result) -> invocation.Complete:
        """The completion, before its follow-ups have ids."""
        usage = context.spent + result.usage
        return invocation.Complete(
            holder=self._desk.boot_id,
            delivery=self.running.delivery.delivery,
            output=result.output,
            usage=usage,
            duration_ms=self._elapsed(),
            artifacts=tuple(dict.fromkeys((*context.kept, *result.artifacts))),
            tail=result.tail,
            cost=self._desk.quota.cost(self.running.role, usage, self.running.hold),
        )

    async def _keep_result(self) -> None:
        """Put the result on disk: nothing may be written, and nobody knows whether this process lives until it may."""
        if self._kept or self._context is None or self._result is None:
            return
        command = self._command(self._context, self._result)
        await self._keep(
            Spooled(
                ref=self.running.ref,
                holder=command.holder,
                delivery=command.delivery,
                complete=command,
                follow_ups=self._result.follow_ups,
            )
        )

    async def _keep(self, spooled: Spooled) -> None:
        self._kept = True
        try:
            await self._desk.spool.keep(spooled)
        except errors.HomeUnusable as exc:
            # The claim is held all the same; only a death of this process would lose the result now.
            log.error("result_not_spooled", invocation=self.running.ref.id, error=str(exc))

    async def _fail(self, exc: BaseException) -> None:
        context = self._context
        error, at_least = failure.classify(exc)
        wait = max(
            delay(self.running.role.role.backoff, self.running.state.errors + 1, random.random()), at_least or 0.0
        )
        wait = min(wait, _LONGEST_WAIT_S)
        usage = context.spent if context else ev.Usage()
        if error.kind == _TOO_MANY and at_least is not None:
            await self._pause(at_least, error.message)
            await self._put_back(ev.ReleaseReason.QUOTA)
            return
        command = invocation.Fail(
            holder=self._desk.boot_id,
            delivery=self.running.delivery.delivery,
            error=error,
            retry_at=self._desk.author.now() + timedelta(seconds=wait),
            usage=usage,
            duration_ms=self._elapsed(),
            artifacts=tuple(context.kept) if context else (),
            cost=self._desk.quota.cost(self.running.role, usage, self.running.hold),
            unverified=error.kind in _UNTOLD,
        )
        try:
            state = (await self._settle(command, [])).state
        except errors.SequenceConflict:
            await self._fence_lost()
            return
        self.handled = True
        if state.status is invocation.Status.WAITING:
            log.info(
                "failed",
                invocation=self.running.ref.id,
                role=self.running.role.path,
                kind=error.kind,
                retry_s=round(wait, 3),
            )
            # The renewals must be over before the delay starts: a late one would replace it by ack_wait.
            self._desk.keeper.remove(self.running)
            self._desk.answer(self.running.delivery.reply, wire.nak(wait))
        else:
            log.warning(
                "dead_lettered",
                invocation=self.running.ref.id,
                role=self.running.role.path,
                kind=error.kind,
                error=error.message,
            )
            self._acknowledge()

    async def stopped(self, stop: BaseException | None) -> None:
        """The handler ended because it was told to; `stop` may carry what it said last."""
        role = self.running.role.role
        detail = "\n".join(getattr(stop, "__notes__", ()))
        match self.running.stop_reason:
            case Stop.TIMEOUT:
                why = f"expected a result within {role.timeout:g} s, got none; it was stopped"
                await self._fail(failure.HandlerError("timeout", why, detail=detail))
            case Stop.HUNG:
                why = f"expected progress at least every {role.progress_timeout:g} s, got none; it was stopped"
                await self._fail(failure.HandlerError("hung", why, detail=detail))
            case Stop.OVER:
                spent = self._context.spent if self._context is not None else ev.Usage()
                why = f"{self.running.over(spent) or 'expected no more than was reserved'}; it was stopped"
                await self._fail(failure.HandlerError("over_reservation", why, detail=detail, permanent=True))
            case Stop.DRAIN:
                await self._put_back(ev.ReleaseReason.DRAIN)
            case Stop.FREEZE:
                await self._put_back(ev.ReleaseReason.FREEZE)
            case _:
                await self._fence_lost()

    async def _put_back(self, reason: ev.ReleaseReason) -> None:
        """Back to the queue, at nobody's fault."""
        usage = self._context.spent if self._context is not None else ev.Usage()
        command = invocation.Release(
            reason=reason,
            holder=self._desk.boot_id,
            usage=usage,
            cost=self._desk.quota.cost(self.running.role, usage, self.running.hold),
        )
        try:
            await self._settle(command, [])
        except LeftForLater:
            log.warning("left_for_later", invocation=self.running.ref.id, role=self.running.role.path)
        except errors.SequenceConflict:
            await self._fence_lost()
        else:
            self._acknowledge()

    async def _pause(self, seconds: float, why: str) -> None:
        """The provider has named the time at which it takes requests again: until then the whole role waits."""
        desk, role = self._desk, self.running.role
        now = desk.author.now()
        until = now + timedelta(seconds=min(seconds, _LONGEST_WAIT_S))
        refusal = pauses.by_provider(role.path, why, now, until)
        try:
            await desk.trips.put(pause_key(role.project, role.name), refusal)
            paused = guard.Paused(role=role.path, reason=refusal.because, until=until)
            await desk.store.append(desk.author.control(f"{role.project}_{role.name}", paused))
        except errors.BusError as exc:
            log.warning("role_not_paused", role=role.path, error=str(exc))

    async def _settle(self, command: invocation.Command, follow_ups: list[Append]) -> Written:
        """Append what ends the claim, under the claim's fence."""
        # From here on only the claim is kept alive: a handler that is done can neither hang nor take too long.
        self.running.settling = True
        while True:
            state = self.running.state
            decided = invocation.decide(state, command, self.running.role.limits, self._desk.author.now())
            try:
                written = await self._desk.append(
                    self.running.ref,
                    state,
                    named(decided, follow_ups),
                    self.running.cause,
                    follow_ups,
                    refused=partial(self._keep_command, command),
                )
            except errors.SequenceConflict:
                present = await self._desk.store.state(self.running.ref)
                if present is None or present.claim != state.claim:
                    raise
                if present.last_seq == state.last_seq:
                    raise _KeyTaken from None
                # The claim stands: it was only rubbish that moved the fence.
                self.running.state = present
            else:
                self._desk.spool.done(self.running.ref)
                return written

    async def _keep_command(self, command: invocation.Command) -> None:
        match command:
            case invocation.Complete():
                await self._keep_result()
            case invocation.Fail() if not self._kept:
                await self._keep(
                    Spooled(ref=self.running.ref, holder=command.holder, delivery=command.delivery, fail=command)
                )
            case _:
                pass  # a put-back: the warden makes the same of a claim that nobody is left to put back

    async def _guarded(self, exc: GuardRefused) -> None:
        """A guard refused what the handler asked for."""
        if exc.refusal.reason in {Reason.FROZEN, Reason.UNVERIFIED_FLAG}:
            # Nobody's fault: it goes back to the queue when anything may be written again.
            self.running.stop_reason = Stop.FREEZE
            await self.stopped(exc)
        elif exc.refusal.reason in {Reason.CAPPED, Reason.PAUSED, Reason.UNVERIFIED_SPEND}:
            await self._put_back(ev.ReleaseReason.QUOTA)
        else:
            await self._fail(failure.HandlerError(exc.refusal.reason.value, str(exc), permanent=True))

    async def _fence_lost(self) -> None:
        """Somebody else has written: our result does not count. Acknowledge only what has ended."""
        self._desk.spool.done(self.running.ref)
        self._desk.keeper.remove(self.running)
        state = await self._desk.store.state(self.running.ref)
        log.warning(
            "claim_lost",
            invocation=self.running.ref.id,
            role=self.running.role.path,
            status=str(state.status) if state else "trimmed",
        )
        if state is None or state.status.ended or state.requested_seq != self.running.delivery.seq:
            self._acknowledge()

    def _elapsed(self) -> float:
        return round((self._desk.monotonic() - self.running.started_at) * 1000, 3)

    def _acknowledge(self) -> None:
        self._desk.answer(self.running.delivery.reply, wire.ACK)

"""Asking a role for work: the checks, and the one event that accepts it.

Everybody comes through here: people, agents over NATS, handlers while they run, a completion's follow-ups, schedules and
replays. What is accepted is in the log before the answer is given. An idempotency key names its invocation by derivation,
and the fence (nothing under that id yet) lets one request in: no index can disagree with the log.

A key is remembered as long as the log holds its invocation, which is at least the hot window.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from bus import errors, ids
from bus.artifacts import Artifacts
from bus.author import Author
from bus.envelope import Envelope
from bus.events import invocation as ev
from bus.gate import Gate
from bus.refusal import GuardRefused, Reason, Refusal
from bus.schedules import Schedules
from bus.store import Append, Store
from bus.subjects import Ref, parse_role
from bus.trips import tree_key
from services.fleet import schema
from services.fleet.registry import RegisteredRole, Registry

#: Bytes of input that an event holds; a larger one goes to the artifacts. The server takes messages of 1 MB, and a dead
#: letter must hold the request together with its attempts.
INLINE_LIMIT = 256 * 1024
#: Bytes of input that are taken at all.
INPUT_LIMIT = 64 * 1024 * 1024


class RequestRefused(errors.BusError):
    """The request was not accepted; the sentence says why and what to do."""


class Asker(msgspec.Struct, frozen=True, kw_only=True):
    """The invocation that asks, and where it stands in its run tree."""

    ref: Ref
    root: str
    depth: int
    #: Id of the event that the asking goes back to.
    cause: str = ""


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One request, before any check."""

    #: ``project/role``.
    role: str
    input: msgspec.Raw = ev.EMPTY
    idempotency_key: str = ""
    #: Not before this time.
    due: datetime | None = None
    #: Name of the schedule that asks; with `due` it names the invocation.
    schedule: str = ""
    asker: Asker | None = None
    #: The person or service that asks.
    actor: str = ""


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a request: it is in the log."""

    id: str
    project: str
    role: str
    #: Stream sequence of the event that accepted it.
    seq: int
    #: True: an earlier request with the same key was accepted; this is its invocation.
    deduplicated: bool = False
    #: True: that earlier request had another input, which is the one that counts.
    input_differs: bool = False


class Requests:
    """Checks requests and puts them into the log."""

    def __init__(
        self,
        registry: Registry,
        store: Store,
        author: Author,
        artifacts: Artifacts,
        schedules: Schedules,
        gate: Gate | None = None,
    ) -> None:
        self._registry = registry
        self._gate = gate
        self._store = store
        self._author = author
        self._artifacts = artifacts
        self._schedules = schedules

    def check(self, ask: Ask) -> RegisteredRole:
        """The role that is asked, if it may be asked this.

        Raises:
            BadSubject, UnknownName: no such role.
            RequestRefused: the asking role may not ask it, or the input is too large.
            GuardRefused: the asker's run tree was stopped, or would grow too deep.
            services.fleet.schema.InputMismatch, NotJson: the input does not fit.
        """
        project, name = parse_role(ask.role)
        found = self._registry.role(project, name)
        if ask.asker is not None:
            self._check_asker(ask.asker.ref, found)
            self._check_tree(ask.asker)
        if len(bytes(ask.input)) > INPUT_LIMIT:
            raise RequestRefused(
                f"expected input of at most {INPUT_LIMIT:,} bytes, got: {len(bytes(ask.input)):,}; "
                "store the bulk elsewhere and pass its address"
            )
        schema.check_input(found.role, ask.input)
        return found

    def _check_asker(self, asker: Ref, asked: RegisteredRole) -> None:
        asking = self._registry.roles.get((asker.project, asker.role))
        allowed = asking.role.asks if asking is not None and asking.role.asks is not None else (f"{asker.project}/*",)
        if asked.path not in allowed and f"{asked.project}/*" not in allowed:
            raise RequestRefused(
                f"role {asker.project}/{asker.role} may not ask {asked.path}; "
                f"it may ask: {', '.join(allowed) or 'nobody'}; add it to `asks` of {asker.project}/{asker.role} in the fleet file"
            )

    def _check_tree(self, asker: Asker) -> None:
        tripped = self._gate.trips.get(tree_key(asker.root)) if self._gate is not None else None
        if tripped is not None:
            raise GuardRefused(tripped)
        limit = self._registry.loop.depth
        if asker.depth + 1 > limit:
            raise GuardRefused(
                Refusal(
                    reason=Reason.LOOP,
                    scope=f"tree {asker.root}",
                    because=f"{asker.ref} is {asker.depth} deep, and a run tree may be {limit} deep",
                    clears="a person, with a higher `depth` under [loop] of the fleet file",
                    allowed="finishing what runs",
                )
            )

    def ref(self, ask: Ask) -> Ref:
        """The reference that the request gets: derived from its key or due time, else new."""
        project, name = parse_role(ask.role)
        if ask.idempotency_key:
            return Ref(project, name, ids.key_id(ask.role, ask.idempotency_key))
        if ask.schedule and ask.due is not None:
            return Ref(project, name, ids.due_id(f"{ask.role}/{ask.schedule}", ask.due))
        return Ref(project, name, self._author.new_id())

    def _event(self, ask: Ask, ref: Ref, input_ref: ev.ArtifactRef | None) -> ev.Requested:
        """The event that accepts the request."""
        asker = ask.asker
        return ev.Requested(
            input=ev.EMPTY if input_ref else ask.input,
            input_ref=input_ref,
            parent=asker.ref.id if asker else "",
            root=asker.root if asker else ref.id,
            depth=asker.depth + 1 if asker else 0,
            idempotency_key=ask.idempotency_key,
            schedule=ask.schedule,
            due=ask.due,
        )

    async def _keep(self, ask: Ask, ref: Ref) -> ev.ArtifactRef:
        """Store an input that is too large for an event."""
        return await self._artifacts.put(ref, "input.json", bytes(ask.input), "application/json")

    async def draft(self, ask: Ask) -> Append:
        """The request as a member of somebody's atomic batch, checked and fenced."""
        self.check(ask)
        ref = self.ref(ask)
        large = len(bytes(ask.input)) > INLINE_LIMIT
        requested = self._event(ask, ref, await self._keep(ask, ref) if large else None)
        return Append(self._stamp(ref, requested, ask), 0, ref.all)

    async def submit(self, ask: Ask) -> Accepted:
        """Check a request and put it into the log.

        A request that is due later is accepted as ``scheduled`` and becomes ``requested`` by the server's own schedule.

        Raises:
            As :meth:`check`.
            StreamFrozen, ServerError: the log does not take it.
        """
        self.check(ask)
        ref = self.ref(ask)
        large = len(bytes(ask.input)) > INLINE_LIMIT
        requested = self._event(ask, ref, await self._keep(ask, ref) if large else None)
        event: ev.InvocationEvent = requested
        later = ask.due is not None and not ask.schedule and ask.due > self._author.now()
        if later:
            assert ask.due is not None
            event = ev.Scheduled(due=ask.due, request=requested)
        envelope = self._stamp(ref, event, ask)
        deduplicated = differs = False
        # A new id is its own fence; only a derived one can be there already.
        derived = bool(ask.idempotency_key or ask.schedule)
        try:
            seq = await self._store.append(envelope, expect=0 if derived else None, scope=ref.all)
        except errors.SequenceConflict:
            first = (await self._store.history(ref))[0]
            seq, deduplicated, differs = first.seq, True, _input(first.data) != _input(event)
        if later and not deduplicated:
            assert ask.due is not None
            # Lost in a crash right here, the warden's scan finds it past its due time.
            await self._schedules.once(delayed(ref), ask.due, b"{}")
        return Accepted(
            id=ref.id,
            project=ref.project,
            role=ref.role,
            seq=seq,
            deduplicated=deduplicated,
            input_differs=differs,
        )

    def _stamp(self, ref: Ref, event: ev.InvocationEvent, ask: Ask) -> Envelope:
        asker = ask.asker
        actor = ask.actor or (f"{asker.ref.project}/{asker.ref.role}" if asker else "")
        return self._author.invocation(
            ref,
            event,
            root=asker.root if asker else "",
            cause=asker.cause if asker else "",
            actor=actor,
        )


def _input(event: object) -> object:
    """What tells two inputs apart: their bytes, or the digest of what lies in the artifacts."""
    request = event.request if isinstance(event, ev.Scheduled) else event
    if not isinstance(request, ev.Requested):
        return None
    return request.input_ref.digest if request.input_ref is not None else bytes(request.input)


def delayed(ref: Ref) -> str:
    """Name of the one-time schedule of a delayed request."""
    return f"delayed.{ref.project}.{ref.role}.{ref.id}"

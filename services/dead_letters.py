"""The backlog of dead letters: listing it, sending back, giving up for good.

What a person decides is written to INVOCATIONS first (``redriven`` with a fresh ``requested``, or ``discarded``) and only then
the copy is removed, fenced on its sequence. So a crash in between leaves a copy too many and never one too few; doing the
same again finds the invocation alive and removes the copy. A copy that belongs to another death than the log's last one is
left to the warden, who replaces it.

Not promised: that the backlog is the same when it is acted upon as when it was listed. Each letter is looked at again.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import datetime
from enum import StrEnum
from fnmatch import fnmatchcase

import msgspec

from bus import errors, invocation, wire
from bus.events import deadletter
from bus.events import invocation as ev
from bus.invocation import Invocation, Status
from bus.invocations import last_id
from bus.store import DEAD_LETTERS, Recorded, fold
from bus.subjects import NAME_RULE, Ref, check_name
from services.daemon import Bus
from services.fleet.registry import Registry

#: What an id may consist of.
_ID = re.compile(r"[0-9A-Za-z-]+")
#: ``stream message delete failed``.
_REMOVAL_FAILED = 10057


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter as a list shows it."""

    #: Sequence of the copy in DEAD_LETTERS: the fence of its removal.
    seq: int
    id: str
    project: str
    role: str
    died_at: datetime
    #: Sequence of the ``dead_lettered`` event: which death it is.
    died_seq: int
    reason: str
    attempts: int
    redrives: int
    #: Of the last error; empty if none was seen.
    error: str = ""
    message: str = ""
    fingerprint: str = ""
    usage: ev.Usage = ev.Usage()

    @property
    def ref(self) -> Ref:
        """The invocation."""
        return Ref(self.project, self.role, self.id)


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Which dead letters are meant; what is empty or None takes all."""

    #: ``project/role`` or ``project/*``.
    role: str = ""
    #: Of the last error, or the beginning of it.
    fingerprint: str = ""
    #: Seconds since the death, at least.
    older_than_s: float | None = None
    #: The oldest so many.
    limit: int | None = None

    @property
    def empty(self) -> bool:
        """It takes everything."""
        return self == Filter()


class Did(StrEnum):
    """What became of one dead letter."""

    REDRIVEN = "redriven"
    DISCARDED = "discarded"
    #: It was not dead any more; a copy that was left over is removed.
    COPY_REMOVED = "copy_removed"
    SKIPPED = "skipped"


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What was done about one dead letter."""

    id: str
    did: Did
    #: Why it was skipped, in one sentence.
    why: str = ""


def letter_of(record: Recorded) -> Letter | None:
    """A message of DEAD_LETTERS as a list shows it; None when it is no dead letter. Pure."""
    kept = record.data
    if not isinstance(kept, deadletter.Kept):
        return None
    error = kept.error
    return Letter(
        seq=record.seq,
        id=kept.invocation,
        project=kept.project,
        role=kept.role,
        died_at=kept.died_at,
        died_seq=kept.died_seq,
        reason=kept.reason,
        attempts=len(kept.attempts),
        redrives=kept.redrives,
        error=error.kind if error is not None else "",
        message=error.message if error is not None else "",
        fingerprint=error.fingerprint if error is not None else "",
        usage=kept.usage,
    )


def matches(wanted: Filter, letter: Letter, now: datetime) -> bool:
    """Whether a dead letter is meant; `limit` does not count here. Pure."""
    if wanted.role and not fnmatchcase(f"{letter.project}/{letter.role}", wanted.role):
        return False
    if not letter.fingerprint.startswith(wanted.fingerprint):
        return False
    return wanted.older_than_s is None or (now - letter.died_at).total_seconds() >= wanted.older_than_s


def subject_of(wanted: Filter) -> str:
    """The narrowest subject filter that holds all that is meant. Pure.

    Raises:
        BadSubject: `role` is neither ``project/role`` nor ``project/*``.
    """
    if not wanted.role:
        return "dlq.>"
    project, slash, role = wanted.role.partition("/")
    if not slash:
        raise errors.BadSubject("a role", wanted.role, f"PROJECT/ROLE or PROJECT/*, each {NAME_RULE}")
    check_name("a project", project)
    if role != "*":
        check_name("a role", role)
    return f"dlq.{project}.{role}.*"


class DeadLetters:
    """The stream DEAD_LETTERS, and what a person does about it."""

    def __init__(self, bus: Bus, registry: Registry) -> None:
        self._bus = bus
        self._registry = registry

    async def select(self, wanted: Filter, now: datetime) -> AsyncIterator[Letter]:
        """The dead letters that are meant, the oldest copy first. Rubbish in the stream is stepped over."""
        found = 0
        async for record in self._bus.store.read(DEAD_LETTERS, subject_of(wanted)):
            letter = letter_of(record)
            if letter is None or not matches(wanted, letter, now):
                continue
            if wanted.limit is not None and found >= wanted.limit:
                return
            found += 1
            yield letter

    async def get(self, id_: str) -> Recorded:
        """The whole copy.

        Raises:
            UnknownName: there is none of this id.
        """
        # A wildcard in an id would stand for whichever letter came last.
        known = _ID.fullmatch(id_) is not None
        record = await self._bus.store.last(DEAD_LETTERS, f"dlq.*.*.{id_}") if known else None
        if record is None or record.data is None:
            raise errors.UnknownName("dead letter", id_, ())
        return record

    async def redrive(self, letter: Letter, reason: str, actor: str) -> Outcome:
        """Send one back to work with fresh attempts.

        Safe to repeat: what is back at work already only loses the copy that was left over.
        """
        if (letter.project, letter.role) not in self._registry.roles:
            why = f"role {letter.project}/{letter.role} is not registered (any more): nobody would do the work"
            return Outcome(id=letter.id, did=Did.SKIPPED, why=why)
        return await self._act(letter, invocation.Redrive(reason=reason), Did.REDRIVEN, actor)

    async def discard(self, letter: Letter, reason: str, actor: str) -> Outcome:
        """Give one up for good; its events stay in the log. Safe to repeat."""
        return await self._act(letter, invocation.Discard(reason=reason), Did.DISCARDED, actor)

    async def _act(self, letter: Letter, command: invocation.Command, did: Did, actor: str) -> Outcome:
        ref = letter.ref
        while True:
            records = await self._bus.store.history(ref)
            state = fold(records)
            if state is None:
                why = "its events are not in the log any more"
                return Outcome(id=letter.id, did=Did.SKIPPED, why=why)
            if state.status is not Status.DEAD_LETTERED:
                await self.remove(letter.seq)
                return Outcome(id=letter.id, did=Did.COPY_REMOVED)
            last = death(records)
            if last != letter.died_seq:
                why = f"it died again at sequence {last}, and the copy is of its death at {letter.died_seq}; list it again"
                return Outcome(id=letter.id, did=Did.SKIPPED, why=why)
            try:
                await self._append(ref, state, command, records, actor)
            except errors.SequenceConflict:
                continue
            await self.remove(letter.seq)
            return Outcome(id=letter.id, did=did)

    async def _append(
        self, ref: Ref, state: Invocation, command: invocation.Command, records: list[Recorded], actor: str
    ) -> None:
        decided = invocation.decide(state, command, invocation.Limits(), self._bus.author.now())
        await self._bus.invocations.append(ref, state, decided, cause=last_id(records), actor=actor)

    async def remove(self, seq: int) -> bool:
        """Remove the copy at a sequence; False when it is not there (any more)."""
        try:
            await self._bus.connection.api(f"STREAM.MSG.DELETE.{DEAD_LETTERS}", {"seq": seq, "no_erase": True})
        except errors.ServerError as exc:
            # The server has one code for every failed removal: look whether this one failed because nothing is there.
            if exc.code != _REMOVAL_FAILED or await self._is_there(seq):
                raise
            return False
        return True

    async def _is_there(self, seq: int) -> bool:
        try:
            await self._bus.connection.api(f"STREAM.MSG.GET.{DEAD_LETTERS}", {"seq": seq})
        except errors.ServerError as exc:
            if exc.code != wire.Code.MESSAGE_NOT_FOUND:
                raise
            return False
        return True

    async def remove_of(self, ref: Ref) -> bool:
        """Remove the copy of an invocation that is not dead any more; False when there is none."""
        record = await self._bus.store.last(DEAD_LETTERS, ref.dead_letter)
        return record is not None and await self.remove(record.seq)


def death(records: list[Recorded]) -> int:
    """Sequence of the last ``dead_lettered`` event; 0 for none. Pure."""
    return next((r.seq for r in reversed(records) if isinstance(r.data, ev.DeadLettered)), 0)

"""Who asked whom for what a finding shows: from its evidence up the chain of causes, by the events themselves.

The open run trees (:mod:`services.loop.tree`) say who waits now; this says who had asked when the work has ended, as a dead
letter or a failure that somebody raised. Read once for each evidence; what was trimmed from the log is left out.
"""

from __future__ import annotations

from contextlib import aclosing

import msgspec

from bus import errors
from bus.events import deadletter, finding, loop
from bus.events import invocation as inv
from bus.events.finding import Evidence
from bus.store import INVOCATIONS, Recorded
from bus.subjects import Ref, parse_event
from services.daemon import Bus

#: Messages of a finding that are looked into, and steps from a message up to its root.
_LOOKED_INTO, _STEPS = 3, 16


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """Where what a finding shows comes from."""

    #: First invocations of the run trees.
    roots: frozenset[str] = frozenset()
    #: Role -> roles that had asked it, directly or through others.
    asked: dict[str, frozenset[str]] = {}


class Causes:
    """Looks up where findings come from."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._known: dict[tuple[Evidence, ...], Cause] = {}

    async def of(self, evidence: tuple[Evidence, ...]) -> Cause:
        """The cause of what these messages show.

        Raises:
            BusError: the server does not answer.
        """
        looked_into = evidence[:_LOOKED_INTO]
        if looked_into not in self._known:
            self._known[looked_into] = await self._look(looked_into)
        return self._known[looked_into]

    def keep(self, wanted: set[tuple[Evidence, ...]]) -> None:
        """Forget all but these."""
        cut = {evidence[:_LOOKED_INTO] for evidence in wanted}
        self._known = {evidence: cause for evidence, cause in self._known.items() if evidence in cut}

    async def _look(self, evidence: tuple[Evidence, ...]) -> Cause:
        roots: set[str] = set()
        asked: dict[str, frozenset[str]] = {}
        for one in evidence:
            chain = await self._chain(await self._invocation(one))
            if not chain:
                continue
            roots.add(chain[-1].id)
            names = [f"{ref.project}/{ref.role}" for ref in chain]
            for place, name in enumerate(names):
                above = frozenset(names[place + 1 :]) - {name}
                asked[name] = asked.get(name, frozenset()) | above
        return Cause(roots=frozenset(roots), asked=asked)

    async def _invocation(self, one: Evidence) -> str:
        """The invocation that a message is about; empty for none."""
        record = await self._message(one)
        if record is None:
            return ""
        match record.data:
            case deadletter.Kept(invocation=id_) | loop.Tripped(invocation=id_) | finding.Raised(invocation=id_):
                return id_
            case _ if record.subject.startswith("inv."):
                try:
                    return parse_event(record.subject)[0].id
                except errors.BadSubject:
                    return ""
            case _:
                return ""

    async def _message(self, one: Evidence) -> Recorded | None:
        try:
            async with aclosing(self._bus.store.read(one.stream, ">", start=one.seq, limit=1)) as records:
                async for record in records:
                    return record if record.seq == one.seq else None
        except errors.ServerError:
            return None  # a stream that somebody made up
        return None

    async def _chain(self, id_: str) -> list[Ref]:
        """An invocation and those that caused it, up to the root."""
        chain: list[Ref] = []
        while id_ and len(chain) < _STEPS:
            ref = await self._bus.store.find(id_)
            if ref is None or ref in chain:
                break
            chain.append(ref)
            id_ = await self._parent(ref)
        return chain

    async def _parent(self, ref: Ref) -> str:
        async with aclosing(self._bus.store.read(INVOCATIONS, ref.all, limit=1)) as records:
            async for record in records:
                match record.data:
                    case inv.Requested(parent=parent) | inv.Scheduled(request=inv.Requested(parent=parent)):
                        return parent
                    case _:
                        return ""
        return ""

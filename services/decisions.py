"""Decisions: why the bus and the fleet are as they are, as events that somebody's name and a number stand on.

The number is the fence: a decision is appended only if no other was recorded since the numbers were looked at, so two people
never get the same one.
"""

from __future__ import annotations

import re
from datetime import datetime

import msgspec

from bus import errors
from bus.events.decision import Recorded
from bus.store import CONTROL
from services.daemon import Bus
from services.ops.operation import No

_ALL = "ctl.decision.>"
_SLUG = 60


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """A decision, and what became of it."""

    at: datetime
    recorded: Recorded
    #: Number of the one that took its place; 0 for none.
    superseded_by: int = 0


async def all_of(bus: Bus) -> dict[int, Decision]:
    """All decisions by number."""
    found: dict[int, Decision] = {}
    async for record in bus.store.read(CONTROL, _ALL):
        if not isinstance(record.data, Recorded):
            continue
        found[record.data.number] = Decision(at=record.stored_at, recorded=record.data)
        old = found.get(record.data.supersedes)
        if old is not None:
            found[record.data.supersedes] = msgspec.structs.replace(old, superseded_by=record.data.number)
    return found


async def record(bus: Bus, decision: Recorded) -> Recorded:
    """Record a decision under the next number, whatever number it came with.

    Raises:
        UnknownName: it supersedes one that does not exist.
    """
    while True:
        last = await bus.store.last(CONTROL, _ALL)
        known = await all_of(bus)
        if decision.supersedes and decision.supersedes not in known:
            raise errors.UnknownName("decision", str(decision.supersedes), map(str, known))
        numbered = msgspec.structs.replace(decision, number=max(known, default=0) + 1)
        event = bus.author.control(str(numbered.number), numbered)
        try:
            await bus.store.append(event, expect=last.seq if last is not None else 0, scope=_ALL)
        except errors.SequenceConflict:
            continue
        return numbered


async def lacking(bus: Bus, policy: str, number: int) -> No | None:
    """Why a decision is missing for what changes a policy; None if nothing is.

    Args:
        bus: where.
        policy: what is changed that asks for a decision; empty for nothing.
        number: of the decision that was named; 0 for none.
    """
    if not number:
        if not policy:
            return None
        reason = f"expected a decision for a change of {policy}, got none; name it with --decision N"
        return No(reason, 'systems decide "TITLE" --context TEXT --decision TEXT --consequences TEXT')
    known = await all_of(bus)
    if number not in known:
        hint = errors.did_you_mean(str(number), map(str, known))
        return No(f"unknown decision {number}{hint}", "systems decisions")
    if (newer := known[number].superseded_by) != 0:
        return No(f"expected a decision that stands, got: {number}, which {newer} superseded", "systems decisions")
    return None


def file_name(decision: Recorded) -> str:
    """``0003-claims-are-fenced.md``. Pure."""
    slug = re.sub(r"[^a-z0-9]+", "-", decision.title.lower()).strip("-")[:_SLUG].strip("-")
    return f"{decision.number:04d}-{slug or 'decision'}.md"


def markdown(decision: Decision) -> str:
    """A decision as an ADR. Pure."""
    recorded = decision.recorded
    status = f"Superseded by ADR {decision.superseded_by}" if decision.superseded_by else "Accepted"
    facts = {"Date": f"{decision.at:%Y-%m-%d}", "Author": recorded.by, "Status": status}
    if recorded.supersedes:
        facts["Supersedes"] = f"ADR {recorded.supersedes}"
    parts = [f"# ADR {recorded.number}: {recorded.title}", "", "| | |", "|---|---|"]
    parts += [f"| {name} | {value} |" for name, value in facts.items()]
    sections = {
        "Context and Problem Statement": recorded.context,
        "Decision": recorded.decision,
        "Consequences": recorded.consequences,
    }
    for heading, text in sections.items():
        parts += ["", f"## {heading}", "", text.strip() or "Not said."]
    return "\n".join(parts) + "\n"

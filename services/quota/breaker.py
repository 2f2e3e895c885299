"""When a spend cap is neared, reached and free again. Pure: a cap, what the log says of it, and the time, to what is to be done.

Held budget comes back, so it never trips a cap: a claim that does not fit beside the others waits. A cap trips when what is
settled fills it, or leaves no room for a claim that was asked about.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec

from bus.refusal import Reason, Refusal

#: Per cent of a cap at which an event is written.
STEPS = (50, 75, 90)


class Why(StrEnum):
    """The reason of an action."""

    #: What is settled has reached the step.
    STEP = "a step of the cap is used"
    #: What is settled fills the cap.
    FULL = "the cap is used up"
    #: What is settled leaves no room for a claim.
    NO_ROOM = "what is left is too little for a claim"
    WINDOW_ENDED = "its window ended"
    CAP_RAISED = "the cap was raised"
    CAP_REMOVED = "the cap was removed"


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """A cap in its present window, and what the log says of it. Amounts are tokens or millionths of a US dollar."""

    #: ``<scope token>.<unit>.<window id>``.
    key: str
    #: As people say it: ``system``, ``shop``, ``shop/coder``, ``tree <root>``.
    scope: str
    #: The scope that declares the cap, where that is another one: a run tree declares none itself.
    declared: str = ""
    unit: str
    window: str
    cap: int
    used: int = 0
    held: int = 0
    assumed: int = 0
    #: End of the window; None for a run tree's.
    until: datetime | None = None

    @property
    def percent(self) -> float:
        """How much of the cap is used; what is held does not count."""
        return 100.0 if self.used >= self.cap else 100 * self.used / self.cap


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """A trip that stands."""

    key: str
    #: What did not fit; 0 when the cap was simply full.
    needed: int = 0
    #: End of its window.
    until: datetime | None = None


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """Write that a share of the cap is used."""

    line: Line
    percent: int
    why: Why = Why.STEP


class Trip(msgspec.Struct, frozen=True, kw_only=True):
    """Refuse the scope from now on."""

    line: Line
    why: Why
    #: What did not fit, and whose it was.
    needed: int = 0
    role: str = ""


class Clear(msgspec.Struct, frozen=True, kw_only=True):
    """End a standing refusal."""

    key: str
    why: Why
    cap: int = 0


Action = Step | Trip | Clear


def decide(
    line: Line, standing: Standing | None, told: frozenset[int], *, needed: int = 0, role: str = ""
) -> list[Action]:
    """What a cap in its present window asks for.

    Args:
        line: the cap and its spend.
        standing: its trip, if it has tripped.
        told: steps of this cap that were written already.
        needed: what a claim of `role` needs, if one was refused for want of room.
        role: ``project/role`` of that claim.
    """
    actions: list[Action] = [
        Step(line=line, percent=step)
        for step in STEPS
        if line.used and 100 * line.used >= step * line.cap and step not in told
    ]
    if standing is not None:
        if line.used < line.cap and line.used + standing.needed <= line.cap:
            actions.append(Clear(key=line.key, why=Why.CAP_RAISED, cap=line.cap))
        return actions
    if line.used >= line.cap:
        actions.append(Trip(line=line, why=Why.FULL, needed=needed, role=role))
    elif line.used + needed > line.cap:
        actions.append(Trip(line=line, why=Why.NO_ROOM, needed=needed, role=role))
    return actions


def over(standing: Standing, now: datetime, *, capped: bool) -> Clear | None:
    """The end of a trip whose window is over, or whose cap is no more (`capped`: there is a cap in its window's place)."""
    if standing.until is not None and now >= standing.until:
        return Clear(key=standing.key, why=Why.WINDOW_ENDED)
    return None if capped else Clear(key=standing.key, why=Why.CAP_REMOVED)


def refusal(trip: Trip, since: datetime) -> Refusal:
    """The standing refusal of a trip, in the words that people and runners get."""
    line = trip.line
    because = f"{amount(line.used, line.unit)} of {amount(line.cap, line.unit)} are used"
    allowed = "what runs already finishes; other roles work on"
    if line.window == "tree":
        because += f" by this run tree, by the cap of {line.declared}"
        allowed = "what of the tree runs already finishes; other trees go on"
    else:
        because += f" in this {line.window if line.window != '5h' else '5 h window'}"
    if trip.why is Why.NO_ROOM:
        because += f", and {trip.role or 'a claim'} needs {amount(trip.needed, line.unit)}"
    return Refusal(
        reason=Reason.CAPPED,
        scope=line.scope,
        because=because,
        since=since,
        until=line.until,
        command=f"systems quota raise {line.declared or line.scope} --to N --unit {line.unit} --window {line.window} --reason TEXT",
        allowed=allowed,
    )


def amount(value: int, unit: str) -> str:
    """An amount as people read it: ``1,200,000 tokens``, ``2.50 USD``."""
    return f"{value:,} tokens" if unit == "tokens" else f"{value / 1_000_000:,.2f} USD"

"""Spend caps being neared, reached, raised and repaired, as events on ``ctl.quota.<scope>.<event>``.

The scope is the token of :func:`bus.spend.scope_token`: ``system``, ``shop``, ``shop_coder``, ``tree_<root>``.
Amounts are tokens, or millionths of a US dollar, as the unit says.
"""

from __future__ import annotations

import msgspec

from bus.events.moment import Moment


class Stepped(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A share of a cap is used: 50, 75 or 90 per cent. A concern."""

    key: str
    percent: int
    used: int
    held: int
    cap: int


class Tripped(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A cap is reached: its scope gets no more work. One per cap and trip."""

    key: str
    used: int
    held: int
    cap: int
    #: What did not fit any more; 0 when the cap was simply full.
    needed: int = 0
    #: ``project/role`` of the claim that did not fit.
    role: str = ""
    until: Moment | None = None


class Reset(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A trip is over: its window ended, or its cap was raised."""

    key: str
    why: str
    cap: int = 0


class CapSet(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A person set or raised a cap."""

    unit: str
    window: str
    before: int | None
    after: int
    reason: str
    until: Moment | None = None


class Repaired(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A counter differed from the log and was brought back to it."""

    key: str
    counter: int | None
    log: int
    #: Stream sequence of INVOCATIONS that the log was folded to.
    seq: int
    why: str = ""


class Refused(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A role cannot be counted (no price, no declared maximum) and gets no work. One per role and cause."""

    role: str
    reason: str
    sentence: str


class Repriced(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Spend was computed again with other prices."""

    before: int
    after: int
    wrong_refusals: int = 0
    missed_refusals: int = 0
    reason: str = ""


EVENTS: dict[str, type[msgspec.Struct]] = {
    "stepped": Stepped,
    "tripped": Tripped,
    "reset": Reset,
    "cap_set": CapSet,
    "repaired": Repaired,
    "refused": Refused,
    "repriced": Repriced,
}

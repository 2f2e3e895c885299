"""What a process has counted for claims that are still to come: an advance, so that a claim need not wait for an answer.

An advance is on the counter before anybody is granted anything of it, like every reservation; so it cannot make the granted
amounts pass a cap, it only takes room from others for a moment. It is taken on counters of which more than half is free, as
large as what would be granted in some periods like the last one, and goes back within a period when nobody claims. What a counter was not
seen to say for :data:`FRESH_S` is not drawn on: then nobody knows that it is still there.

Plain state; the clock comes from the outside.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from bus.spend.keys import Limit, amount

#: Seconds for which an answer of the server is believed.
FRESH_S = 0.1
#: An advance is what was granted in one period, times this: claims come in bursts.
_PERIODS = 4


class _Seen(msgspec.Struct, frozen=True):
    """A counter's total above its base, and when the server said so."""

    used: int
    at: float


class Advances:
    """One process' advances, by counter."""

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self._have: dict[str, int] = {}
        #: Granted in this period, and what is to be at hand because of the last one.
        self._granted: dict[str, int] = {}
        self._aim: dict[str, int] = {}
        self._caps: dict[str, int] = {}
        self._seen: dict[str, _Seen] = {}
        self._began = 0.0

    def __bool__(self) -> bool:
        return bool(self._have)

    def draw(self, tokens: int, usd_micros: int, limits: tuple[Limit, ...], now: float) -> bool:
        """Take a need from the advances on all its counters; False: there is too little, and nothing was taken."""
        for limit in limits:
            seen = self._seen.get(limit.key)
            if seen is None or now - seen.at > FRESH_S or seen.used > limit.cap:
                return False
            if amount(limit.key, tokens, usd_micros) > self._have.get(limit.key, 0):
                return False
        for limit in limits:
            self._have[limit.key] = self._have.get(limit.key, 0) - amount(limit.key, tokens, usd_micros)
        self.granted(tokens, usd_micros, limits)
        return True

    def granted(self, tokens: int, usd_micros: int, limits: tuple[Limit, ...]) -> None:
        """Learn what claims need."""
        for limit in limits:
            self._granted[limit.key] = self._granted.get(limit.key, 0) + amount(limit.key, tokens, usd_micros)
            self._caps[limit.key] = limit.cap

    def changes(self, asked: Mapping[str, int], now: float, *, closing: bool = False) -> dict[str, int]:
        """By how much the counters are to be moved for advances now. What goes back cannot be drawn any more.

        Args:
            asked: what is reserved in the same messages.
            now: monotonic seconds.
            closing: give all of it back.
        """
        if now - self._began >= self._period_s:
            self._aim = {key: _PERIODS * granted for key, granted in self._granted.items() if granted}
            self._caps = {key: cap for key, cap in self._caps.items() if key in self._aim or key in self._have}
            self._granted, self._began = {}, now
        found: dict[str, int] = {}
        for key in self._have.keys() | self._aim.keys():
            have = self._have.get(key, 0)
            aim = 0 if closing else self._aim.get(key, 0)
            seen = self._seen.get(key)
            if seen is None or 2 * (seen.used + aim - have + asked.get(key, 0)) > self._caps.get(key, 0):
                aim = 0
            if aim < have:
                self._have[key] = aim
            if not self._have.get(key, 0):
                self._have.pop(key, None)
            if have or aim:
                found[key] = aim - have
        return found

    def counted(self, changes: Mapping[str, int], totals: Mapping[str, int], now: float) -> None:
        """The server has counted: advances may be drawn on from now. A counter below zero is gone, and its advance with it."""
        self._seen = {key: seen for key, seen in self._seen.items() if key in self._have or now - seen.at <= FRESH_S}
        for key, used in totals.items():
            self._seen[key] = _Seen(used, now)
            if used < 0:
                del self._seen[key]
                self._have.pop(key, None)
            elif changes.get(key, 0) > 0:
                self._have[key] = self._have.get(key, 0) + changes[key]

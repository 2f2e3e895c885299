"""Restart intensity, as in OTP: a process that keeps dying is given up on, and the failure climbs to a person.

Pure: times are seconds of a monotonic clock, in the order of the exits.
"""

from __future__ import annotations

import msgspec

from services.fleet.daemons import Restart, RestartBy

#: Seconds until the first restart, doubled with each exit within the period: a port or a lock needs a moment to be free again.
FIRST_DELAY_S = 0.1
#: The longest that a restart waits: the intensity, not the delay, is what ends a loop of crashes.
LONGEST_DELAY_S = 5.0


class Again(msgspec.Struct, frozen=True):
    """Start it again after a delay."""

    delay_s: float


class GiveUp(msgspec.Struct, frozen=True):
    """Leave it down: it exited `exits` times within `period_s` seconds, or only a person may restart it."""

    exits: int
    period_s: float
    by: RestartBy = RestartBy.ALWAYS

    @property
    def why(self) -> str:
        """The reason, for people."""
        if self.by is RestartBy.HUMAN:
            return "only a person restarts it"
        return f"restarted too often ({self.exits} exits in {self.period_s:g} s)"


def recent(exits: tuple[float, ...], now: float, spec: Restart) -> tuple[float, ...]:
    """The exits that still count at `now`."""
    return tuple(at for at in exits if now - at < spec.period)


def decide_restart(
    exits: tuple[float, ...], now: float, spec: Restart, by: RestartBy = RestartBy.ALWAYS
) -> Again | GiveUp:
    """What follows the last of `exits`: up to ``spec.exits`` within ``spec.period`` seconds are followed by a restart.

    None is, whatever the intensity, of what only a person restarts.
    """
    count = len(recent(exits, now, spec))
    if by is RestartBy.HUMAN:
        return GiveUp(count, spec.period, by)
    if count > spec.exits:
        return GiveUp(count, spec.period)
    # 2**16 is far above the longest delay: a fleet may allow any number of exits.
    return Again(min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** min(max(count - 1, 0), 16)))

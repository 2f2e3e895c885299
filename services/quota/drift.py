"""How far a counter is from the log, and by how much it may be moved. Pure: looks in, a correction out.

A counter moves before a claim is written and after its end, so beside work under way it is too high, and rightly so. A look
is *quiet* when the counter did not move around it while the log was read to its end: then a counter that is below the log
is wrong, and one that is above it was at least not lowered by what is on its way. Lowering it by budget that is on its way
would let that pass the cap, so it is lowered at a quiet look only, by the smallest excess of a whole minute.
"""

from __future__ import annotations

from collections import deque

import msgspec

from bus.spend import BASE

#: Seconds that an excess must have been there.
LOWER_S = 60.0
#: Looks that must have seen it.
LOWER_LOOKS = 3
#: Looks on a counter that never rests until what it lacks is believed.
RAISE_LOOKS = 3


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """A counter beside the log."""

    #: Monotonic seconds.
    at: float
    #: Total of the counter; None when there is none.
    counter: int | None
    #: What it should be, without its base.
    log: int
    #: The counter did not move meanwhile.
    quiet: bool

    @property
    def excess(self) -> int:
        """What the counter has too much; below 0 what it lacks."""
        return (self.counter or 0) - BASE - self.log

    @property
    def missing(self) -> bool:
        """It was never seeded, or was deleted: whatever it says is no total."""
        return self.counter is None or self.counter < BASE // 2

    @property
    def absurd(self) -> bool:
        """It was seeded twice."""
        return self.excess > BASE // 2


class Drift:
    """What the last looks at one counter saw."""

    def __init__(self) -> None:
        self._over: deque[Look] = deque()
        self._under: deque[Look] = deque(maxlen=RAISE_LOOKS)

    def correction(self, look: Look) -> int:
        """By how much the counter is to be moved now; 0 for not (yet)."""
        if look.absurd or (look.quiet and look.excess < 0) or (look.counter is None and not look.log):
            return self._done(-look.excess)
        if look.missing:
            self._under.append(look)
            # What moves a counter that is not there is refused claims, which are taken back: they are no part of the total.
            return self._done(BASE + look.log - min(0, look.counter or 0)) if len(self._under) == RAISE_LOOKS else 0
        if look.excess < 0:
            self._over.clear()
            self._under.append(look)
            if len(self._under) == RAISE_LOOKS:
                return self._done(-max(item.excess for item in self._under))
            return 0
        self._under.clear()
        if not look.excess:
            self._over.clear()
            return 0
        self._over.append(look)
        # One look that is old enough stays: it says that the excess was there all the time.
        while len(self._over) > 1 and look.at - self._over[1].at >= LOWER_S:
            self._over.popleft()
        if look.quiet and len(self._over) >= LOWER_LOOKS and look.at - self._over[0].at >= LOWER_S:
            return self._done(-min(item.excess for item in self._over))
        return 0

    def _done(self, correction: int) -> int:
        self._over.clear()
        self._under.clear()
        return correction

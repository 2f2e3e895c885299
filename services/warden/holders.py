"""Who holds claims and is alive, replaced, or gone. Pure: fed with heartbeats, asked for a verdict.

"Gone" must be knowledge, not silence. A daemon that said its end, or whose place was taken by a new boot id, is gone at
once. A heartbeat that expired counts after a moment, and only if the bus itself was there all the time: when the server was
away, every heartbeat has expired and nobody has died.
"""

from __future__ import annotations

from bus.events.invocation import SweepReason
from bus.liveness import BEAT_S, Heartbeat

#: Seconds that an expired heartbeat must stay so: a server that was stopped delivers the expiry just before the beats
#: that wait in the clients' buffers.
_EXPIRED_FOR_S = 1.0
#: Seconds after the bus came (back) during which a missing heartbeat proves nothing.
GRACE_S = 1.5 * BEAT_S


class Holders:
    """What is known of each boot id."""

    def __init__(self) -> None:
        self.alive: dict[str, Heartbeat] = {}
        self._ended: set[str] = set()
        self._expired_at: dict[str, float] = {}
        self._seats: dict[tuple[str, str, str], Heartbeat] = {}

    def beat(self, heartbeat: Heartbeat) -> None:
        """Somebody is there."""
        self.alive[heartbeat.boot_id] = heartbeat
        self._expired_at.pop(heartbeat.boot_id, None)
        seated = self._seats.get(heartbeat.seat)
        if seated is None or seated.started_at <= heartbeat.started_at:
            self._seats[heartbeat.seat] = heartbeat

    def gone(self, boot_id: str, *, expired: bool, now: float) -> None:
        """A heartbeat ended (`expired` False: it was taken back by its daemon or by the launcher that saw it die)."""
        self.alive.pop(boot_id, None)
        if expired:
            self._expired_at[boot_id] = now
        else:
            self._ended.add(boot_id)

    def verdict(self, boot_id: str, *, now: float, up_since: float) -> SweepReason | None:
        """Why the claims of a holder may be swept; None while it lives, or nothing is known for sure.

        `up_since` is the monotonic second since which we have heard of every heartbeat without a break.
        """
        heartbeat = self.alive.get(boot_id)
        if heartbeat is not None:
            seated = self._seats[heartbeat.seat]
            if seated.boot_id != boot_id and seated.boot_id in self.alive:
                return SweepReason.HOLDER_REPLACED
            return None
        if boot_id in self._ended:
            return SweepReason.HOLDER_GONE
        if now - up_since < GRACE_S or now - self._expired_at.get(boot_id, 0.0) < _EXPIRED_FOR_S:
            return None
        return SweepReason.HOLDER_GONE

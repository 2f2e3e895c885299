"""The gate that every write passes: whether the kill switch, or a standing trip, refuses it right now.

One gate for each connection. It hears of a flag the moment it is put (a plain subscription) and confirms it by reading the
flags once a second; when it could not confirm for :data:`STALE_S` it refuses, because nobody can say that the switch is
clear. What stays writable is :data:`ALWAYS`, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable

from bus.connection import Connection
from bus.flags import KillSwitch
from bus.refusal import Refusal
from bus.store import Store

#: Seconds without a confirmed look at the flags after which writes are refused.
STALE_S = 5.0
#: What may be written in a freeze, by the beginning of its subject: people's flags, heartbeats, standing trips, the record
#: (receipts, guards, incidents, what people did), counters that follow the log, the copies of dead letters, acknowledgements.
ALWAYS = ("$KV.flags.", "$KV.liveness.", "$KV.trips.", "ctl.", "spend.", "dlq.", "$JS.ACK.", "$JS.API.", "_INBOX.")


class Gate:
    """Whether writes may go out."""

    def __init__(self, connection: Connection, store: Store, *, also: tuple[str, ...] = ()) -> None:
        self._connection = connection
        self._store = store
        #: Beginnings of subjects that this client may write in a freeze beside :data:`ALWAYS`: a person's own tools.
        self._also = also
        self.switch = KillSwitch()
        #: Standing trips, by key of the bucket ``trips``.
        self.trips: dict[str, Refusal] = {}
        #: Called (without arguments) after each change of the switch or the trips.
        self.listeners: list[Callable[[], None]] = []

    async def open(self) -> None:
        """Read the flags and trips once, then keep watching."""

    async def close(self) -> None:
        """Stop watching."""

    @property
    def closed(self) -> bool:
        """Writes are refused right now: frozen, or not verified."""
        return False

    async def opened(self) -> None:
        """Wait until writes may go out."""

    def refusal(self, *, role: str = "", root: str = "") -> Refusal | None:
        """Why work may not go on: the switch first, then the trips that cover a ``project/role`` or a run tree."""
        return None

    def check(self, subject: str) -> None:
        """Pass if a message may be written to a subject.

        Raises:
            bus.refusal.GuardRefused: it may not; the refusal says why and until when.
        """

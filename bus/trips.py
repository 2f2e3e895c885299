"""Standing refusals, in the bucket ``trips``: a guard that has tripped and stays so until its end, or until somebody clears it.

Every client watches the bucket (through :class:`bus.gate.Gate`), so a trip holds on every path of the fleet, survives every
restart, and is shown everywhere with the same words. One key for each trip; the value is its :class:`bus.refusal.Refusal`.
"""

from __future__ import annotations

import msgspec

from bus.bucket import Bucket, Entry
from bus.refusal import Refusal

#: Name of the bucket.
BUCKET = "trips"
#: The one key that is no refusal: how fast a thaw releases the backlog.
RAMP = "ramp"


class Ramp(msgspec.Struct, frozen=True, kw_only=True):
    """After a thaw: how many invocations each runner may claim."""

    per_second: float


def quota_key(counter: str) -> str:
    """Key of a reached cap, by its counter: ``quota.<scope>.<unit>.<window>``."""
    return f"quota.{counter}"


def pause_key(project: str, role: str) -> str:
    """Key of a paused role."""
    return f"pause.{project}.{role}"


def tree_key(root: str) -> str:
    """Key of a run tree that the loop breaker has stopped."""
    return f"tree.{root}"


def read(entry: Entry) -> Refusal | None:
    """The refusal in an entry; None when it is gone.

    Raises:
        msgspec.DecodeError: it is no refusal.
    """
    return None if entry.gone else msgspec.json.decode(entry.value, type=Refusal)


class Trips:
    """Puts and clears standing refusals."""

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket

    async def put(self, key: str, refusal: Refusal) -> None:
        """Let a refusal stand; over an earlier one of the same key."""
        await self.bucket.put(key, msgspec.json.encode(refusal))

    async def clear(self, key: str) -> None:
        """End a refusal. Nothing happens when there is none."""
        if await self.bucket.get(key) is not None:
            await self.bucket.delete(key)

    async def all(self) -> dict[str, Refusal]:
        """All that stand, by key."""
        return {
            key: msgspec.json.decode(entry.value, type=Refusal)
            for key, entry in (await self.bucket.items()).items()
            if key != RAMP
        }

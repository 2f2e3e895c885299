"""The loop breaker on the live bus: it follows the log, and stops a run tree that goes too far.

It folds every request and every result into trees (:mod:`services.loop.tree`); on a trip it lets a refusal stand under
``tree.<root>``, which every client obeys, and writes one ``loop.tripped``. What of the tree runs already finishes; what it
asks for is refused, and its queued work becomes dead letters when a runner gets it. Clearing is taking the refusal away.

The fold is kept in ``loops.checkpoint``, a cache like the sweeper's. While the log is read again after a restart nothing is
decided on trees that have ended since, and a trip that a person cleared stays cleared.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import msgspec
import structlog

from bus.events import invocation as ev
from bus.follower import Follower
from bus.ids import key_id
from bus.store import CONTROL, INVOCATIONS, Recorded, read
from bus.trips import tree_key
from services.daemon import Bus
from services.fleet.registry import Registry
from services.loop import breaker
from services.loop.tree import Forest, Trip
from services.patience import insist
from services.warden import checkpoint
from services.warden.reading import LogTrimmed, unbroken

log = structlog.get_logger()

#: Events that say anything about a tree; claims, the most of the rest, do not.
_SUBJECTS = [
    f"inv.*.*.*.{name}"
    for name in ("requested", "scheduled", "completed", "failed", "cancelled", "dead_lettered", "discarded")
]
#: Seconds between two checkpoints.
_SAVE_EVERY_S = 20.0
#: Seconds until a stop is tried again that the server did not take.
_AGAIN_S = 0.5
#: Version of the file's shape; another one is passed over.
_SHAPE = 1
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """The forest at a sequence of one particular stream."""

    shape: int
    created: str
    forest: Forest

    @property
    def position(self) -> int:
        """Sequence up to which it was folded."""
        return self.forest.position


class Loops:
    """Follows the log, stops trees, and heeds people who clear them."""

    def __init__(
        self, bus: Bus, registry: Registry, folder: Path, price: Callable[[ev.Usage], int] = lambda _usage: 0
    ) -> None:
        self._bus = bus
        self._registry = registry
        self._file = folder / "loops.checkpoint"
        #: Millionths of a US dollar that a use costs.
        self._price = price
        self.forest = Forest()
        #: When a person last let a tree go on, by root.
        self._cleared: dict[str, datetime] = {}
        self._stops: asyncio.Queue[tuple[str, Trip]] = asyncio.Queue()
        self._caught_up = False
        #: Trees stopped since the start.
        self.stopped = 0

    async def run(self) -> None:
        """For ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow())
            group.create_task(self._heed_clears())
            group.create_task(self._stop_for_ever())

    async def _follow(self) -> None:
        while True:
            try:
                await self._fold()
            except LogTrimmed as exc:
                log.warning("trees_folded_anew", error=str(exc))
                self._caught_up = False

    async def _fold(self) -> None:
        loop = asyncio.get_running_loop()
        info = await self._bus.connection.api(f"STREAM.INFO.{INVOCATIONS}")
        created, first, target = info["created"], info["state"]["first_seq"], info["state"]["last_seq"]
        kept = checkpoint.load(self._file, Checkpoint, shape=_SHAPE, created=created, first=first, last=target)
        self.forest = kept.forest if kept is not None else Forest()
        async for record in self._bus.store.read(CONTROL, "ctl.loop.*.cleared"):
            self._clear(record.subject.split(".")[2], record.stored_at)
        start = max(self.forest.position, first - 1)

        async def look_behind() -> None:
            await unbroken(self._bus.connection, follower.position)

        follower = Follower(self._bus.connection, INVOCATIONS, _SUBJECTS, start=start + 1, on_begin=look_behind)
        if await self._nothing_after(self.forest.position):
            self._catch_up()
        saved_at = loop.time()
        async for batch in follower.batches():
            for item in batch:
                self.take(read(item.seq, item.subject, datetime.fromtimestamp(item.stored_ns / 1e9, UTC), item.data))
            if not self._caught_up and (follower.position >= target or follower.pending == 0):
                # Trimmed while it was read: what was skipped would never be seen to end.
                await unbroken(self._bus.connection, start)
                self._catch_up()
            if loop.time() - saved_at > _SAVE_EVERY_S:
                self._save(created)
                saved_at = loop.time()
            # A long replay must not starve the heartbeat.
            await asyncio.sleep(0)

    def _save(self, created: str) -> None:
        checkpoint.save(self._file, Checkpoint(shape=_SHAPE, created=created, forest=self.forest))

    async def _nothing_after(self, position: int) -> bool:
        lasts = [await self._bus.store.last(INVOCATIONS, subject) for subject in _SUBJECTS]
        return all(last is None or last.seq <= position for last in lasts)

    def take(self, record: Recorded) -> None:
        """Fold one record, and stop its tree if that is due."""
        found = self.forest.take(record, self._cost(record))
        if found is None:
            return
        tree, id_ = found
        if tree.tripped is not None or record.stored_at <= self._cleared.get(tree.root, _LONG_AGO):
            return
        tree.tripped = breaker.decide(tree, id_, record, self._registry.loop)
        if tree.tripped is not None and self._caught_up:
            self._stops.put_nowait((tree.root, tree.tripped))

    def _cost(self, record: Recorded) -> int:
        if not isinstance(record.data, ev.Completed | ev.Failed):
            return 0
        settled = record.data.settled
        return settled.usd_micros if settled is not None else self._price(record.data.usage)

    def _catch_up(self) -> None:
        self._caught_up = True
        log.info("trees_folded", sequence=self.forest.position, trees=len(self.forest.trees))
        for tree in self.forest.trees.values():
            if tree.tripped is not None:
                self._stops.put_nowait((tree.root, tree.tripped))

    async def _stop_for_ever(self) -> None:
        while True:
            root, trip = await self._stops.get()
            await insist(partial(self._stop, root, trip), "tree_not_stopped", again_s=_AGAIN_S, root=root)

    async def _stop(self, root: str, trip: Trip) -> None:
        """Let the refusal stand and write why; doing it again after a crash changes nothing."""
        if trip.at <= self._cleared.get(root, _LONG_AGO):
            return
        key, refusal = tree_key(root), breaker.refusal(root, trip)
        if await self._bus.trips.bucket.get(key) is None:
            await self._bus.trips.put(key, refusal)
            self.stopped += 1
            log.warning("tree_stopped", root=root, reason=str(trip.reason), count=trip.count, limit=trip.limit)
        event = self._bus.author.control(
            root, breaker.event(trip), root=root, event_id=key_id("loop.tripped", f"{root}@{trip.seq}")
        )
        last = await self._bus.store.last(CONTROL, event.subject)
        if last is None or last.event is None or last.event.id != event.id:
            await self._bus.store.append(event)

    async def _heed_clears(self) -> None:
        async for entry in self._bus.trips.bucket.watch():
            kind, _, root = entry.key.partition(".")
            if kind == "tree" and entry.gone:
                self._clear(root, entry.created)

    def _clear(self, root: str, at: datetime) -> None:
        self._cleared[root] = max(at, self._cleared.get(root, at))
        tree = self.forest.trees.get(root)
        if tree is not None and tree.tripped is not None and tree.tripped.at < at:
            tree.clear()
            log.info("tree_cleared", root=root)

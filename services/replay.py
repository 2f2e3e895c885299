"""Replay a recorded trace: each row asks a role at its recorded time, divided by a speed.

The replay counts from the log and not from its own memory of what it did: what it reports as completed are the events of
its own invocations, followed from the sequence where it began. It never outruns the log by more than a bounded number of
unanswered requests; when the log cannot keep the recorded pace, the replay falls behind and says by how much.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import msgspec

from bus import errors
from bus.events import invocation as ev
from bus.follower import Follower
from bus.store import INVOCATIONS, read
from bus.subjects import parse_event, parse_role
from services.daemon import Bus
from services.replay_file import TraceRow
from services.requests.requests import Ask, Requests
from services.tally import Tally

#: Requests under way at the same time.
_AT_ONCE = 512


class Replay:
    """One replay of one trace."""

    def __init__(
        self, bus: Bus, requests: Requests, role: str, rows: Iterable[TraceRow], *, speed: float | None
    ) -> None:
        self._bus = bus
        self._requests = requests
        self._role = role
        self._rows = rows
        #: None is as fast as the log takes it.
        self._speed = speed
        self.tally = Tally()
        self._ours: set[str] = set()
        #: Ends that were seen before their request was answered.
        self._early: dict[str, object] = {}
        self._finished = asyncio.Event()

    async def run(self, *, wait: bool = True) -> Tally:
        """Ask for every row; with `wait`, follow until each has ended.

        Raises:
            UnknownName: there is no such role.
            services.fleet.schema.InputMismatch: the role takes another input than a trace's.
        """
        project, name = parse_role(self._role)
        info = await self._bus.connection.api(f"STREAM.INFO.{INVOCATIONS}")
        filters = [f"inv.{project}.{name}.*.{event}" for event in ("completed", "failed", "dead_lettered", "cancelled")]
        follower = Follower(self._bus.connection, INVOCATIONS, filters, start=info["state"]["last_seq"] + 1)
        following = asyncio.create_task(self._follow(follower))
        try:
            await self._ask_all()
            if self.tally.done:
                self._finished.set()
            if wait:
                finished = asyncio.create_task(self._finished.wait())
                await asyncio.wait([finished, following], return_when=asyncio.FIRST_COMPLETED)
                finished.cancel()
                if following.done():
                    following.result()
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        return self.tally

    async def _ask_all(self) -> None:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        gate = asyncio.Semaphore(_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for row in self._rows:
                if self._speed is not None:
                    ahead = row.offset_s / self._speed - (loop.time() - begun)
                    self.tally.behind_s = max(0.0, -ahead)
                    if ahead > 0:
                        await asyncio.sleep(ahead)
                await gate.acquire()
                task = group.create_task(self._ask(row))
                task.add_done_callback(lambda _task: gate.release())
        self.tally.all_asked = True

    async def _ask(self, row: TraceRow) -> None:
        body = msgspec.json.encode({"input_tokens": row.input_tokens, "output_tokens": row.output_tokens})
        accepted = await self._requests.submit(Ask(role=self._role, input=msgspec.Raw(body), actor="replay"))
        self.tally.requested += 1
        self.tally.asked_input_tokens += row.input_tokens
        self.tally.asked_output_tokens += row.output_tokens
        early = self._early.pop(accepted.id, None)
        if early is not None:
            self._end(early)
        else:
            self._ours.add(accepted.id)

    async def _follow(self, follower: Follower) -> None:
        async for batch in follower.batches():
            for delivery in batch:
                record = read(delivery.seq, delivery.subject, self._bus.author.now(), delivery.data)
                if record.data is None:
                    continue
                try:
                    ref, _ = parse_event(delivery.subject)
                except errors.BadSubject:
                    continue
                self._take(ref.id, record.data)
            if self.tally.done:
                self._finished.set()

    def _take(self, id_: str, event: object) -> None:
        if isinstance(event, ev.Failed):
            if id_ in self._ours:
                self.tally.failed += 1
        elif id_ in self._ours:
            self._ours.discard(id_)
            self._end(event)
        elif not self.tally.all_asked:
            # Ended before its request's acknowledgement came back to us, or somebody else's.
            self._early[id_] = event

    def _end(self, event: object) -> None:
        match event:
            case ev.Completed(usage=usage):
                self.tally.completed += 1
                self.tally.input_tokens += usage.input_tokens
                self.tally.output_tokens += usage.output_tokens
            case ev.DeadLettered():
                self.tally.dead_lettered += 1
            case ev.Cancelled():
                self.tally.cancelled += 1

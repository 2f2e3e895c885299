"""One sweep: look, judge, compare with what is known, write what follows. One at a time.

A sweep that somebody asked for is on the record from its ``started`` on. A quick look in between is only when it finds that
something has changed; it leaves out what is slow, unless something of that is open and might be over.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import datetime

import msgspec
import structlog

from bus.events.finding import Kind
from bus.events.sweep import Finished, Started, Trigger, Verdict
from bus.store import CONTROL, DEAD_LETTERS, INVOCATIONS
from bus.topology import ADVISORIES
from services.daemon import Bus
from services.fleet.registry import Registry
from services.monitor import memory, rules
from services.monitor.ledger import Ledger
from services.monitor.look import SLOW, Looker
from services.monitor.memory import Known, Outcome
from services.monitor.ping import Pinger
from services.monitor.seen import Seen
from services.monitor.status import Done

log = structlog.get_logger()

#: Streams whose position a sweep keeps: what came later is looked at by the next.
_LOGS = frozenset({INVOCATIONS, CONTROL, DEAD_LETTERS, ADVISORIES})
#: Fingerprints that a sweep's event names.
_NAMED = 100
#: Seconds between two looks at what is slow, while something of it is open.
_SLOW_AGAIN_S = 60.0
#: Called with what is open after a change, and the fingerprints that are new or worse.
Listener = Callable[[tuple[Known, ...], tuple[str, ...]], Awaitable[None]]


class Sweeps:
    """Sweeps."""

    def __init__(
        self,
        bus: Bus,
        registry: Registry,
        looker: Looker,
        ledger: Ledger,
        pinger: Pinger,
        next_at: Callable[[], Awaitable[datetime | None]],
    ) -> None:
        self._bus = bus
        self._registry = registry
        self._looker = looker
        self._ledger = ledger
        self._pinger = pinger
        self._next_at = next_at
        self._turn = asyncio.Lock()
        self._slow_at = float("-inf")
        #: The last one that this process has made.
        self.last: Done | None = None
        self.listeners: list[Listener] = []

    async def sweep(
        self, trigger: Trigger, why: str = "", *, id_: str = "", begins: Callable[[], None] = lambda: None
    ) -> Done:
        """Look at everything, and write it down; `begins` is called when its turn has come."""
        async with self._turn:
            begins()
            id_ = id_ or self._bus.author.new_id()
            await self._bus.store.append(self._bus.author.control(id_, Started(trigger=trigger, why=why)))
            begun = time.perf_counter()
            seen, _ = await asyncio.gather(self._looker.look(self._registry.monitor), self._pinger.start())
            done = await self._finish(id_, trigger, why, await self._judge(seen, id_), seen, begun)
            said = f"{done.finished.verdict}: {done.finished.counts.open} open findings"
            await self._pinger.finish(done.finished.verdict, said)
            return done

    async def quick(self) -> Done | None:
        """Look at what is quickly seen; None when nothing has changed, and nothing was written."""
        async with self._turn:
            loop = asyncio.get_running_loop()
            slow_open = any(_slow(known) for known in self._ledger.known.values())
            skip = frozenset() if slow_open and loop.time() - self._slow_at > _SLOW_AGAIN_S else SLOW
            begun = time.perf_counter()
            seen = await self._looker.look(self._registry.monitor, skip=skip)
            if not skip:
                self._slow_at = loop.time()
            id_ = self._bus.author.new_id()
            outcome = await self._judge(seen, id_)
            if not outcome.steps:
                return None
            why = "something had changed"
            await self._bus.store.append(self._bus.author.control(id_, Started(trigger=Trigger.LOOK, why=why)))
            return await self._finish(id_, Trigger.LOOK, why, outcome, seen, begun)

    async def _judge(self, seen: Seen, id_: str) -> Outcome:
        await self._ledger.catch_up()
        limits = self._registry.monitor
        raised = self._ledger.standing(seen.at, limits.raise_stands)
        seen = msgspec.structs.replace(seen, raised=raised, ping_problem=self._pinger.problem)
        return memory.compare(
            self._ledger.known,
            rules.judge(seen, limits),
            hidden=lambda finding: rules.hidden(seen, finding),
            now=seen.at,
            sweep=id_,
        )

    async def _finish(self, id_: str, trigger: Trigger, why: str, outcome: Outcome, seen: Seen, begun: float) -> Done:
        for step in outcome.steps:
            await self._ledger.write(step)
        verdict = outcome.verdict
        if seen.unseen and verdict is Verdict.NOMINAL:
            verdict = Verdict.CONCERN  # also when somebody has silenced that it was not seen
        finished = Finished(
            trigger=trigger,
            verdict=verdict,
            counts=outcome.counts,
            took_ms=round((time.perf_counter() - begun) * 1000, 3),
            positions=positions(seen),
            unseen=tuple(str(unseen) for unseen in seen.unseen),
            findings=tuple(known.finding.fingerprint for known in outcome.known if known.speaks)[:_NAMED],
            next_at=await self._next_at(),
            why=why,
        )
        await self._bus.store.append(self._bus.author.control(id_, finished))
        await self._ledger.catch_up()
        self.last = Done(id=id_, at=self._bus.author.now(), finished=finished)
        log.info("swept_fleet", sweep=id_, trigger=trigger.value, verdict=verdict.value, open=outcome.counts.open)
        news = tuple(step.fingerprint for step in outcome.steps if memory.calls(step))
        for listener in self.listeners:
            await listener(outcome.known, news)
        return self.last


def positions(seen: Seen) -> dict[str, int]:
    """How far the logs were when they were looked at; empty when the server was not seen."""
    streams = seen.server.streams if seen.server is not None else ()
    return {stream.name: stream.last_seq for stream in streams if stream.name in _LOGS}


def _slow(known: Known) -> bool:
    """A finding of what a quick look leaves out."""
    finding = known.finding
    if finding.kind is Kind.UNSEEN:
        return finding.subject in {part.value for part in SLOW}
    return any(finding.kind in rule.kinds and rule.needs in SLOW for rule in rules.RULES)

"""Reads what a post-mortem is made of: the record, the tables, and the log that guards are replayed on."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from itertools import chain

import msgspec

from bus import errors
from bus.spend import Calendar
from bus.store import CONTROL, INVOCATIONS, Recorded
from services.daemon import Bus
from services.fleet.registry import Registry
from services.fleet.spec import LoopLimits
from services.guards.backtest import Backtest, Wanted
from services.incident.ledger import scope
from services.incident.postmortem import Bill, Findings, markdown
from services.incident.state import Incident
from services.incident.timeline import BESIDE, Line, timeline
from services.monitor.tables import Tables, TablesUnanswered, timestamp
from services.quota import caps, prices

#: Events of INVOCATIONS that guards are replayed on, at most: the warden has other work.
_REPLAYED = 50_000
#: What guards are replayed with.
_STRICTER = "half of the present limits, and one attempt"
_BILL = """
SELECT count(*) AS trees, CAST(coalesce(sum(errors + crashes), 0) AS BIGINT) AS failures,
       CAST(coalesce(sum(deaths), 0) AS BIGINT) AS deaths,
       CAST(coalesce(sum(input_tokens + output_tokens), 0) AS BIGINT) AS tokens,
       CAST(coalesce(sum(lost_usd), 0) AS DOUBLE) AS lost_usd
FROM v_failure_bill
WHERE last_at >= CAST($since AS TIMESTAMP) AND first_at <= CAST($until AS TIMESTAMP)
"""


class Drafter:
    """Drafts post-mortems."""

    def __init__(self, bus: Bus, registry: Registry) -> None:
        self._bus = bus
        self._registry = registry
        self._tables = Tables(bus.connection)

    async def draft(self, incident: Incident) -> str:
        """The post-mortem of an incident as it stands, as Markdown.

        Raises:
            BusError: the server does not answer.
        """
        until = incident.closed_at or self._bus.author.now()
        trials, unreplayed = await self._replay(incident.since, until)
        found = Findings(
            lines=await self.lines(incident),
            bill=await self._bill(incident.since, until),
            trials=trials.trials,
            stricter=_STRICTER,
            unreplayed=unreplayed,
        )
        return markdown(incident, found)

    async def lines(self, incident: Incident) -> list[Line]:
        """The timeline.

        Raises:
            BusError: the server does not answer.
        """
        records: dict[int, Recorded] = {}
        first, _ = await self._bus.store.since(CONTROL, "ctl.>", incident.since)
        own = (scope(incident.number), *(f"ctl.finding.{print_}.>" for print_ in incident.findings))
        for filter_ in chain(own, BESIDE if first else ()):
            start = 1 if filter_ == scope(incident.number) else max(first, 1)
            async for record in self._bus.store.read(CONTROL, filter_, start=start):
                records[record.seq] = record
        return timeline(incident, records.values())

    async def _bill(self, since: datetime, until: datetime) -> Bill:
        try:
            rows, _ = await self._tables.ask(_BILL, since=timestamp(since), until=timestamp(until))
            return msgspec.convert(rows[0], Bill, strict=False)
        except (TablesUnanswered, msgspec.ValidationError) as exc:
            return Bill(problem=str(exc))

    async def _replay(self, since: datetime, until: datetime) -> tuple[Backtest, str]:
        """The guards, replayed on what happened meanwhile; and why not all of it was."""
        registry = self._registry
        covers = caps.all_covers(registry, until)
        wanted = Wanted(
            caps={(cover.scope, cover.unit, cover.window): cover.cap // 2 for cover in covers},
            loop=_halved(registry.loop),
            max_attempts={role.path: 1 for role in registry.roles.values()},
        )
        test = Backtest(
            wanted, Calendar(registry.quota.time_zone), partial(prices.counted, prices=registry.quota.prices)
        )
        try:
            first, count = await self._bus.store.since(INVOCATIONS, "inv.>", since)
        except errors.ServerError as exc:
            return test, str(exc)
        if count > _REPLAYED:
            return test, (
                f"{count:,} events are more than the {_REPLAYED:,} that a draft looks at; "
                f"`systems guards backtest --since {since:%Y-%m-%dT%H:%M:%SZ}` looks at all"
            )
        if count:
            async for record in self._bus.store.read(INVOCATIONS, "inv.>", start=first):
                if record.stored_at > until:
                    break
                test.take(record)
        return test, ""


def _halved(limits: LoopLimits) -> LoopLimits:
    halves = {name: max(1, getattr(limits, name) // 2) for name in limits.__struct_fields__}
    return msgspec.structs.replace(limits, **halves)

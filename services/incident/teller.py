"""Tells affected projects by addresses of their own: the opening, each update, the closing, in words for each project.

It follows the record by a durable consumer, so what was said while the warden was away is told when it is back, in order and
at least once. All addresses of an event are told at the same time: one that does not answer holds up no other. What is on
the record as told is not told again, however late the server hears that it was. A project that cannot be told after a few
tries is left, and that is an event; its Slack channel is told by ``slack_mirror``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import structlog

from bus import wire
from bus.events import incident as ev
from bus.store import CONTROL, read
from bus.topology import INCIDENT_NEWS
from services.daemon import Bus
from services.fleet.registry import Registry
from services.incident import commands as ask
from services.incident import words
from services.incident.ledger import Ledger
from services.incident.state import Incident
from services.incident.ways import Apprise, Page, WayUnusable, held
from services.warden.durable import handle

log = structlog.get_logger()

#: Tries until a project is left untold.
_TRIES = 3


def news(incident: Incident, event: object) -> Iterator[tuple[str, str]]:
    """What an event of an incident tells which projects: project and text. Pure."""
    match event:
        case ev.Declared() | ev.Reopened():
            yield from ((project, words.opening(incident, project)) for project in incident.affected)
        case ev.Affected(added=added, removed=removed):
            for impact in added:
                if impact.project in incident.affected and incident.open:
                    yield impact.project, words.opening(incident, impact.project)
            for project in removed:
                if project not in incident.affected:
                    yield project, words.spared(incident, project, event.by)
        case ev.Updated():
            yield from ((project, words.update(incident, event, project)) for project in incident.affected)
        case ev.Mitigated():
            text = f"Incident {incident.number} does no more harm" + (f": {event.text}" if event.text else "")
            yield from ((project, text) for project in incident.affected)
        case ev.Closed():
            yield from ((project, words.closing(incident, project)) for project in incident.affected)
        case _:
            pass


class Teller:
    """Tells affected projects."""

    def __init__(
        self,
        bus: Bus,
        registry: Registry,
        ledger: Ledger,
        home: Path,
        environ: Mapping[str, str],
        pause_s: Callable[[int], float] = lambda tries: 2.0**tries,
    ) -> None:
        """Make it.

        Args:
            bus: where everything happens.
            registry: projects, and the addresses that they name.
            ledger: the incidents.
            home: the state directory, in which addresses may lie.
            environ: where they may lie as well.
            pause_s: seconds after so many tries that have failed.
        """
        self._bus = bus
        self._registry = registry
        self._ledger = ledger
        self._home = home
        self._environ = environ
        self._pause_s = pause_s

    async def run(self) -> None:
        """For ever."""
        await handle(self._bus, INCIDENT_NEWS, self._tell)

    async def _tell(self, delivery: wire.Delivery) -> None:
        token = delivery.subject.split(".")[2]
        stored_at = datetime.fromtimestamp(delivery.stored_ns / 1e9, UTC)
        record = read(delivery.seq, delivery.subject, stored_at, delivery.data)
        if record.data is None or not token.isdecimal():
            return
        await self._ledger.catch_up()
        incident = self._ledger.incidents.get(int(token))
        if incident is None:
            return
        title = f"[{incident.severity}] incident {incident.number}: {incident.title}"[:200]
        done = {(told.project, told.way) for told in await self._told(incident.number, record.seq)}
        calls = []
        for project, text in news(incident, record.data):
            known = self._registry.projects.get(project)
            for way in known.tell if known is not None else ():
                if (project, way) not in done:
                    page = Page(title=title, body=text)
                    calls.append(self._tell_one(incident.number, record.seq, project, way, page))
        for failed in filter(None, await asyncio.gather(*calls, return_exceptions=True)):
            raise failed  # it comes again, and those who are told are on the record

    async def _tell_one(self, number: int, about: int, project: str, way: str, page: Page) -> None:
        error = await self._send(project, way, page)
        told = ev.Told(project=project, way=way, about=about, ok=not error, error=error)
        await self._ledger.act(number, ask.Tell(told))
        if error:
            log.error("project_untold", incident=number, project=project, way=way, error=error)

    async def _told(self, number: int, about: int) -> list[ev.Told]:
        """What is on the record of this event's having been told: it was handled before."""
        records = self._bus.store.read(CONTROL, f"ctl.incident.{number}.told", start=about)
        told = [record.data async for record in records if isinstance(record.data, ev.Told)]
        return [one for one in told if one.about == about]

    async def _send(self, project: str, way: str, page: Page) -> str:
        limit_s = self._registry.settings.incidents.call_timeout
        error = ""
        for tries in range(_TRIES):
            if tries:
                await asyncio.sleep(self._pause_s(tries))
            try:
                url = held(way, f"{project} by its tell", self._home, self._environ)
            except WayUnusable as exc:
                return str(exc)
            error = await Apprise(url, limit_s).send(page)
            if not error:
                break
        return error

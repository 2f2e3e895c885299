"""What a person does to incidents, with the settings in effect: the same for the command line, Slack, and any page.

It appends under the incident's fence from wherever it runs, so incidents can be handled while the warden is away, and in a
freeze: the record is never frozen.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from bus import errors
from bus.events import incident as ev
from bus.events.finding import Severity
from services.daemon import Bus
from services.fleet.registry import Registry
from services.incident import commands as ask
from services.incident.decision import MACHINES, IncidentRefused
from services.incident.drafting import Drafter
from services.incident.ledger import Ledger
from services.incident.state import Incident
from services.incident.timeline import Line
from services.monitor.ledger import Ledger as Findings

#: Characters of a title and of other texts: they end in an event, a chat message and a table.
TITLE_LIMIT, TEXT_LIMIT = 200, 4000


class Desk:
    """Acts for one person."""

    def __init__(self, bus: Bus, registry: Registry, who: str) -> None:
        """Make it.

        Args:
            bus: where everything happens.
            registry: projects, people and settings.
            who: the person; in every event.
        """
        self._bus = bus
        self._registry = registry
        self._who = who
        self.ledger = Ledger(bus)

    async def all(self) -> list[Incident]:
        """Every incident, the newest first.

        Raises:
            BusError: the server does not answer.
        """
        await self.ledger.catch_up()
        return [one for _, one in sorted(self.ledger.incidents.items(), reverse=True)]

    async def find(self, number: str) -> Incident:
        """One incident.

        Raises:
            UnknownName: there is none with this number.
        """
        await self.ledger.catch_up()
        return self.ledger.find(number)

    async def declare(
        self, title: str, *, severity: Severity, projects: Sequence[str] = (), detail: str = "", finding: str = ""
    ) -> Incident:
        """Open an incident; of a finding that has an open one already, that one.

        Raises:
            IncidentRefused: the title says nothing, or no person declares it.
            UnknownName: there is no such project, or no such open finding.
        """
        title = " ".join(title.split())[:TITLE_LIMIT]
        if not title:
            raise IncidentRefused("expected a title that says what is wrong, got an empty one")
        self._must_be_person("declare")
        now = self._bus.author.now()
        known = None
        if finding:
            findings = Findings(self._bus)
            await findings.catch_up()
            if finding not in findings.known:
                raise errors.UnknownName("open finding", finding, findings.known)
            known = findings.known[finding].finding
        event = ev.Declared(
            title=title,
            severity=severity,
            by=self._who,
            since=known.since if known is not None else now,
            detail=detail[:TEXT_LIMIT],
            command=known.command if known is not None else "",
            finding=finding,
            kind=known.kind if known is not None else None,
            subject=known.subject if known is not None else "",
            affected=tuple(self._impact(project, title) for project in projects),
            next_at=self._next(now),
        )
        return await self.ledger.declare(event)

    async def acknowledge(self, number: str, *, for_s: float | None = None, take: bool = False) -> Incident:
        """Have it: nobody is called until the acknowledgement ends, after `for_s` seconds or as the settings say.

        Raises:
            UnknownName, IncidentRefused: see :meth:`services.incident.ledger.Ledger.act`.
        """
        seconds = for_s if for_s is not None else self._registry.settings.incidents.acknowledged_for
        until = self._bus.author.now() + timedelta(seconds=seconds)
        return await self._act(number, ask.Acknowledge(by=self._who, until=until, take=take))

    async def update(self, number: str, text: str, *, words: Iterable[ev.Words] = ()) -> Incident:
        """Tell everybody who is affected.

        Raises:
            UnknownName, IncidentRefused: see :meth:`services.incident.ledger.Ledger.act`.
        """
        own = tuple(ev.Words(project=one.project, text=one.text[:TEXT_LIMIT]) for one in words)
        next_at = self._next(self._bus.author.now())
        return await self._act(number, ask.Update(by=self._who, text=text[:TEXT_LIMIT], projects=own, next_at=next_at))

    async def note(self, number: str, text: str) -> Incident:
        """Add to the timeline.

        Raises:
            UnknownName, IncidentRefused: see :meth:`services.incident.ledger.Ledger.act`.
        """
        return await self._act(number, ask.Note(self._who, text[:TEXT_LIMIT]))

    async def assign(self, number: str, commander: str) -> Incident:
        """Put somebody in command, or hand it over; anybody may be named, also who is not in the fleet file.

        Raises:
            UnknownName, IncidentRefused: see :meth:`services.incident.ledger.Ledger.act`.
        """
        return await self._act(number, ask.Assign(self._who, " ".join(commander.split())[:TITLE_LIMIT]))

    async def severity(self, number: str, severity: Severity, why: str = "") -> Incident:
        """Say how bad it is; to ultra, people are called from the first step on.

        Raises:
            UnknownName, IncidentRefused: see :meth:`services.incident.ledger.Ledger.act`.
        """
        return await self._act(number, ask.ChangeSeverity(self._who, severity, why[:TEXT_LIMIT]))

    async def affect(
        self, number: str, *, add: Sequence[str] = (), remove: Sequence[str] = (), why: str = ""
    ) -> Incident:
        """Say which projects it hits and which not; the graph does not overrule it.

        Raises:
            UnknownName: there is no such incident or project.
            IncidentRefused: nothing would change, or it is closed.
        """
        added = tuple(self._impact(project, why or f"says {self._who}") for project in add)
        return await self._act(number, ask.Affect(by=self._who, add=added, remove=tuple(remove)))

    async def mitigate(self, number: str, text: str = "") -> Incident:
        """Say that it does no more harm.

        Raises:
            UnknownName, IncidentRefused: see :meth:`services.incident.ledger.Ledger.act`.
        """
        return await self._act(number, ask.Mitigate(self._who, text[:TEXT_LIMIT]))

    async def close(self, number: str, cause: str, actions: Iterable[ev.Action] = ()) -> Incident:
        """Say that it is over.

        Raises:
            UnknownName, IncidentRefused: see :meth:`services.incident.ledger.Ledger.act`.
        """
        todo = tuple(ev.Action(text=one.text[:TEXT_LIMIT], owner=one.owner[:TITLE_LIMIT]) for one in actions)
        return await self._act(number, ask.Close(by=self._who, cause=cause[:TEXT_LIMIT], actions=todo))

    async def reopen(self, number: str, why: str) -> Incident:
        """Say that it is not over after all.

        Raises:
            UnknownName, IncidentRefused: see :meth:`services.incident.ledger.Ledger.act`.
        """
        next_at = self._next(self._bus.author.now())
        return await self._act(number, ask.Reopen(by=self._who, why=why[:TEXT_LIMIT], next_at=next_at))

    async def lines(self, incident: Incident) -> list[Line]:
        """The timeline.

        Raises:
            BusError: the server does not answer.
        """
        return await Drafter(self._bus, self._registry).lines(incident)

    async def export(self, incident: Incident) -> str:
        """The post-mortem as Markdown, as things stand now.

        Raises:
            BusError: the server does not answer.
        """
        return await Drafter(self._bus, self._registry).draft(incident)

    async def _act(self, number: str, command: ask.Command) -> Incident:
        return await self.ledger.act((await self.find(number)).number, command, actor=self._who)

    def _impact(self, project: str, reason: str) -> ev.Impact:
        known = {*self._registry.projects, *(name for name, _ in self._registry.roles)}
        if project not in known:
            raise errors.UnknownName("project", project, known)
        return ev.Impact(project=project, reason=reason[:TEXT_LIMIT], by=self._who)

    def _next(self, now: datetime) -> datetime:
        return now + timedelta(seconds=self._registry.settings.incidents.update_every)

    def _must_be_person(self, what: str) -> None:
        if self._who in MACHINES or "/" in self._who:
            raise IncidentRefused(f"expected a person to {what} an incident, got: {self._who or 'nobody'}")

"""Calls people until somebody acknowledges: orders what is due, carries out what is the warden's, and judges what became of it.

What is due is a function of the record and the time, and an order is appended under the incident's fence before anything
goes out: nothing is ordered after an acknowledgement, and a warden that dies with an order in hand carries it out again when it
is back (a person may be called twice, never not at all). An order that another carrier does not answer in time has failed.
Of several wardens, and of several launchers that stand in for one, the one that has started first calls; the others do what it
could not, or has not done in time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import structlog

from bus import errors
from bus.events import incident as ev
from services.daemon import Bus
from services.fleet.duty import Person
from services.incident import commands as ask
from services.incident import policy, words
from services.incident.decision import IncidentRefused, verdict_of
from services.incident.ledger import Ledger
from services.incident.policy import Duty
from services.incident.state import Incident, Line, answer
from services.incident.ways import Apprise, WayUnusable, address

log = structlog.get_logger()


class Pager:
    """Calls people."""

    def __init__(
        self,
        bus: Bus,
        ledger: Ledger,
        duty: Callable[[], Duty],
        home: Path,
        environ: Mapping[str, str],
        first: Callable[[], Awaitable[bool]],
    ) -> None:
        """Make it.

        Args:
            bus: where everything happens.
            ledger: the incidents.
            duty: who is to be called, by the settings in effect.
            home: the state directory, in which addresses may lie.
            environ: where they may lie as well.
            first: whether no other warden goes before this one.
        """
        self._bus = bus
        self._ledger = ledger
        self._duty = duty
        self._first = first
        self._home = home
        self._environ = environ
        #: Calls in hand, by the id of their order.
        self._calls: dict[str, asyncio.Task[None]] = {}
        #: Orders that this one has carried out although another one goes first.
        self._tried: set[str] = set()
        #: Rounds of incidents of which it was said that nobody is called.
        self._silent: set[tuple[int, int]] = set()

    async def turn(self) -> None:
        """Order, carry out and judge what is due now, the oldest incident first.

        Raises:
            BusError: the server does not answer.
        """
        now, duty = self._bus.author.now(), self._duty()
        for incident in self._ledger.open:
            if incident.pages:
                await self._order(incident, duty, now)
        known = {line.page for incident in self._ledger.open for line in incident.lines}
        self._tried &= known
        first = not known or await self._first()
        for incident in self._ledger.open:
            await self._answer_for_others(incident, duty, now)
            if incident.pages:
                self._carry_out(incident, duty, now, first=first)
            if verdict_of(self._ledger.incidents[incident.number]) is not None:
                await self._judge(incident.number)

    async def close(self) -> None:
        """Give up the calls in hand: their orders stay, and are carried out at the next start."""
        calls = list(self._calls.values())
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    async def _order(self, incident: Incident, duty: Duty, now: datetime) -> None:
        if not policy.reaches(incident, duty, now) and (incident.number, incident.round) not in self._silent:
            self._silent.add((incident.number, incident.round))
            log.error(
                "incident_calls_nobody",
                incident=incident.number,
                title=incident.title,
                remedy="name a policy in [incidents] escalation of the fleet file, and people in [people]",
            )
        for order in policy.due(incident, duty, now):
            try:
                await self._ledger.act(incident.number, ask.Page(order))
            except IncidentRefused as exc:
                log.info("page_not_due", incident=incident.number, why=str(exc))
                return

    async def _answer_for_others(self, incident: Incident, duty: Duty, now: datetime) -> None:
        """An order that is nobody's any more, because its carrier is away, has failed."""
        limit = timedelta(seconds=duty.limits.answer_within)
        for line in self._ledger.incidents[incident.number].lines:
            if line.waits and line.carrier is not ev.Carrier.APPRISE and now - line.due_at > limit:
                error = f"slack_mirror did not answer within {duty.limits.answer_within:g} s"
                await self._answer(incident.number, line, error, (now - line.due_at).total_seconds())

    def _carry_out(self, incident: Incident, duty: Duty, now: datetime, *, first: bool) -> None:
        for line in self._ledger.incidents[incident.number].lines:
            if len(self._calls) >= duty.limits.calls:
                return
            if line.page in self._calls or not (line.waits if first else self._left(line, duty, now)):
                continue
            if line.carrier is ev.Carrier.APPRISE:
                self._tried.add(line.page)
                call = asyncio.create_task(self._call(incident.number, line, duty), name=f"page {line.page}")
                self._calls[line.page] = call
                call.add_done_callback(partial(self._done, line.page))

    def _left(self, line: Line, duty: Duty, now: datetime) -> bool:
        """Whether the one that goes first has left an order undone: it failed there, or was not answered."""
        if line.page in self._tried:
            return False
        # Longer than a call may take, so that nobody is called while another call is on its way.
        return now - line.due_at > timedelta(seconds=2 * duty.limits.call_timeout) if line.waits else line.failing

    def _done(self, page: str, call: asyncio.Task[None]) -> None:
        self._calls.pop(page, None)
        if not call.cancelled() and (exc := call.exception()) is not None:
            # Its order stays unanswered on the record, and the next turn carries it out again.
            log.warning("page_unanswered", page=page, error=str(exc))

    async def _call(self, number: int, line: Line, duty: Duty) -> None:
        begun = asyncio.get_running_loop().time()
        await self._ledger.catch_up()
        incident = self._ledger.incidents[number]
        if not incident.pages or line not in incident.lines:
            return  # somebody has acknowledged it, or has answered this very order, since
        try:
            known = duty.people.get(line.person, Person())
            url = address(line.person, line.way, known, self._home, self._environ)
        except WayUnusable as exc:
            error = str(exc)
        else:
            error = await Apprise(url, duty.limits.call_timeout).send(words.page(incident, self._bus.author.now()))
        await self._answer(number, line, error, asyncio.get_running_loop().time() - begun)

    async def _answer(self, number: int, line: Line, error: str, took_s: float) -> None:
        facts = {"incident": number, "person": line.person, "way": line.way, "attempt": line.attempt}
        try:
            await self._ledger.act(number, ask.Answer(answer(line, error, took_s)))
        except IncidentRefused as exc:
            log.info("page_answered_already", **facts, why=str(exc))
            return
        if error:
            log.error("page_failed", **facts, error=error)
        else:
            log.info("paged", **facts)

    async def _judge(self, number: int) -> None:
        try:
            after = await self._ledger.act(number, ask.Judge())
        except (IncidentRefused, errors.UnknownName) as exc:
            log.info("paging_judged_already", incident=number, why=str(exc))
            return
        if after.paging_failed_at is not None:
            log.error(
                "paging_failed", incident=number, ways=[f"{x.person} by {x.way}: {x.error}" for x in after.failing]
            )
        else:
            log.info("paging_recovered", incident=number)

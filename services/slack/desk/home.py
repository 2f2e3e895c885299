"""App Home: the live fleet-health panel of whoever opens it, with what they may do about what they see.

Slack tells when somebody opens the tab and never when they leave, so a tab is kept up to date for some minutes after it was
opened, and only when it would show something else. Nobody looks: nothing is gathered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

import msgspec
import structlog

from bus import errors
from bus.flags import Mode
from services.health.gather import gather
from services.health.panel import Panel
from services.incident.desk import Desk as Incidents
from services.incident.state import Incident
from services.monitor.ledger import Ledger
from services.ops.deciding import Proposal
from services.quota.lines import text as cap_text
from services.slack.desk import blocks as kit
from services.slack.desk import buttons, incidents, panel, permission
from services.slack.desk.blocks import Block
from services.slack.desk.desk import Desk
from services.slack.desk.permission import Permission, Who
from services.slack.desk.reply import FAULTS
from services.slack.markup import escaped, inert

log = structlog.get_logger()

#: Seconds for which a tab is kept up to date after it was opened, and between two looks.
WATCH_S, LOOK_S = 900.0, 5.0
#: Seconds after which a tab is shown again though only ages differ.
_AGES_S = 60.0
#: Tabs that are kept up to date at once: the last that were opened.
_MOST = 20
#: Incidents, caps and proposals of a tab.
_INCIDENTS, _CAPS, _PROPOSALS = 6, 5, 5

May = Callable[[Permission], bool]


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What a tab shows."""

    panel: Panel
    incidents: tuple[Incident, ...] = ()
    #: Proposals that wait for a person, with their words.
    proposals: tuple[tuple[Proposal, str], ...] = ()


def view(facts: Facts, may: May) -> Block:
    """The tab of somebody. Pure."""
    blocks: list[Block] = [*kit.actions(*_top(facts.panel, may))]
    if facts.incidents:
        blocks.append(kit.header("Incidents"))
        for one in facts.incidents[:_INCIDENTS]:
            blocks.append(incidents.line(one, facts.panel.at))
            blocks += buttons.incident(one) if may(Permission.INCIDENT) else []
    if facts.proposals:
        blocks.append(kit.header("Proposed by a triage"))
        listed = list(facts.proposals[:_PROPOSALS])
        blocks += (
            buttons.proposals(listed) if may(Permission.OPERATE) else [kit.section(inert(words)) for _, words in listed]
        )
    blocks.append(kit.header("Fleet health"))
    blocks += panel.panel(facts.panel)
    tight = [line for line in facts.panel.quota or () if line.tripped or line.percent >= 80]
    if tight and may(Permission.OPERATE):
        for line in tight[:_CAPS]:
            words = escaped(f"{line.scope} {line.window}: {cap_text(line, facts.panel.at)}")
            blocks.append(kit.section(words, accessory=buttons.cap(line.scope, line.unit, line.window)))
    blocks.append(kit.context("Up to date for 15 minutes after you open it. More: /systems help"))
    return {"type": "home", "blocks": _distinct(kit.view(blocks))}


def _distinct(blocks: list[Block]) -> list[Block]:
    """The same, with a name for each block: of two alike Slack takes one."""
    return [block | {"block_id": f"b{place}"} for place, block in enumerate(blocks)]


def _top(view_: Panel, may: May) -> list[Block]:
    made = [kit.button("Refresh", "home_refresh", "home"), kit.button("Sweep now", "sweep", "")]
    if may(Permission.FREEZE):
        frozen = view_.kill_switch.mode is not Mode.CLEAR
        made.append(kit.button("Thaw…", "thaw", "") if frozen else kit.button("Freeze…", "freeze", "", style="danger"))
    return [*made, *buttons.pictures()]


def mark(facts: Facts) -> object:
    """What of a tab people would want to see change: all but ages, counts of work that is done, and heartbeats. Pure."""
    seen = facts.panel
    return (
        seen.verdict,
        seen.waits,
        seen.dead_letters,
        seen.kill_switch.told,
        tuple((line.name, line.state) for line in seen.daemons),
        tuple((line.role, line.backlog, line.waiting_pulls == 0) for line in seen.roles),
        tuple((line.key, line.percent, line.tripped) for line in seen.quota or ()),
        tuple((one.number, one.last_seq) for one in facts.incidents),
        facts.proposals,
    )


def refused(who: Who) -> Block:
    """The tab of somebody who may not look. Pure."""
    sentence = permission.no(who, "the home tab", Permission.VIEW)
    return {"type": "home", "blocks": [kit.section(f":no_entry: {escaped(sentence)}")]}


def failed(why: str) -> Block:
    """The tab while nobody can tell. Pure."""
    return {"type": "home", "blocks": [kit.section(f":warning: {escaped(why)}")]}


class Home:
    """Publishes tabs and keeps them up to date."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._opened: dict[str, float] = {}
        self._shown: dict[str, tuple[object, float]] = {}
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()

    async def open(self, who: Who) -> None:
        """Show somebody their tab, and keep it up to date for a while."""
        if not self._desk.may(who, Permission.VIEW):
            await self._publish(who.id, refused(who))
            return
        self._opened.pop(who.id, None)
        self._opened[who.id] = self._loop.time()
        for late in list(self._opened)[:-_MOST]:
            del self._opened[late]
        self._shown.pop(who.id, None)
        await self._show([who])
        self._news.set()

    async def run(self) -> None:
        """Keep tabs up to date, for ever."""
        while True:
            if not self._opened:
                self._news.clear()
                await self._news.wait()
            await asyncio.sleep(LOOK_S)
            now = self._loop.time()
            self._opened = {user: at for user, at in self._opened.items() if now - at < WATCH_S}
            try:
                await self._show([await self._desk.directory.who(user) for user in self._opened])
            except FAULTS as exc:
                log.warning("slack_home_stale", error=str(exc) or type(exc).__name__)
            except Exception:
                # A tab that cannot be drawn must not end those that come after it.
                log.exception("slack_home_failed")

    async def _show(self, people: list[Who]) -> None:
        if not people:
            return
        try:
            facts = await self._facts()
        except errors.BusError as exc:
            log.warning("slack_home_unseen", error=str(exc))
            for who in people:
                await self._publish(who.id, failed(str(exc)))
            return
        for who in people:
            if self._desk.may(who, Permission.VIEW):
                await self._publish(who.id, view(facts, partial(self._desk.may, who)), mark(facts))
            else:
                await self._publish(who.id, refused(who))

    async def _facts(self) -> Facts:
        desk = self._desk
        seen, open_, waiting = await asyncio.gather(
            gather(desk.bus, desk.registry), Incidents(desk.bus, desk.registry, "").all(), self._proposals()
        )
        return Facts(panel=seen, incidents=tuple(one for one in open_ if one.open), proposals=waiting)

    async def _proposals(self) -> tuple[tuple[Proposal, str], ...]:
        ledger = Ledger(self._desk.bus)
        await ledger.catch_up()
        return tuple(
            (
                Proposal(fingerprint=print_, invocation=proposed.invocation, place=place),
                f"{one.action} {one.target}: {one.why} ({ledger.known[print_].finding.title})",
            )
            for print_, proposed in ledger.proposed.items()
            for place, one in enumerate(proposed.proposals)
            if not one.allowed
        )

    async def _publish(self, user: str, made: Block, marked: object = None) -> None:
        """Show a tab, unless only its ages would be others; those once a minute."""
        now = self._loop.time()
        before, at = self._shown.get(user, (None, 0.0))
        if before is not None and before == marked and now - at < _AGES_S:
            return
        await self._desk.client.views_publish(user_id=user, view=made)
        self._shown[user] = (marked, now)

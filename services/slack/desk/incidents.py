"""What people do to incidents from Slack: the same functions as `systems incident`, in their name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from bus.errors import BadAsk, did_you_mean
from bus.events import incident as ev
from bus.events.finding import Severity
from services.fleet import durations
from services.incident.desk import Desk as Incidents
from services.incident.state import Incident
from services.incident.words import status_of
from services.slack.desk import answer, buttons
from services.slack.desk import blocks as kit
from services.slack.desk.answer import Answer, File
from services.slack.desk.blocks import Block
from services.slack.desk.desk import Desk, Session
from services.slack.desk.permission import Who
from services.slack.desk.words import Said, mentioned
from services.slack.markup import cut, escaped, inert
from services.wording import aligned, moment

#: Lines of a timeline that a message shows: the newest.
_LINES = 25


def _desk(session: Session) -> Incidents:
    return Incidents(session.bus, session.registry, session.actor)


async def find(desk: Desk, number: str, who: Who) -> Incident:
    """One of them.

    Raises:
        UnknownName: there is none of this number.
    """
    return await Incidents(desk.bus, desk.registry, who.actor).find(number)


def ended(one: Incident) -> str:
    """How an incident ended, for somebody who would still act upon it. Pure."""
    at = f" at {one.closed_at:%Y-%m-%d %H:%M:%S} UTC" if one.closed_at is not None else ""
    return escaped(f"incident {one.number} was closed by {one.closed_by}{at}: {one.cause}")


async def list_(desk: Desk, said: Said, who: Who) -> Answer:
    """The open ones, or all."""
    found = await Incidents(desk.bus, desk.registry, who.actor).all()
    shown = [one for one in found if one.open or "all" in said.flags]
    if not shown:
        return answer.said("no incident is open" if found else "there was no incident yet")
    now = datetime.now(UTC)
    blocks: list[Block] = []
    for one in shown[:12]:
        blocks += [line(one, now), *(buttons.incident(one) if one.open else [])]
    more = [kit.context(f"… and {len(shown) - 12:,} more: systems incident ls")] if len(shown) > 12 else []
    return Answer(text=f"{sum(one.open for one in shown)} incidents are open", blocks=[*blocks, *more])


def line(one: Incident, now: datetime) -> Block:
    """An incident in two lines. Pure."""
    sign = (
        ":white_check_mark:"
        if not one.open
        else ":red_circle:"
        if one.severity is Severity.ULTRA
        else ":large_yellow_circle:"
    )
    hit = ", ".join(sorted(one.affected)) or "no project that is known of"
    return kit.section(
        f"{sign} *{one.number}* · {inert(cut(one.title, 300))}\n{escaped(status_of(one, now))} · hits "
        f"{escaped(cut(hit, 300))} · since {one.since:%Y-%m-%d %H:%M} UTC"
    )


async def show(desk: Desk, said: Said, who: Who) -> Answer:
    """One of them, with its timeline."""
    its = Incidents(desk.bus, desk.registry, who.actor)
    one = await its.find(said.word(0))
    lines = await its.lines(one)
    rows = [[moment(each.at), each.event, each.who, each.what] for each in lines]
    columns = ["time (UTC)", "event", "who", "what"]
    short = kit.table(columns, rows[-_LINES:])
    whole = "\n".join(aligned(columns, rows)) + "\n"
    cut = len(rows) > _LINES or any(text.endswith("…") for text in short)
    made = [line(one, datetime.now(UTC)), *kit.mono(short)]
    if cut:
        made.append(kit.context("the whole timeline is in your direct messages"))
    return Answer(
        text=f"incident {one.number}",
        blocks=[*made, *(buttons.incident(one) if one.open else [])],
        file=File(name=f"incident-{one.number}.txt", title=f"Incident {one.number}", content=whole.encode())
        if cut
        else None,
    )


def _severity(text: str) -> Severity:
    known = [one.value for one in Severity]
    if text not in known:
        raise BadAsk(f"unknown severity {text!r}{did_you_mean(text, known)}")
    return Severity(text)


async def declare(session: Session, said: Said) -> Answer:
    """Open one."""
    one = await _desk(session).declare(said.reason, severity=_severity(said.word(0)))
    return answer.done(f"incident {one.number} is open ({one.severity.value}): {one.title}", session.actor)


async def acknowledge(session: Session, said: Said) -> Answer:
    """Have it."""
    for_s = durations.seconds(said.option("for")) if said.option("for") else None
    one = await _desk(session).acknowledge(said.word(0), for_s=for_s, take="take" in said.flags)
    until = f" until {one.owner_until:%Y-%m-%d %H:%M:%S} UTC" if one.owner_until is not None else ""
    return answer.done(f"{one.owner} has incident {one.number}{until}", session.actor)


async def update(session: Session, said: Said) -> Answer:
    """Tell everybody."""
    one = await _desk(session).update(said.word(0), said.reason)
    told = ", ".join(sorted(one.affected)) or "nobody: no project is affected"
    next_ = f"; the next is owed by {one.next_at:%H:%M:%S} UTC" if one.next_at is not None else ""
    return answer.done(f"incident {one.number}: told {told}{next_}", session.actor)


async def note(session: Session, said: Said) -> Answer:
    """Add to the timeline."""
    one = await _desk(session).note(said.word(0), said.reason)
    return answer.done(f"noted in incident {one.number}", session.actor)


async def assign(session: Session, said: Said) -> Answer:
    """Put somebody in command; without a name, whoever asks."""
    name = said.word(1)
    user = mentioned(name)
    commander = (await session.directory.who(user)).actor if user else name or session.actor
    one = await _desk(session).assign(said.word(0), commander)
    return answer.done(f"{one.commander} is in command of incident {one.number}", session.actor)


async def severity(session: Session, said: Said) -> Answer:
    """Say how bad it is."""
    one = await _desk(session).severity(said.word(0), _severity(said.word(1)), said.reason)
    return answer.done(f"incident {one.number} is {one.severity.value}", session.actor)


async def mitigate(session: Session, said: Said) -> Answer:
    """Say that it does no more harm."""
    one = await _desk(session).mitigate(said.word(0), said.reason)
    return answer.done(f"incident {one.number} is mitigated", session.actor)


async def close(session: Session, said: Said) -> Answer:
    """Say that it is over; what is still to be done comes a line each, with its owner behind an ``@``."""
    one = await _desk(session).close(said.word(0), said.reason, actions(said.option("actions")))
    return answer.done(f"incident {one.number} is closed: {one.cause}", session.actor)


def actions(text: str) -> tuple[ev.Action, ...]:
    """Lines as actions: ``write a test @ann`` names who does it. Pure."""
    found = []
    for each in filter(None, (each.strip().lstrip("-• ") for each in text.splitlines())):
        what, at, owner = each.rpartition(" @")
        found.append(
            ev.Action(text=what.strip(), owner=owner.strip()) if at and owner.strip() else ev.Action(text=each)
        )
    return tuple(found)


async def reopen(session: Session, said: Said) -> Answer:
    """Say that it is not over."""
    one = await _desk(session).reopen(said.word(0), said.reason)
    return answer.done(f"incident {one.number} is open again", session.actor)


LOOKS: dict[str, Callable[[Desk, Said, Who], Awaitable[Answer]]] = {"incident ls": list_, "incident show": show}
ACTS: dict[str, Callable[[Session, Said], Awaitable[Answer]]] = {
    "incident declare": declare,
    "incident ack": acknowledge,
    "incident update": update,
    "incident note": note,
    "incident assign": assign,
    "incident severity": severity,
    "incident mitigate": mitigate,
    "incident close": close,
    "incident reopen": reopen,
}

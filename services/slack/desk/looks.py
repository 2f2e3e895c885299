"""What only looks: each command's answer, from the same functions that the command line asks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from bus import errors
from bus.errors import BadAsk
from bus.events import deadletter
from bus.subjects import parse_role
from services import limits as bounds
from services import roles, story
from services.dead_letters import DeadLetters, Filter, subject_of
from services.fleet import durations
from services.fleet.spec import Unit
from services.health.gather import gather
from services.monitor import asking as monitor
from services.quota import setting
from services.quota.lines import QuotaLine, short, whole
from services.slack.desk import answer, charts, panel, tables, words
from services.slack.desk import blocks as kit
from services.slack.desk.answer import Answer, File
from services.slack.desk.desk import Desk
from services.slack.desk.permission import Who
from services.slack.desk.words import Said
from services.slack.markup import escaped
from services.wording import age, clipped, moment

Look = Callable[[Desk, Said, Who], Awaitable[Answer]]

#: Dead letters that are listed.
_LETTERS = 200


async def status(desk: Desk, _said: Said, _who: Who) -> Answer:
    """The panel."""
    return panel.status(await gather(desk.bus, desk.registry))


async def sweep(desk: Desk, _said: Said, who: Who) -> Answer:
    """A sweep, on behalf of whoever asks."""
    found = await monitor.sweep(desk.bus, who.actor)
    assert found.last is not None  # its own sweep
    done = found.last.finished
    title = f"{done.verdict.value}: sweep in {age(done.took_ms / 1000)}, {done.counts.open} open, {done.counts.new} new"
    rows = [
        [one.severity, f"{one.since:%m-%d %H:%M}", one.fingerprint, one.title, one.command] for one in found.findings
    ]
    below = [f"not seen: {what}" for what in done.unseen][:10]
    return answer.table(
        title,
        ["severity", "since", "fingerprint", "what", "run"],
        rows,
        empty=f"{title}: nothing is wrong that nobody knows of",
        name="findings",
        below=below,
    )


async def show_roles(desk: Desk, said: Said, _who: Who) -> Answer:
    """All roles, or one."""
    if said.words:
        view = await roles.view(desk.bus, desk.registry.role(*parse_role(said.word(0))))
        facts = [f"{name.ljust(18)} {value}" for name, value in _facts(view)]
        return Answer(text=view.role, blocks=[kit.section(f"*{view.role}*"), *kit.mono(facts)])
    views = [await roles.view(desk.bus, desk.registry.roles[key]) for key in sorted(desk.registry.roles)]
    numbers = ["at once", "revision", "pending", "in flight", "asking"]
    rows = [[v.role, v.handler, str(v.concurrency), str(v.revision), *roles.work_cells(v)] for v in views]
    return answer.table(
        "Roles", ["role", "handler", *numbers], rows, right=numbers, empty="no role is registered", name="roles"
    )


def _facts(view: roles.RoleView) -> list[tuple[str, str]]:
    shown = {name: getattr(view, name) for name in view.__struct_fields__ if name not in ("work", "registered", "role")}
    work = view.work
    cells = {} if work is None else {name: getattr(work, name) for name in work.__struct_fields__}
    return [
        (name, ", ".join(value) if isinstance(value, tuple) else str(value))
        for name, value in (shown | cells).items()
        if value not in (None, "", ())
    ]


async def quota(desk: Desk, _said: Said, _who: Who) -> Answer:
    """Every cap."""
    lines = await setting.lines(desk.bus)
    return answer.table(
        "Spend caps",
        ["scope", "window", "", "used", "of", "held", "a minute", "resets", "state"],
        [_cap(line) for line in lines],
        right=["used", "of", "held", "a minute"],
        empty="no caps: set one with /systems quota set, or with `caps` in the fleet file",
        name="quota",
        below=[f"times in UTC; windows begin by the clock of {lines[0].zone}"] if lines else [],
    )


def _cap(line: QuotaLine) -> list[str]:
    unit = " USD" if line.unit == Unit.USD else ""
    return [
        line.scope,
        line.window,
        f"{panel.bar(line.percent)} {whole(line.percent)}",
        short(line.used, line.unit) + unit,
        short(line.cap, line.unit) + unit,
        short(line.held, line.unit),
        short(line.burn, line.unit),
        f"{line.resets_at:%m-%d %H:%M}" if line.resets_at is not None else "-",
        "tripped" if line.tripped else f"not verified: {line.problem}" if line.problem else "",
    ]


def chosen(said: Said) -> Filter:
    """The dead letters that are meant.

    Raises:
        BadAsk, BadDuration, BadSubject: an option makes no sense.
    """
    role = said.option("role") or (said.word(0) if said.spec.name == "dlq" else "")
    limit = said.option("limit")
    if limit and not (limit.isdecimal() and int(limit) > 0):
        raise BadAsk(f"expected --limit to be at least 1, got: {limit}")
    old = said.option("older-than")
    wanted = Filter(
        role=role,
        fingerprint=said.option("fingerprint"),
        older_than_s=durations.seconds(old) if old else None,
        limit=int(limit) if limit else None,
    )
    subject_of(wanted)  # refuses a role that is none
    return wanted


async def dead_letters(desk: Desk, said: Said, _who: Who) -> Answer:
    """The dead letters."""
    wanted, now = chosen(said), datetime.now(UTC)
    found = []
    async for letter in DeadLetters(desk.bus, desk.registry).select(wanted, now):
        found.append(letter)
        if len(found) == _LETTERS:
            break
    rows = [
        [
            one.id,
            f"{one.project}/{one.role}",
            age((now - one.died_at).total_seconds()),
            one.reason,
            clipped(f"{one.error}: {one.message}" if one.error else "", 60),
        ]
        for one in found
    ]
    more = (
        [f"the oldest {_LETTERS} are shown; narrow it with a role or --fingerprint"] if len(found) == _LETTERS else []
    )
    return answer.table(
        "Dead letters",
        ["id", "role", "dead for", "reason", "error"],
        rows,
        right=["dead for"],
        empty="no dead letter waits",
        name="dead-letters",
        below=more,
    )


async def dead_letter(desk: Desk, said: Said, _who: Who) -> Answer:
    """One of them whole, with what can be done about it."""
    from services.slack.desk import buttons  # noqa: PLC0415 (which shows answers itself)

    record = await DeadLetters(desk.bus, desk.registry).get(said.word(0))
    kept: deadletter.Kept = record.data
    lines = [
        f"role      {kept.project}/{kept.role}",
        f"reason    {kept.reason.replace('_', ' ')}",
        f"requested {moment(kept.requested_at)} UTC",
        f"died      {moment(kept.died_at)} UTC",
        f"redrives  {kept.redrives}",
        f"usage     {story.tokens(kept.usage)}",
        f"input     {story.clip(bytes(kept.request.input).decode(errors='replace'))}",
    ]
    if kept.error is not None:
        lines += [f"error     {kept.error.kind}: {kept.error.message}", *kept.error.detail.rstrip().splitlines()]
    whole_ = "\n".join(lines)
    file = File(name=f"{kept.invocation}.txt", title=kept.invocation, content=whole_.encode())
    return Answer(
        text=f"dead letter {kept.invocation}",
        blocks=[
            kit.section(f"*Dead letter* `{kept.invocation}`"),
            *kit.mono(lines[: kit.LINES]),
            *buttons.dead_letter(kept.invocation, kept.died_seq),
        ],
        file=file if len(lines) > kit.LINES else None,
    )


async def limits(_desk: Desk, _said: Said, _who: Who) -> Answer:
    """What is bounded, by kind."""
    made = []
    for kind in bounds.Kind:
        facts = [f"*{fact.topic}*: {escaped(fact.sentence)}" for fact in bounds.facts() if fact.kind is kind]
        made.append(kit.section(f"*{kind.value.capitalize()}*"))
        parts = [facts[start : start + 6] for start in range(0, len(facts), 6)]
        made += [kit.section("\n".join(f"• {fact}" for fact in part)) for part in parts]
    return Answer(text="What is bounded, and what stays with a person", blocks=made)


async def chart(desk: Desk, said: Said, _who: Who) -> Answer:
    """A picture."""
    return await charts.chart(desk, said.word(0))


async def help_(_desk: Desk, said: Said, _who: Who) -> Answer:
    """All commands, or one."""
    wanted = " ".join(said.words)
    found = [spec for name, spec in words.COMMANDS.items() if not wanted or name.startswith(wanted)]
    if not found:
        raise BadAsk(f"unknown command {wanted!r}{errors.did_you_mean(wanted, words.COMMANDS)}")
    made = [kit.section("*What can be asked*, by the permission that it needs")]
    for needs in dict.fromkeys(spec.needs for spec in found):
        lines = [f"`/systems {escaped(spec.line)}`  {spec.help}" for spec in found if spec.needs is needs]
        parts = [lines[start : start + 12] for start in range(0, len(lines), 12)]
        made += [
            kit.section("\n".join([*([f"*{needs.value}*"] if place == 0 else []), *part]))
            for place, part in enumerate(parts)
        ]
    return Answer(text="What can be asked", blocks=made)


LOOKS: dict[str, Look] = {
    "status": status,
    "sweep": sweep,
    "roles": show_roles,
    "quota": quota,
    "dlq": dead_letters,
    "dlq show": dead_letter,
    "limits": limits,
    "query": tables.query,
    "sql": tables.sql,
    "chart": chart,
    "help": help_,
}

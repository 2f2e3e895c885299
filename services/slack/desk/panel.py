"""The fleet-health panel in blocks: the verdict first, then what waits for a person, then the facts. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from bus.flags import Mode
from services.health.daemons import State
from services.health.panel import Panel, Verdict
from services.quota import lines as quota
from services.slack.desk import blocks as kit
from services.slack.desk.answer import Answer
from services.slack.desk.blocks import Block
from services.slack.markup import cut, escaped
from services.wording import age

#: A glyph beside each word: a panel must be readable without colours.
MARK = {
    Verdict.NOMINAL: ":large_green_circle:",
    Verdict.CONCERN: ":large_yellow_circle:",
    Verdict.ULTRA: ":red_circle:",
}
_DOT = {State.STARTING: "◌", State.ALIVE: "●", State.LATE: "◐", State.DEAF: "◍", State.DOWN: "○"}
#: Reasons, findings, waiting things and roles that are shown; the rest is counted.
_REASONS, _WAITS, _ROLES = 8, 6, 25


def status(view: Panel) -> Answer:
    """The answer to `/systems status`."""
    return Answer(text=f"{view.verdict.value}: fleet health at {view.at:%H:%M:%S} UTC", blocks=panel(view))


def panel(view: Panel) -> list[Block]:
    """All of it."""
    made = [
        kit.section(f"{MARK[view.verdict]} *{view.verdict.value}* · fleet health at {view.at:%Y-%m-%d %H:%M:%S} UTC"),
        *_listed([escaped(reason) for reason in view.reasons], _REASONS, "systems status"),
    ]
    waits = [escaped(line) for line in view.waits]
    if waits:
        made += [kit.section("*For a person*"), *_listed(waits, _WAITS, "systems status")]
    made += [kit.fields(_facts(view)), *kit.mono(_daemons(view))]
    if view.roles:
        made += kit.mono(_roles(view))
    spend = [_spend(line, view.at) for line in view.quota or ()]
    if spend:
        made += [kit.section("*Spend*"), *kit.mono(spend)]
    if view.last_errors:
        made += [kit.section("*Last errors*"), *kit.mono(list(_errors(view)))]
    return made


def _listed(lines: list[str], most: int, where: str) -> list[Block]:
    if not lines:
        return []
    shown = [f"• {cut(line, 350)}" for line in lines[:most]]
    if len(lines) > most:
        shown.append(f"… and {len(lines) - most:,} more: {where}")
    return [kit.section("\n".join(shown))]


def _daemons(view: Panel) -> list[str]:
    rows = [
        [
            line.name,
            f"{_DOT[line.state]} {line.state.value}",
            f"{line.in_flight:,}",
            f"{line.handled:,}",
            age(line.beat_age_s) if line.beat_age_s is not None else "none",
            line.note,
        ]
        for line in view.daemons
    ]
    return kit.table(["daemon", "state", "in hand", "done", "beat", ""], rows, right=["in hand", "done", "beat"])


def _roles(view: Panel) -> list[str]:
    busy = sorted(view.roles, key=lambda role: (-role.backlog, role.role))
    rows = [
        [
            role.role,
            f"{role.backlog:,}",
            f"{role.in_flight:,}",
            "nobody" if role.waiting_pulls == 0 and role.in_flight == 0 else str(role.waiting_pulls or ""),
            f"{role.completed:,}",
            f"{role.failed:,}",
        ]
        for role in busy[:_ROLES]
    ]
    numbers = ["backlog", "in flight", "asking", "completed", "failed"]
    lines = kit.table(["role", *numbers], rows, right=numbers)
    return lines if len(busy) <= _ROLES else [*lines, f"… and {len(busy) - _ROLES:,} more: /systems roles"]


def _facts(view: Panel) -> Iterator[tuple[str, str]]:
    switch = view.kill_switch
    calm = switch.mode is Mode.CLEAR and not switch.thawing
    armed = "armed" if switch.armed else "clients only: the warden is away"
    yield "Kill switch", f"{armed}, {switch.told}" if calm else f":ice_cube: {escaped(switch.told)}"
    yield "Dead letters", f"{view.dead_letters:,} in backlog"
    oldest = (
        "none" if view.oldest_in_flight_s is None else f"{age(view.oldest_in_flight_s)} (`{view.oldest_in_flight}`)"
    )
    yield "Oldest claim", oldest
    if view.monitor is not None:
        yield "Last sweep", _sweep(view)
    if view.tables is not None:
        behind = f"{view.tables.behind:,} events behind" if view.tables.behind else "nothing behind"
        yield "Tables", f"{view.tables.state.value}, {behind}"
    if view.config is not None:
        yield "Settings", f"revision {view.config.revision}"
    unproven = [guard.name for guard in view.guards if guard.proof is None or not guard.proof.passed]
    yield "Guards", f"not proven: {', '.join(unproven)}" if unproven else "all proven"


def _sweep(view: Panel) -> str:
    assert view.monitor is not None
    last = view.monitor.last
    if last is None:
        return "none yet"
    ago = age(max(0.0, (view.at - last.at).total_seconds()))
    return f"{last.finished.verdict.value}, {ago} ago, {last.finished.counts.open} open"


def _spend(line: quota.QuotaLine, now: datetime) -> str:
    mark = "! " if line.tripped or line.problem else "  "
    return f"{mark}{line.scope} {line.window} {bar(line.percent)} {quota.text(line, now)}"


def bar(percent: float, width: int = 10) -> str:
    """How much of a whole, drawn: full only when it is."""
    full = width if percent >= 100 else min(width - 1, int(percent / 100 * width))
    return "█" * full + "░" * (width - full)


def _errors(view: Panel) -> Iterator[str]:
    for error in view.last_errors:
        ago = age(max(0.0, (view.at - error.at).total_seconds()))
        message = error.message.splitlines()[0] if error.message else ""
        yield cut(f"{ago} ago {error.role} {error.kind}: {message}", kit.WIDTH)

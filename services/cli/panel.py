"""The fleet-health panel as text: ten lines that a person takes in at a glance. Pure: a panel in, a renderable out."""

from __future__ import annotations

from datetime import datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bus.flags import Mode
from services.cli.output import age
from services.config.drift import ConfigLine
from services.guards.proofs import GuardLine
from services.health.daemons import DaemonLine, State
from services.health.panel import Panel, Verdict
from services.monitor.status import Status
from services.projector.line import TablesLine
from services.quota import lines as quota
from services.release import versions
from services.tally import Tally

_VERDICT = {Verdict.NOMINAL: "bold green", Verdict.CONCERN: "bold yellow", Verdict.ULTRA: "bold white on red"}
_STATE = {
    State.STARTING: "cyan",
    State.ALIVE: "green",
    State.LATE: "yellow",
    State.DEAF: "bold yellow",
    State.DOWN: "bold red",
}
_ARMED = {True: "green", False: "bold yellow"}
#: Glyphs beside the colours: a panel must be readable without them.
_DOT = {State.STARTING: "◌", State.ALIVE: "●", State.LATE: "◐", State.DEAF: "◍", State.DOWN: "○"}

#: Columns of what stands before each fact, so that the tables below one another line up.
_LABELS = 22


def panel(view: Panel, tally: Tally | None = None) -> RenderableType:
    """Everything that `systems status` shows."""
    parts: list[RenderableType] = [_head(view)]
    # Not wrapped: a command in it is pasted in one piece.
    parts += [Text(f"  {reason}", style="yellow", no_wrap=True, overflow="ignore") for reason in view.reasons[:6]]
    for card in view.cards:
        # On a line of its own: it is pasted in one piece.
        parts.append(Text(f"  {card.command}", style="bold", no_wrap=True, overflow="ignore"))
    parts += [_daemons(view), _roles(view)]
    if tally is not None:
        parts.append(replay_line(tally))
    parts.append(_facts(view))
    if view.last_errors:
        parts.append(_errors(view))
    if view.unrecorded:
        parts.append(Text(f"not in the log of that moment: {'; '.join(view.unrecorded)}", style="dim"))
    return Group(*parts)


def _head(view: Panel) -> Text:
    text = Text()
    text.append(f" {view.verdict.value} ", style=_VERDICT[view.verdict])
    text.append(f"  fleet health at {view.at:%Y-%m-%d %H:%M:%S} UTC", style="dim")
    return text


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in columns:
        left = name in {"daemon", "role", "state", "evidence"}
        table.add_column(name, justify="left" if left else "right", no_wrap=name != "evidence")
    return table


def _daemons(view: Panel) -> Table:
    table = _table("daemon", "state", "in hand", "done", "beat", "config", "version", "evidence")
    differ = len({(line.version, line.release) for line in view.daemons if line.version}) > 1
    whole = differ and len({line.version for line in view.daemons if line.version}) == 1
    for line in view.daemons:
        state = Text(f"{_DOT[line.state]} {line.state.value}", style=_STATE[line.state])
        beat = age(line.beat_age_s) if line.beat_age_s is not None else "none"
        config = str(line.config_revision) if line.config_revision else "-"
        version = Text(versions.told(line, whole=whole) or "-", style="yellow" if differ else "")
        table.add_row(
            line.name, state, f"{line.in_flight:,}", f"{line.handled:,}", beat, config, version, _evidence(line)
        )
    return table


def _evidence(line: DaemonLine) -> str:
    if line.note:
        return "see above" if line.state is State.DOWN else line.note
    said: list[str] = []
    if line.message_age_s is not None:
        said.append(f"message {age(line.message_age_s)} ago")
    if line.empty_age_s is not None:
        said.append(f"server answered {age(line.empty_age_s)} ago")
    if line.stuck_s:
        said.append(f"loop stands for {age(line.stuck_s)} in {line.stuck_in}")
    elif line.loop_lag_s >= 0.2:
        said.append(f"loop late by {age(line.loop_lag_s)}")
    if line.pid:
        said.append(f"pid {line.pid}")
    return ", ".join(said)


def _roles(view: Panel) -> Table:
    table = _table("role", "backlog", "in flight", "asking", "completed", "failed")
    for role in view.roles:
        asking = (
            Text("nobody", style="bold yellow")
            if role.waiting_pulls == 0 and role.in_flight == 0
            else ""
            if role.waiting_pulls is None
            else str(role.waiting_pulls)
        )
        table.add_row(
            role.role, f"{role.backlog:,}", f"{role.in_flight:,}", asking, f"{role.completed:,}", f"{role.failed:,}"
        )
    return table


def replay_line(tally: Tally) -> Text:
    """How far a replay is, in one line."""
    text = Text("replay        ", style="dim")
    text.append(f"{tally.requested:,} requested, {tally.completed:,} completed", style="bold")
    if tally.failed or tally.dead_lettered or tally.cancelled:
        text.append(f", {tally.failed:,} failures, {tally.dead_lettered:,} dead letters, {tally.cancelled:,} cancelled")
    text.append(f"; {tally.input_tokens:,} input and {tally.output_tokens:,} output tokens")
    if tally.behind_s > 0.5:
        text.append(f"; {age(tally.behind_s)} behind the recorded pace", style="yellow")
    return text


def _facts(view: Panel) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    oldest = "none" if view.oldest_in_flight_s is None else f"{age(view.oldest_in_flight_s)} ({view.oldest_in_flight})"
    table.add_row("oldest claim", oldest)
    table.add_row(
        "dead letters", Text(f"{view.dead_letters:,} in backlog", style="bold yellow" if view.dead_letters else "")
    )
    switch = view.kill_switch
    mode = Text("armed" if switch.armed else "clients only: the warden is away", style=_ARMED[switch.armed])
    calm = switch.mode is Mode.CLEAR and not switch.thawing
    mode.append(f", {switch.told}", style="default" if calm else "bold yellow")
    if view.config is not None:
        table.add_row("settings", _config(view.config, view.at))
    known = {guard.name: guard for guard in view.guards}
    if (guard := known.get("kill switch")) is not None:
        mode = _guard(guard, mode, view.at)
    table.add_row("kill switch", mode)
    for place, line in enumerate(view.quota or ()):
        style = "bold yellow" if line.tripped or line.problem else ""
        said = f"{line.scope} {line.window} {quota.text(line, view.at)}"
        table.add_row("spend" if place == 0 else "", Text(said, style=style))
    if view.tables is not None:
        table.add_row("tables", _tables(view.tables))
    for guard in view.guards:
        if guard.name != "kill switch":
            state = "armed" if guard.armed else "not armed: the warden is away"
            table.add_row(guard.name, _guard(guard, Text(state, style=_ARMED[guard.armed]), view.at))
    for place, incident in enumerate(view.incidents[:4]):
        style = "bold red" if incident.pages or incident.paging_failed else "bold yellow"
        shown = Text(f"{incident.number} ({incident.severity}) {incident.title}", style=style)
        shown.append(f" · {incident.stands} · since {_ago(incident.since, view.at)}", style="default")
        table.add_row("incidents" if place == 0 else "", shown)
    if view.monitor is not None:
        table.add_row("last sweep", _sweep(view.monitor, view.at))
        _findings(table, view.monitor, view.at)
    for place, waits in enumerate(view.waits[:4]):
        table.add_row("for a person" if place == 0 else "", Text(waits, style="bold yellow"))
    return table


def _tables(line: TablesLine) -> Text:
    """How far the tables are, and how old the copy is that everybody may open."""
    text = Text(line.state.value, style="bold yellow" if line.concern else "")
    text.append(f", {line.behind:,} events and {age(line.seconds)} behind" if line.behind else ", nothing behind")
    if line.published_age_s is not None:
        text.append(f" · published {age(line.published_age_s)} ago")
    return text


def _findings(table: Table, status: Status, now: datetime) -> None:
    """What speaks for itself, at most three of it."""
    speak = [found for found in status.findings if not found.cause and not found.silenced_by]
    for place, found in enumerate(speak[:3]):
        said = Text(found.title, style="bold red" if found.severity == "ultra" else "yellow")
        said.append(f" · since {_ago(found.since, now)} · {found.fingerprint}", style="dim")
        table.add_row("findings" if place == 0 else "", said)
    if len(speak) > 3:
        table.add_row("", Text(f"{len(speak) - 3:,} more: systems findings", style="dim"))


def _sweep(status: Status, now: datetime) -> Text:
    """The last sweep, what is open, and when the next one is due."""
    if status.last is None:
        return Text("none yet", style="dim")
    done = status.last.finished
    said = Text()
    said.append(done.verdict.value, style=_VERDICT[Verdict(done.verdict.value)])
    said.append(
        f" {_ago(status.last.at, now)} in {age(done.took_ms / 1000)} · {done.counts.open} open", style="default"
    )
    if done.counts.muted or done.counts.silenced:
        said.append(f" ({done.counts.muted} explained, {done.counts.silenced} silenced)", style="dim")
    if done.unseen:
        said.append(f" · not seen: {'; '.join(done.unseen)}", style="bold yellow")
    if status.next_at is not None:
        until = (status.next_at - now).total_seconds()
        said.append(f" · next in {age(until)}" if until > 0 else f" · next is {age(-until)} late", style="default")
    return said


def _config(config: ConfigLine, now: datetime) -> Text:
    """The revision in effect, and what differs from it."""
    said = Text(f"revision {config.revision}" + (f", {_ago(config.since, now)}" if config.since is not None else ""))
    if config.file_changes:
        count = len(config.file_changes)
        said.append(f" · the fleet file differs in {count}: systems config diff", style="yellow")
    if config.at_next_start:
        said.append(" · the launcher's are older: systems down, systems up", style="yellow")
    return said


def _guard(guard: GuardLine, said: Text, now: datetime) -> Text:
    """A guard's state, when it was last proven, and when it last tripped."""
    proof = guard.proof
    if proof is not None and proof.passed:
        said.append(f" · last proven {_ago(proof.at, now)} in {age(proof.took_s)}", style="default")
    elif proof is not None:
        said.append(f" · drill failed {_ago(proof.at, now)}", style="bold red")
    else:
        said.append(" · never proven", style="dim")
    if guard.last_trip_at is not None:
        said.append(f" · last trip {_ago(guard.last_trip_at, now)} ({guard.last_trip})", style="default")
    return said


def _errors(view: Panel) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False, expand=True)
    table.add_column(style="dim", no_wrap=True, width=_LABELS)
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    for place, error in enumerate(view.last_errors):
        said = Text()
        said.append(f"{_ago(error.at, view.at)} ", style="dim")
        said.append(f"{error.role} ")
        said.append(f"{error.kind}: {error.message.splitlines()[0]}", style="yellow")
        said.truncate(200, overflow="ellipsis")
        table.add_row("last errors" if place == 0 else "", said)
    return table


def _ago(at: datetime, now: datetime) -> str:
    return f"{age(max(0.0, (now - at).total_seconds()))} ago"

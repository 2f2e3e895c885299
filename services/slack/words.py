"""What an event says to people in a channel. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from bus.events import daemon, finding, freeze, invocation, loop, ops, quota, sweep
from bus.events.finding import Severity
from bus.store import Recorded
from services import story
from services.monitor.memory import Known
from services.slack.board import Board
from services.slack.message import Button, Message

#: Sign of a severity.
ICONS = {Severity.CONCERN: "🟠", Severity.ULTRA: "🔴"}
DONE, INFO, STOP, WARN, CLOCK = "✅", "🔵", "🛑", "⚠️", "🔄"
#: Fields of an event that say nothing to people, or are said by its title.
_UNSAID = frozenset(
    {"sweep", "evidence", "boot_id", "positions", "holder", "delivery", "settled", "artifacts", "value", "was"}
)
_SHOW = "systems show {}"


def moment(at: datetime) -> str:
    """A moment, to the second, in UTC."""
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def of(record: Recorded, board: Board) -> Message:
    """An event of any kind."""
    tokens = record.subject.split(".")
    if tokens[0] == "inv":
        return _invocation(record, tokens)
    match record.data:
        case finding.Opened() | finding.Changed() | finding.Silenced() | finding.Unsilenced():
            told = board.findings.get(tokens[2])
            return found(told.known) if told else _any(record, tokens)
        case sweep.Finished():
            return _sweep(record.data)
        case freeze.Frozen() | freeze.Changed() | freeze.Missing() | freeze.Thawing() | freeze.Thawed():
            return _freeze(record.data)
        case quota.Tripped() as data:
            return _generic(record, STOP, f"A spend cap is reached: {tokens[2]}", "systems quota")
        case loop.Tripped() as data:
            title = f"A run tree was stopped: {data.reason.value}, {data.count} of {data.limit}"
            return _generic(record, STOP, title, _SHOW.format(data.invocation))
        case daemon.GaveUp() as data:
            title = f"{data.daemon} stays down: {data.exits} exits in {data.period_s:g} s"
            return Message(icon=ICONS[Severity.ULTRA], title=title, lines=(("Host", data.host),), command=data.command)
        case ops.Finished() as data:
            return _generic(record, DONE if data.ok else WARN, "An action is done" if data.ok else "An action failed")
        case _:
            return _any(record, tokens)


def _freeze(data: Any) -> Message:
    """What happens to a freeze."""
    match data:
        case freeze.Frozen():
            lines = [("By", data.by), ("Mode", data.mode), ("Reason", data.reason)]
            lines += [("Until", moment(data.until))] if data.until else []
            return Message(icon=STOP, title="The fleet is frozen", lines=_said(lines), command="systems status")
        case freeze.Missing():
            title = f"{len(data.instances)} daemons have not answered the freeze after {data.waited_s:g} s"
            lines = [("Which", ", ".join(data.instances))]
            return Message(icon=ICONS[Severity.ULTRA], title=title, lines=_said(lines), command="systems status")
        case freeze.Thawed():
            bad = f"{data.written} writes got through while it was frozen" if data.written else "none"
            return Message(
                icon=STOP if data.written else DONE,
                title=f"The fleet is thawed after {data.frozen_s:.0f} s",
                lines=(("Writes after the freeze", bad),),
            )
        case freeze.Changed():
            lines = [("By", data.by), ("Mode", data.mode), ("Why", data.why)]
            return Message(icon=STOP, title="The freeze is another one now", lines=_said(lines))
        case _:
            return Message(
                icon=INFO, title="The fleet is thawing", lines=_said([("By", data.by), ("Reason", data.reason)])
            )


def found(known: Known, *, closed: finding.Closed | None = None) -> Message:
    """A finding as it stands."""
    one = known.finding
    lines = [("About", one.subject), ("Since", moment(one.since))]
    if known.silence is not None:
        lines.append(("Silenced until", moment(known.silence.until)))
    if one.cause:
        lines.append(("Explained by", one.cause))
    if closed:
        over = f"{closed.reason.value} after {closed.open_s:.0f} s, by {closed.by}"
        lines.append(("Over", f"{over}: {closed.why}" if closed.why else over))
    return Message(
        icon=DONE if closed else ICONS[one.severity],
        title=one.title,
        lines=_said(lines),
        detail="" if closed else one.detail,
        command="" if closed else one.command,
        whole="systems findings",
    )


def _sweep(data: sweep.Finished) -> Message:
    counts = data.counts
    lines = [
        ("Open", f"{counts.open}, of which {counts.muted} explained by others and {counts.silenced} silenced"),
        (
            "Since the sweep before",
            f"{counts.new} new, {counts.worse} worse, {counts.better} better, {counts.gone} gone",
        ),
    ]
    if data.unseen:
        lines.append(("Could not be looked at", ", ".join(data.unseen)))
    if data.next_at:
        lines.append(("Next", moment(data.next_at)))
    icon = DONE if data.verdict is sweep.Verdict.NOMINAL else WARN
    return Message(
        icon=icon, title=f"Sweep: {data.verdict.value.replace('_', ' ')}", lines=_said(lines), command="systems status"
    )


def _invocation(record: Recorded, tokens: list[str]) -> Message:
    ref, name = f"{tokens[1]}/{tokens[2]}", tokens[4]
    whole = _SHOW.format(tokens[3])
    error = getattr(record.data, "error", None)
    detail = f"{error.kind}: {error.message}\n{error.detail}" if isinstance(error, invocation.Error) else ""
    icon = {"dead_lettered": "💀", "failed": WARN, "completed": DONE, "cancelled": STOP}.get(name, INFO)
    buttons: tuple[Button, ...] = ()
    if name == "dead_lettered":
        buttons = (
            Button(action="dead_letter_redrive", label="Redrive", value=tokens[3], style="primary"),
            Button(action="dead_letter_discard", label="Discard", value=tokens[3], style="danger"),
        )
    return Message(
        icon=icon,
        title=f"{ref}: {name.replace('_', ' ')}",
        lines=_said([("Invocation", tokens[3]), ("What", story.sentence(record))]),
        detail=detail,
        command=whole,
        whole=whole,
        buttons=buttons,
    )


def _any(record: Recorded, tokens: list[str]) -> Message:
    icon = WARN if tokens[3] in ("failed", "refused", "tripped", "damaged", "missed", "exited", "missing") else INFO
    return _generic(record, icon, f"{tokens[1]} {tokens[3].replace('_', ' ')}: {tokens[2]}")


def _generic(record: Recorded, icon: str, title: str, command: str = "") -> Message:
    """Whatever an event says, field by field."""
    lines: list[tuple[str, str]] = []
    if record.data is not None:
        fields = msgspec.structs.fields(record.data)
        lines = [
            (field.name.replace("_", " "), _value(getattr(record.data, field.name)))
            for field in fields
            if field.name not in _UNSAID
        ]
    return Message(
        icon=icon,
        title=title,
        lines=_said(lines),
        command=command,
        whole=f"nats stream get CONTROL {record.seq}",
    )


def _value(value: Any) -> str:
    match value:
        case None | "" | () | {}:
            return ""
        case datetime():
            return moment(value)
        case str():
            return value
        case float():
            return f"{value:g}"
        case msgspec.Raw():
            return bytes(value).decode(errors="replace")
        case tuple():
            return ", ".join(_value(item) for item in value)
        case _:
            return str(value) if isinstance(value, bool | int) else msgspec.json.encode(value).decode()


def _said(lines: list[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    return tuple((what, value) for what, value in lines if value)

"""The post-mortem of an incident, drafted as Markdown for people to go on from. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

import msgspec

from services.guards.backtest import Trial
from services.incident.state import Incident
from services.incident.timeline import Line
from services.incident.words import span

#: Lines of the timeline, and trials of guards, that the draft shows.
_LINES, _TRIALS = 300, 10
#: Seconds within which nobody asks why it was not noticed sooner.
_SOON_S = 60.0
#: Characters of a cell: the draft is an event, and must fit into one.
_CELL = 500


class Bill(msgspec.Struct, frozen=True, kw_only=True):
    """What came to nothing while it lasted."""

    #: Run trees in which something failed.
    trees: int = 0
    failures: int = 0
    deaths: int = 0
    tokens: int = 0
    lost_usd: float = 0.0
    #: Why nobody can say; empty where somebody can.
    problem: str = ""


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """What the draft knows beside the incident itself."""

    lines: Sequence[Line]
    bill: Bill
    #: Trips that stricter limits would have made, and what these were.
    trials: Sequence[Trial] = ()
    stricter: str = ""
    #: Why guards could not be replayed; empty where they were.
    unreplayed: str = ""


def markdown(incident: Incident, found: Findings) -> str:
    """The draft."""
    sections = {
        "Impact": _impact(incident),
        "Detection and reaction": _reaction(incident),
        "Cause": iter([incident.cause or "Not said yet."]),
        "Timeline": _timeline(found.lines),
        "Cost": _cost(found.bill),
        "Guards": _guards(found),
        "Open questions": _questions(incident, found),
        "Actions": _actions(incident),
    }
    parts = [f"# Incident {incident.number}: {incident.title}", "", *_facts(incident)]
    for heading, lines in sections.items():
        parts += ["", f"## {heading}", "", *lines]
    return "\n".join(parts) + "\n"


def _facts(incident: Incident) -> Iterator[str]:
    yield "| | |"
    yield "|---|---|"
    facts = {
        "Severity": incident.severity.value,
        "Status": incident.status.value,
        "Declared by": incident.by,
        "In charge": incident.in_charge or "nobody",
        "Closed by": incident.closed_by or "nobody",
        "Reopened": f"{incident.reopened} times" if incident.reopened else "never",
    }
    for name, value in facts.items():
        yield f"| {name} | {value} |"


def _impact(incident: Incident) -> Iterator[str]:
    end = incident.closed_at
    if end is not None:
        yield f"It lasted {span((end - incident.since).total_seconds())}, from {_at(incident.since)} to {_at(end)}."
    if not incident.affected:
        yield "No project is known to have been hit."
    for project, impact in sorted(incident.affected.items()):
        yield f"- **{project}**: {impact.reason}" + (f" (says {impact.by})" if impact.by != "graph" else "")


def _reaction(incident: Incident) -> Iterator[str]:
    yield "| what | when | after |"
    yield "|---|---|---|"
    yield f"| it began | {_at(incident.since)} | |"
    moments = {
        "declared": incident.declared_at,
        "first call taken by a service": incident.first_paged_at,
        "acknowledged for the first time": incident.first_acknowledged_at,
        "mitigated": incident.mitigated_at,
        "closed": incident.closed_at,
    }
    for what, at in moments.items():
        after = span((at - incident.since).total_seconds()) if at is not None else ""
        yield f"| {what} | {_at(at)} | {after} |"


def _timeline(lines: Sequence[Line]) -> Iterator[str]:
    yield "| time (UTC) | event | who | what |"
    yield "|---|---|---|---|"
    for line in lines[:_LINES]:
        yield f"| {line.at:%Y-%m-%d %H:%M:%S} | `{line.event}` {line.subject} | {_cell(line.who)} | {_cell(line.what)} |"
    if len(lines) > _LINES:
        yield f"| | | | and {len(lines) - _LINES:,} more |"


def _cost(bill: Bill) -> Iterator[str]:
    if bill.problem:
        yield f"Not known: {bill.problem}."
        return
    if not bill.trees:
        yield "Nothing failed while it lasted."
        return
    yield (
        f"{bill.lost_usd:,.2f} USD and {bill.tokens:,} tokens came to nothing, in {bill.trees:,} run trees with "
        f"{bill.failures:,} failed attempts and {bill.deaths:,} dead letters (`systems query failure_bills`)."
    )


def _guards(found: Findings) -> Iterator[str]:
    acted = [line for line in found.lines if line.subject.split()[0] in {"quota", "loop", "guard", "freeze"}]
    for line in acted:
        yield f"- It acted: {_cell(line.what)} at {_at(line.at)} (`{line.event}`)."
    if not acted:
        yield "No guard acted."
    if found.unreplayed:
        yield f"Guards were not replayed: {found.unreplayed}."
        return
    if not found.trials:
        yield (
            f"With {found.stricter} none would have acted either." if found.stricter else "There is nothing to replay."
        )
    for trial in sorted(found.trials, key=lambda trial: trial.at)[:_TRIALS]:
        saved = f"{trial.saved_tokens:,} tokens and {trial.saved_usd_micros / 1e6:,.2f} USD"
        yield (
            f"- It would have acted with {found.stricter}: the {trial.guard} on {trial.scope} at {_at(trial.at)}, "
            f"saving {saved} and stopping {trial.stopped:,} pieces of honest work."
        )


def _questions(incident: Incident, found: Findings) -> Iterator[str]:
    detected = (incident.declared_at - incident.since).total_seconds()
    if detected > _SOON_S:
        yield f"- Could it have been noticed before {span(detected)} had passed?"
    if incident.first_acknowledged_at is None:
        yield "- Why has nobody acknowledged it?"
    if any("is over: people are called again" in line.what for line in found.lines):
        yield "- Why did an acknowledgement run out?"
    if any(line.what.startswith("nobody can be called") for line in found.lines):
        yield "- Why did every way to call people fail?"
    if incident.reopened:
        yield "- Why was it not over when that was said first?"
    if incident.left:
        yield f"- {incident.left} of its findings were still there at the close: why?"
    if not incident.actions:
        yield "- What keeps it from happening again? No action was named."


def _actions(incident: Incident) -> Iterator[str]:
    if not incident.actions:
        yield "None was named."
    for action in incident.actions:
        yield f"- [ ] {action.text} ({action.owner or 'no owner yet'})"


def _at(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC" if at is not None else "never"


def _cell(text: str) -> str:
    line = " ".join(text.replace("|", "/").split())
    return line if len(line) <= _CELL else f"{line[: _CELL - 1]}…"

"""What happened, told to a person: the timeline of one invocation, its chain of causes, its run tree.

Pure: records of the log in, lines and Structs out. What cannot be read is told as what it is, in its place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from bus.envelope import Envelope
from bus.events import deadletter
from bus.events import invocation as ev
from bus.invocation import Invocation
from bus.store import Recorded, fold
from bus.subjects import Ref

#: Characters of a message that one line shows.
_SHOWN = 160


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One event of a timeline."""

    seq: int
    at: datetime
    #: Seconds since the event before it; None for the first.
    after_s: float | None
    #: Last token of the subject.
    event: str
    what: str


def timeline(records: Sequence[Recorded]) -> list[Line]:
    """One line for each event."""
    lines: list[Line] = []
    before: Recorded | None = None
    for record in records:
        after = None if before is None else (record.stored_at - before.stored_at).total_seconds()
        name = record.subject.rpartition(".")[2]
        lines.append(Line(seq=record.seq, at=record.stored_at, after_s=after, event=name, what=sentence(record)))
        before = record
    return lines


def sentence(record: Recorded) -> str:
    """What an event says, in one line."""
    if record.data is None or record.event is None:
        return f"no event of ours: {record.problem}"
    actor = record.event.actor
    match record.data:
        case ev.Requested() as data:
            text = _requested(data, actor)
        case ev.Scheduled(due=due, request=request):
            text = f"for {due:%Y-%m-%d %H:%M:%S}, {_requested(request, actor)}"
        case ev.Claimed() as data:
            text = f"by {data.runner}, attempt {data.attempt}, delivery {data.delivery}"
        case ev.Completed() as data:
            text = _completed(data)
        case ev.Failed() as data:
            text = _failed(data)
        case ev.Swept() as data:
            text = f"{_words(data.reason)}: held for {_seconds(data.age_s)} by {data.holder}"
        case ev.Released() as data:
            text = _words(data.reason) + (f": given back by {data.holder}" if data.holder else "")
        case ev.DeadLettered() as data:
            text = f"{_words(data.reason)} after {_count(data.attempts, 'error')} and {_count(data.crashes, 'crash')}"
        case ev.Cancelled() | ev.Redriven() | ev.Discarded() as data:
            text = f"by {actor or record.event.source}" + (f": {data.reason}" if data.reason else "")
        case deadletter.Kept() as data:
            text = f"{_words(data.reason)} after {_count(len(data.attempts), 'attempt')}{_error(data.error)}"
        case data:
            text = _fields(data)
    return clip(text)


def _requested(data: ev.Requested, actor: str) -> str:
    parts = [f"by {actor}" if actor else "by nobody who gave a name"]
    if data.schedule:
        parts = [f"by schedule {data.schedule}" + (f", due {data.due:%Y-%m-%d %H:%M:%S}" if data.due else "")]
    if data.generation:
        parts = [f"again, generation {data.generation}"]
    if data.idempotency_key:
        parts.append(f"key {data.idempotency_key}")
    parts.append(
        f"input {size_of(data.input_ref)}" if data.input_ref else f"input {bytes(data.input).decode(errors='replace')}"
    )
    return ", ".join(parts)


def _completed(data: ev.Completed) -> str:
    parts = [f"in {_seconds(data.duration_ms / 1000)}"]
    if data.usage != ev.Usage():
        parts.append(tokens(data.usage))
    if data.follow_ups:
        parts.append(f"asked for {_count(len(data.follow_ups), 'follow-up')}")
    parts.append(
        f"output {size_of(data.output_ref)}"
        if data.output_ref
        else f"output {bytes(data.output).decode(errors='replace')}"
    )
    return ", ".join(parts)


def _failed(data: ev.Failed) -> str:
    text = f"attempt {data.attempt} after {_seconds(data.duration_ms / 1000)}{_error(data.error)}"
    if data.error.permanent:
        return f"{text}; no retry can help"
    return f"{text}; again at {data.retry_at:%H:%M:%S}" if data.retry_at else f"{text}; no attempt is left"


def _error(error: ev.Error | None) -> str:
    return f": {error.kind}: {first_line(error.message)}" if error is not None else ""


def _fields(data: Any) -> str:
    """Any other event: its fields as they are, the small ones."""
    plain = msgspec.structs.asdict(data)
    small = {name: value for name, value in plain.items() if isinstance(value, str | int | float) and value != ""}
    return ", ".join(f"{name} {value}" for name, value in small.items())


class Causes(msgspec.Struct, frozen=True, kw_only=True):
    """One link of a chain of causes: an invocation, and what made somebody ask for it."""

    ref: Ref
    status: str
    at: datetime
    #: A person, a role, or a daemon; empty when nobody gave a name.
    actor: str
    schedule: str = ""
    #: Id of the invocation that asked.
    parent: str = ""
    #: Event of the parent that led to it, as ``claimed``; empty when it is not in the log.
    by_event: str = ""
    #: Process that wrote the request.
    source: str = ""


def cause_of(ref: Ref, records: Sequence[Recorded], parent: Sequence[Recorded] = ()) -> Causes | None:
    """Why an invocation was asked for; `parent` is the history of the invocation that asked. None without its events."""
    state = fold(records)
    first = next((r for r in records if isinstance(r.data, ev.Requested | ev.Scheduled)), None)
    if state is None or first is None or first.event is None:
        return None
    request = first.data.request if isinstance(first.data, ev.Scheduled) else first.data
    by = next((r for r in parent if r.event is not None and r.event.id == first.event.causationid), None)
    return Causes(
        ref=ref,
        status=state.status,
        at=first.stored_at,
        actor=first.event.actor,
        schedule=request.schedule,
        parent=request.parent,
        by_event=by.subject.rpartition(".")[2] if by is not None else "",
        source=first.event.source,
    )


def chain_lines(chain: Sequence[Causes]) -> list[str]:
    """A chain of causes, the invocation itself first, its root last."""
    lines: list[str] = []
    for place, link in enumerate(chain):
        head = f"{link.ref.project}/{link.ref.role} {link.ref.id} ({link.status})"
        above = chain[place + 1] if place + 1 < len(chain) else None
        if above is not None:
            event = f", after its {link.by_event!r}" if link.by_event else ""
            why = f"asked for by {above.ref.project}/{above.ref.role} {above.ref.id}{event}"
        elif link.parent:
            why = f"asked for by {link.parent}, whose events are not in the log any more"
        elif link.schedule:
            why = f"asked for by the schedule {link.schedule}"
        else:
            why = f"asked for by {link.actor or 'somebody who gave no name'} through {link.source}"
        lines.append(f"{head}\n  {why}, at {link.at:%Y-%m-%d %H:%M:%S} UTC")
    return lines


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """An invocation of a run tree, with those that it asked for."""

    id: str
    project: str
    role: str
    status: str
    children: tuple[Node, ...] = ()


def tree(top: Ref, members: Mapping[Ref, str], states: Mapping[Ref, Invocation]) -> Node:
    """The run tree below `top`.

    Args:
        top: where to begin.
        members: invocation -> id of its parent, in the order in which they were asked for.
        states: those that were looked at; the others are ``unknown``.

    A parent that is its own descendant (written by hand) is drawn once.
    """
    below: dict[str, list[Ref]] = {}
    for ref, parent in members.items():
        below.setdefault(parent, []).append(ref)
    seen: set[str] = set()

    def grow(ref: Ref) -> Node:
        seen.add(ref.id)
        grown = tuple(grow(child) for child in below.get(ref.id, []) if child.id not in seen)
        status = str(states[ref].status) if ref in states else "unknown"
        return Node(id=ref.id, project=ref.project, role=ref.role, status=status, children=grown)

    return grow(top)


def tree_lines(node: Node, *, marked: str = "") -> Iterator[str]:
    """A run tree as lines; the invocation `marked` gets an arrow."""
    yield _node(node, marked)
    yield from _branches(node.children, "", marked)


def _branches(children: Sequence[Node], indent: str, marked: str) -> Iterator[str]:
    for place, child in enumerate(children, 1):
        last = place == len(children)
        yield f"{indent}{'└─ ' if last else '├─ '}{_node(child, marked)}"
        yield from _branches(child.children, indent + ("   " if last else "│  "), marked)


def _node(node: Node, marked: str) -> str:
    return f"{node.project}/{node.role} {node.id} {node.status}" + ("  <- this one" if node.id == marked else "")


def size(node: Node) -> int:
    """Invocations in a tree."""
    return 1 + sum(size(child) for child in node.children)


class Story(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about one invocation, for programs."""

    id: str
    project: str
    role: str
    status: str
    root: str
    parent: str
    depth: int
    #: Claims so far, over all generations.
    attempts: int
    #: Errors and crashes since the last redrive.
    errors: int
    crashes: int
    redrives: int
    usage: ev.Usage
    requested_at: datetime
    #: When it ended; None while it has not.
    ended_at: datetime | None
    actor: str
    input: msgspec.Raw
    input_ref: ev.ArtifactRef | None
    output: msgspec.Raw
    output_ref: ev.ArtifactRef | None
    error: ev.Error | None
    retry_at: datetime | None
    #: The envelopes as they lie in the log, with their stream sequence as ``seq``; rubbish has a ``problem`` instead.
    events: tuple[dict[str, Any], ...]


def story(ref: Ref, records: Sequence[Recorded]) -> Story | None:
    """The whole of an invocation; None when none of its events can be read."""
    state = fold(records)
    if state is None:
        return None
    request = state.request
    first = next(r for r in records if r.event is not None)
    completed = next((r.data for r in reversed(records) if isinstance(r.data, ev.Completed)), None)
    return Story(
        id=ref.id,
        project=ref.project,
        role=ref.role,
        status=state.status,
        root=request.root or ref.id,
        parent=request.parent,
        depth=request.depth,
        attempts=sum(isinstance(r.data, ev.Claimed) for r in records),
        errors=state.errors,
        crashes=state.crashes,
        redrives=state.redrives,
        usage=state.usage,
        requested_at=first.stored_at,
        ended_at=state.since if state.status.ended else None,
        actor=first.event.actor if first.event is not None else "",
        input=request.input,
        input_ref=request.input_ref,
        output=completed.output if completed is not None else ev.EMPTY,
        output_ref=completed.output_ref if completed is not None else None,
        error=state.error if completed is None else None,
        retry_at=state.retry_at,
        events=tuple(map(as_json, records)),
    )


def as_json(record: Recorded) -> dict[str, Any]:
    """A record as JSON shows it: the envelope as it lies in the log, and where it lies."""
    if record.event is None:
        return {
            "seq": record.seq,
            "subject": record.subject,
            "time": record.stored_at,
            "problem": record.problem,
            "raw": record.raw.decode(errors="replace"),
        }
    return {"seq": record.seq} | _envelope(record.event)


def _envelope(event: Envelope) -> dict[str, Any]:
    fields = {field: getattr(event, field) for field in Envelope.__struct_fields__}
    # CloudEvents: an attribute that is not set is not there.
    return {name: value for name, value in fields.items() if value != "" and (name, value) != ("dataversion", 1)}


def header(ref: Ref, told: Story, causes: Causes | None) -> Iterable[tuple[str, str]]:
    """What stands above a timeline, as (name, value)."""
    yield "role", f"{ref.project}/{ref.role}"
    yield "id", ref.id
    yield "status", told.status
    if told.parent:
        yield "parent", told.parent
        yield "root", told.root
    elif causes is not None and causes.schedule:
        yield "schedule", causes.schedule
    if told.actor:
        yield "asked by", told.actor
    yield "input", size_of(told.input_ref) if told.input_ref else clip(bytes(told.input).decode(errors="replace"))
    if told.output_ref is not None or bytes(told.output) != b"null":
        yield (
            "output",
            size_of(told.output_ref) if told.output_ref else clip(bytes(told.output).decode(errors="replace")),
        )
    if told.usage != ev.Usage():
        yield "usage", tokens(told.usage)
    if told.error is not None:
        yield "error", clip(f"{told.error.kind}: {told.error.message}")


def tokens(usage: ev.Usage) -> str:
    """``5 input and 1 output tokens of gpt-9``."""
    text = f"{usage.input_tokens:,} input and {usage.output_tokens:,} output tokens"
    return f"{text} of {usage.model}" if usage.model else text


def size_of(artifact: ev.ArtifactRef) -> str:
    """Where something large lies."""
    return f"of {artifact.size:,} bytes in artifact {artifact.name}"


def first_line(text: str) -> str:
    """A text's first line."""
    return text.split("\n", 1)[0]


def clip(text: str) -> str:
    """A text on one line, cut if it is long."""
    line = " ".join(text.split("\n"))
    return line if len(line) <= _SHOWN else f"{line[: _SHOWN - 1]}…"


def _words(reason: str) -> str:
    return str(reason).replace("_", " ")


def _count(number: int, noun: str) -> str:
    plural = noun if number == 1 else f"{noun}es" if noun.endswith("sh") else f"{noun}s"
    return f"{number:,} {plural}"


def _seconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"

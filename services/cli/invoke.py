"""``systems invoke``: ask a role, and wait for the result if wanted."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from bus.events import invocation as ev
from bus.follower import Follower
from bus.invocation import Invocation, Status
from bus.store import INVOCATIONS, Recorded, fold, parse_time, read
from bus.subjects import Ref, parse_role
from services.cli import output
from services.cli.ask import ask
from services.cli.common import DEFAULTS, Common, Flag
from services.cli.exits import Exit, UsageError
from services.cli.session import Session, operator
from services.fleet import durations, schema
from services.requests.requests import Accepted

#: How an invocation's end ends the command.
_EXITS = {Status.COMPLETED: Exit.DONE, Status.DEAD_LETTERED: Exit.FAILED}


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What came of an invocation, for JSON."""

    id: str
    project: str
    role: str
    seq: int
    deduplicated: bool
    status: str
    output: msgspec.Raw = ev.EMPTY
    output_ref: ev.ArtifactRef | None = None
    usage: ev.Usage = ev.Usage()
    #: Milliseconds of the attempt that completed.
    duration_ms: float | None = None
    error: ev.Error | None = None
    reason: str = ""


async def invoke(
    role: str,
    /,
    *,
    input: Annotated[str, Parameter(allow_leading_hyphen=True)] = "null",
    wait: Flag = False,
    timeout: str | None = None,
    key: str = "",
    in_: Annotated[str | None, Parameter(name="--in")] = None,
    at: str | None = None,
    common: Common = DEFAULTS,
) -> int:
    """Ask a role for work.

    Prints the id of the new invocation; with --wait its output, once it has ended. Inside an exec handler the request
    belongs to the running invocation: parent and root are taken from the environment.

    Args:
        role: PROJECT/ROLE.
        input: JSON, or @FILE, or - for stdin.
        wait: Wait until it has ended. Exit status: 0 completed, 2 dead-lettered, 1 cancelled or discarded.
        timeout: How long to wait, such as 90s or 5m; after it the exit status is 75 and the work goes on.
        key: Idempotency key: the same key gives the first invocation instead of a new one.
        in_: Not before this much time has passed, such as 90s.
        at: Not before this time, in RFC 3339.
        common: Which fleet, and how to print.
    """
    parse_role(role)
    content = read_input(input)
    limit = None if timeout is None else durations.seconds(_number(timeout))
    due = _due(in_, at)
    async with operator(common) as session:
        accepted = await ask(session, role, content, key=key, due=due)
        if not wait:
            _print_accepted(accepted, common)
            return Exit.DONE
        if not common.json:
            output.note(f"{accepted.id} accepted" + (" before, with the same key" if accepted.deduplicated else ""))
        return await _wait(session, accepted, limit, common)


def read_input(text: str) -> bytes:
    """The input that an option names: JSON itself, ``@FILE``, or ``-`` for stdin.

    Raises:
        UsageError: the file cannot be read.
        NotJson: it is no JSON; says where.
    """
    try:
        if text == "-":
            content = sys.stdin.buffer.read()
        elif text.startswith("@"):
            content = Path(text[1:]).expanduser().read_bytes()
        else:
            content = text.encode(errors="surrogateescape")
    except OSError as exc:
        raise UsageError(f"expected a file to read the input from, got: {text[1:]!r} ({exc.strerror or exc})") from exc
    schema.read(content)
    return content.strip()


def _number(text: str) -> str | float:
    """``30`` as well as ``30s``."""
    try:
        return float(text)
    except ValueError:
        return text


def _due(in_: str | None, at: str | None) -> str:
    """The value of the request's due header.

    Raises:
        UsageError, BadDuration: it cannot be a due time.
    """
    if in_ is not None and at is not None:
        raise UsageError("expected --in or --at, got both; give one of them")
    if in_ is not None:
        return f"+{durations.seconds(_number(in_))}"
    if at is None:
        return ""
    try:
        due = datetime.fromisoformat(at.strip())
        if due.tzinfo is None:
            raise UsageError(
                f"expected --at with a time zone, such as {datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}, got: {at!r}"
            )
        return parse_time(due.isoformat()).isoformat()
    except (ValueError, OverflowError, msgspec.ValidationError) as exc:
        raise UsageError(
            f"expected --at in RFC 3339, such as {datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}, got: {at!r}"
        ) from exc


def _print_accepted(accepted: Accepted, common: Common) -> None:
    if common.json:
        output.json(accepted)
        return
    print(accepted.id)
    if accepted.deduplicated:
        output.note("it was accepted before, with the same key")


async def _wait(session: Session, accepted: Accepted, limit: float | None, common: Common) -> int:
    ref = Ref(accepted.project, accepted.role, accepted.id)
    records: list[Recorded] = []
    try:
        async with asyncio.timeout(limit):
            state = await follow(session, ref, accepted.seq, records)
    except TimeoutError:
        found = fold(records)
        if common.json:
            output.json(_result(accepted, records, found, ev.EMPTY))
        status = found.status if found is not None else Status.QUEUED
        output.note(
            f"systems: it has not ended within {limit:g} s: it is {status}; the work goes on, see `systems show {ref.id}`"
        )
        return Exit.LATER
    content = bytes(await _output(session, records))
    if common.json:
        output.json(_result(accepted, records, state, msgspec.Raw(content)))
    else:
        _print_end(state, records, content)
    return _EXITS.get(state.status, Exit.REFUSED)


async def follow(session: Session, ref: Ref, seq: int, records: list[Recorded]) -> Invocation:
    """Read an invocation's events from `seq` on, as they come, until it has ended: its state.

    `records` is filled with them on the way, so that a caller who gives up knows how far it was.
    """
    follower = Follower(session.bus.connection, INVOCATIONS, [ref.all], start=seq)
    async for batch in follower.batches():
        for item in batch:
            stored_at = datetime.fromtimestamp(item.stored_ns / 1e9, UTC)
            records.append(read(item.seq, item.subject, stored_at, item.data))
        state = fold(records)
        # A dead letter that was redriven is followed by more: only the last event tells.
        if state is not None and state.status.ended and batch[-1].pending == 0:
            return state
    raise AssertionError("a follower never ends by itself")


def _completed(records: list[Recorded]) -> ev.Completed | None:
    return next((r.data for r in reversed(records) if isinstance(r.data, ev.Completed)), None)


async def _output(session: Session, records: list[Recorded]) -> msgspec.Raw:
    completed = _completed(records)
    if completed is None:
        return ev.EMPTY
    if completed.output_ref is not None:
        return msgspec.Raw(await session.bus.artifacts.get(completed.output_ref))
    return completed.output


def _result(accepted: Accepted, records: list[Recorded], state: Invocation | None, content: msgspec.Raw) -> Result:
    completed = _completed(records)
    last = records[-1].data if records else None
    return Result(
        id=accepted.id,
        project=accepted.project,
        role=accepted.role,
        seq=accepted.seq,
        deduplicated=accepted.deduplicated,
        status=state.status if state is not None else Status.QUEUED,
        output=content,
        output_ref=completed.output_ref if completed is not None else None,
        usage=state.usage if state is not None else ev.Usage(),
        duration_ms=completed.duration_ms if completed is not None else None,
        error=state.error if state is not None and completed is None else None,
        reason=str(getattr(last, "reason", "")),
    )


def _print_end(state: Invocation, records: list[Recorded], content: bytes) -> None:
    took: Any = (records[-1].stored_at - records[0].stored_at).total_seconds()
    usage = f"; {state.usage.input_tokens:,} input and {state.usage.output_tokens:,} output tokens"
    last = records[-1].data
    reason = (
        f": {last.reason}" if isinstance(last, ev.Cancelled | ev.DeadLettered | ev.Discarded) and last.reason else ""
    )
    output.note(
        f"{state.status} after {output.age(took)}{reason}{usage if any((state.usage.input_tokens, state.usage.output_tokens)) else ''}"
    )
    if state.status is Status.COMPLETED:
        sys.stdout.buffer.write(content + b"\n")
    elif state.error is not None:
        output.note(f"{state.error.kind}: {state.error.message}")

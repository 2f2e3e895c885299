"""``systems dlq``: what was given up on, and what a person does about it.

With a filter, redrive and discard count first and ask; they can be slowed down with ``--rate``, and Ctrl-C stops them after
the letter in hand, with a count of what was done. Doing the same command again goes on where it stopped.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from cyclopts import App, Group, Parameter

from bus.events import deadletter
from bus.store import Recorded
from services import story
from services.cli import output
from services.cli.common import DEFAULTS, Common
from services.cli.exits import Exit, UsageError
from services.cli.session import Session, operator
from services.dead_letters import DeadLetters, Did, Filter, Letter, Outcome, letter_of, subject_of
from services.fleet import durations

app = App(name="dlq", help="List, show, redrive or discard dead letters.", help_format="plaintext")


@Parameter(name="*", group=Group("Which dead letters", sort_key=50))
@dataclass(frozen=True, kw_only=True)
class Chosen:
    """Which dead letters are meant."""

    role: Annotated[str, Parameter(help="PROJECT/ROLE, or PROJECT/*.", show_default=False)] = ""
    fingerprint: Annotated[
        str, Parameter(help="Fingerprint of the last error, or its beginning.", show_default=False)
    ] = ""
    older_than: Annotated[str | None, Parameter(help="Dead for at least this long, such as 1h.")] = None
    limit: Annotated[int | None, Parameter(help="At most so many, the oldest first.")] = None

    def filter(self) -> Filter:
        """The options as a filter.

        Raises:
            UsageError, BadDuration, BadSubject: an option makes no sense.
        """
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"expected --limit to be at least 1, got: {self.limit}")
        age = None if self.older_than is None else durations.seconds(self.older_than)
        wanted = Filter(role=self.role, fingerprint=self.fingerprint, older_than_s=age, limit=self.limit)
        subject_of(wanted)  # refuses a role that is none
        return wanted


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Decision:
    """Why, how fast, and whether to ask."""

    reason: Annotated[str, Parameter(help="Why; goes into the events, with your name.")]
    rate: Annotated[str | None, Parameter(help="At most so many, such as 10/s or 30/m.")] = None
    yes: Annotated[bool, Parameter(negative="", show_default=False, help="Do not ask.")] = False


EVERYTHING = Chosen()


@app.command(name="ls")
async def list_(*, chosen: Chosen = EVERYTHING, common: Common = DEFAULTS) -> int:
    """List dead letters, the oldest first.

    Args:
        chosen: Which dead letters.
        common: Which fleet, and how to print.
    """
    wanted = chosen.filter()
    now = datetime.now(UTC)
    async with operator(common) as session:
        letters = [letter async for letter in (await _dead_letters(session)).select(wanted, now)]
    if common.json:
        output.json({"dead_letters": letters, "count": len(letters)})
        return Exit.DONE
    rows = [
        [
            letter.id,
            f"{letter.project}/{letter.role}",
            output.age((now - letter.died_at).total_seconds()),
            letter.reason,
            str(letter.attempts),
            letter.fingerprint,
            output.clipped(f"{letter.error}: {letter.message}" if letter.error else "", 60),
        ]
        for letter in letters
    ]
    output.table(
        ["id", "role", "dead for", "reason", "attempts", "fingerprint", "error"], rows, right=["dead for", "attempts"]
    )
    return Exit.DONE


@app.command(name="show")
async def show(id: str, /, *, common: Common = DEFAULTS) -> int:
    """Show a dead letter whole: request, attempts, errors and cost.

    Args:
        id: Id of the invocation.
        common: Which fleet, and how to print.
    """
    async with operator(common) as session:
        record = await (await _dead_letters(session)).get(id)
    if common.json:
        output.json({"seq": record.seq} | msgspec.to_builtins(record.data, builtin_types=(msgspec.Raw,)))
        return Exit.DONE
    _print_whole(record)
    return Exit.DONE


@app.command(name="redrive")
async def redrive(*ids: str, decision: Decision, chosen: Chosen = EVERYTHING, common: Common = DEFAULTS) -> int:
    """Send dead letters back to work with fresh attempts.

    Args:
        ids: Ids of invocations; without any, the filter says which.
        decision: Why and how.
        chosen: Which dead letters.
        common: Which fleet, and how to print.
    """
    return await _decide("redrive", ids, chosen.filter(), decision, common)


@app.command(name="discard")
async def discard(*ids: str, decision: Decision, chosen: Chosen = EVERYTHING, common: Common = DEFAULTS) -> int:
    """Give dead letters up for good. Their events stay in the log.

    Args:
        ids: Ids of invocations; without any, the filter says which.
        decision: Why and how.
        chosen: Which dead letters.
        common: Which fleet, and how to print.
    """
    return await _decide("discard", ids, chosen.filter(), decision, common)


async def _dead_letters(session: Session) -> DeadLetters:
    return DeadLetters(session.bus, await session.registry())


def pause_of(rate: str | None) -> float:
    """Seconds between two letters for ``10/s``, ``30/m``, ``100/h`` or a bare number a second; 0 without a rate.

    Raises:
        UsageError: it is no rate.
    """
    if rate is None:
        return 0.0
    number, _, unit = rate.partition("/")
    units = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
    try:
        count = float(number)
    except ValueError:
        count = 0.0
    if not 0 < count < float("inf") or unit not in units:
        raise UsageError(f"expected --rate as a number with a unit, such as 10/s, 30/m or 100/h, got: {rate!r}")
    return units[unit] / count


async def _decide(verb: str, ids: tuple[str, ...], wanted: Filter, decision: Decision, common: Common) -> int:
    pause = pause_of(decision.rate)
    if not decision.reason.strip():
        raise UsageError("expected --reason to say why, got: nothing")
    if ids and not wanted.empty:
        raise UsageError("expected ids or a filter, got both; give one of them")
    async with operator(common) as session:
        dead = await _dead_letters(session)
        if ids:
            letters = [_letter(await dead.get(id_)) for id_ in dict.fromkeys(ids)]
        else:
            letters = [letter async for letter in dead.select(wanted, datetime.now(UTC))]
            _confirm(verb, letters, common, yes=decision.yes)
        act = dead.redrive if verb == "redrive" else dead.discard
        outcomes, interrupted = await _one_by_one(
            letters, pause, lambda letter: act(letter, decision.reason, session.actor)
        )
    _report(outcomes, len(letters), common, interrupted=interrupted)
    if interrupted:
        return Exit.INTERRUPTED
    return Exit.REFUSED if any(outcome.did is Did.SKIPPED for outcome in outcomes) else Exit.DONE


def _letter(record: Recorded) -> Letter:
    letter = letter_of(record)
    assert letter is not None  # a dead letter was looked up
    return letter


def preview(letters: list[Letter]) -> list[str]:
    """How many there are, by role, reason and error. Pure."""
    groups = Counter(
        (f"{letter.project}/{letter.role}", letter.reason, letter.error, letter.fingerprint) for letter in letters
    )
    return [
        f"  {count:,} of {role}: {reason}" + (f", {error} ({fingerprint})" if error else "")
        for (role, reason, error, fingerprint), count in groups.most_common()
    ]


def _confirm(verb: str, letters: list[Letter], common: Common, *, yes: bool) -> None:
    """Ask, unless told not to.

    Raises:
        UsageError: nobody is there to ask, or the answer was not yes.
    """
    lines = [f"{len(letters):,} dead letter{'' if len(letters) == 1 else 's'} to {verb}", *preview(letters)]
    if not common.json or not yes:
        output.note("\n".join(lines))
    if yes or not letters:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(
            f"expected --yes, because nobody is there to ask; {len(letters):,} would be touched, nothing was done"
        )
    output.note(f"type yes to {verb} them:")
    if sys.stdin.readline().strip().lower() != "yes":
        raise UsageError("expected yes; nothing was done")


async def _one_by_one(
    letters: list[Letter], pause: float, act: Callable[[Letter], Awaitable[Outcome]]
) -> tuple[list[Outcome], bool]:
    """Act on each letter, `pause` seconds apart, until done or interrupted."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, stop.set)
    outcomes: list[Outcome] = []
    begun = loop.time()
    try:
        for place, letter in enumerate(letters):
            if pause and place:
                # Against the beginning, so that a slow server does not make the pace slower still.
                await _rest(stop, begun + place * pause - loop.time())
            if stop.is_set():
                return outcomes, True
            outcomes.append(await act(letter))
            if outcomes[-1].did is Did.SKIPPED:
                output.note(f"systems: {letter.id} skipped: {outcomes[-1].why}")
    finally:
        loop.remove_signal_handler(signal.SIGINT)
    return outcomes, False


async def _rest(stop: asyncio.Event, seconds: float) -> None:
    if seconds <= 0:
        return
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return


def _report(outcomes: list[Outcome], total: int, common: Common, *, interrupted: bool) -> None:
    counts: dict[str, Any] = {did.value: 0 for did in Did} | Counter(outcome.did.value for outcome in outcomes)
    if common.json:
        output.json(
            {"total": total, "done": len(outcomes), "interrupted": interrupted, "counts": counts, "outcomes": outcomes}
        )
        return
    done = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items() if count) or "nothing done"
    stopped = f"stopped after {len(outcomes):,} of {total:,}: " if interrupted else ""
    print(f"{stopped}{done}")


def _print_whole(record: Recorded) -> None:
    kept: deadletter.Kept = record.data
    given = bytes(kept.request.input).decode(errors="replace")
    facts = {
        "role": f"{kept.project}/{kept.role}",
        "id": kept.invocation,
        "reason": kept.reason.replace("_", " "),
        "requested": f"{output.moment(kept.requested_at)} UTC",
        "died": f"{output.moment(kept.died_at)} UTC",
        "redrives": f"{kept.redrives}",
        "usage": story.tokens(kept.usage),
        "input": story.size_of(kept.request.input_ref) if kept.request.input_ref else story.clip(given),
    }
    if kept.error is not None:
        facts["error"] = f"{kept.error.kind}: {kept.error.message}"
        facts["fingerprint"] = kept.error.fingerprint
    output.facts(facts.items(), 9)
    print()
    rows = [
        [
            str(attempt.number),
            output.moment(attempt.claimed_at),
            output.age((attempt.ended_at - attempt.claimed_at).total_seconds()),
            attempt.outcome,
            attempt.runner,
            f"{attempt.error.kind}: {story.first_line(attempt.error.message)}" if attempt.error else attempt.reason,
        ]
        for attempt in kept.attempts
    ]
    output.table(["try", "claimed (UTC)", "took", "outcome", "runner", "why"], rows, right=["try", "took"])
    if kept.error is not None and kept.error.detail:
        print(f"\n{kept.error.detail.rstrip()}")

"""``systems sweep``, ``findings``, ``silence`` and ``raise``: what the monitor found, and telling it something."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Literal

import msgspec
from cyclopts import App

from bus import errors
from bus.events import finding as ev
from bus.events.finding import CloseReason, Severity
from services.cli import output
from services.cli.common import DEFAULTS, Common, Flag
from services.cli.exits import Exit, UsageError
from services.cli.session import Session, operator
from services.fleet import durations
from services.monitor import asking, raised, raising
from services.monitor.ledger import Ledger
from services.monitor.memory import Step
from services.monitor.monitor import shown
from services.monitor.status import Done, Open, last_sweep
from services.requests.service import ACTOR, PARENT

_EXIT = {"nominal": Exit.DONE, "concern": Exit.REFUSED, "ultra": Exit.FAILED}
#: The longest that a finding may be silenced: what nobody looks at for so long is no silence.
_LONGEST_S = 30 * 86_400.0
#: Times that a finding is read again because somebody else has written to it meanwhile.
_TRIES = 5

Event = ev.Closed | ev.Silenced | ev.Unsilenced
#: What a person does to a finding: the ledger, wall time and the person in, the event out.
Make = Callable[[Ledger, datetime, str], Event]

app = App(name="findings", help="List what is wrong, or close what somebody raised.", help_format="plaintext")


async def sweep(*, common: Common = DEFAULTS) -> int:
    """Look at the whole fleet now, and list what is wrong. Exit status: 0 nominal, 1 concern, 2 ultra.

    Args:
        common: Which fleet, and how to print.
    """
    async with operator(common) as session:
        status = await asking.sweep(session.bus, session.actor)
    assert status.last is not None  # its own sweep
    if common.json:
        output.json(status)
    else:
        _print_sweep(status.last)
        _print(status.findings)
    return _EXIT[status.last.finished.verdict.value]


@app.default
async def list_(*, all_: Flag = False, common: Common = DEFAULTS) -> int:
    """List what is wrong: the worst first, with what a person runs. Exit status: 0 nothing, 1 concern, 2 ultra.

    Args:
        all_: Also what a cause explains, and what is silenced.
        common: Which fleet, and how to print.
    """
    async with operator(common) as session:
        ledger, last = await _ledger(session), await last_sweep(session.bus)
    listed = sorted(ledger.known.values(), key=lambda known: _order(shown(known, ledger)))
    findings = [shown(known, ledger) for known in listed if all_ or known.speaks]
    if common.json:
        output.json({"last": last, "findings": findings})
    else:
        if last is not None:
            _print_sweep(last)
        _print(findings)
        hidden = len(ledger.known) - len(findings)
        if hidden:
            print(output.paint(f"{hidden:,} more are explained by their cause or silenced: --all shows them", "dim"))
    worst = {one.severity for one in findings if not one.silenced_by}
    return Exit.FAILED if "ultra" in worst else Exit.REFUSED if worst else Exit.DONE


@app.command
async def close(fingerprint: str, /, *, reason: str, common: Common = DEFAULTS) -> int:
    """Close a finding that somebody raised. What a sweep finds closes itself when it is gone.

    Args:
        fingerprint: As `systems findings` shows it.
        reason: Why; it goes into the record, with your name.
        common: Which fleet, and how to print.
    """

    def closing(ledger: Ledger, now: datetime, actor: str) -> ev.Closed:
        found = ledger.known[fingerprint].finding
        if found.kind is not ev.Kind.RAISED:
            raise errors.Conflict(
                f"expected a finding that somebody raised, got: {fingerprint} ({found.title}), which closes itself when it is "
                "gone; to hear no more of it run `systems silence`"
            )
        open_s = max(0.0, (now - found.since).total_seconds())
        return ev.Closed(reason=CloseReason.CLOSED, open_s=round(open_s, 3), why=reason, by=actor)

    async with operator(common) as session:
        await _change(session, fingerprint, closing)
    print(f"{fingerprint} is closed")
    return Exit.DONE


async def silence(
    fingerprint: str, /, *, for_: str = "", reason: str = "", end: Flag = False, common: Common = DEFAULTS
) -> int:
    """Let a finding call nobody for a while. It stays in sight, and its silence ends with it.

    Args:
        fingerprint: As `systems findings` shows it.
        for_: How long, such as 2h.
        reason: Why; it goes into the record, with your name.
        end: End its silence now.
        common: Which fleet, and how to print.
    """
    if end == bool(for_):
        raise UsageError("expected --for DURATION, or --end, got: " + ("both" if end else "neither"))
    if not end and not reason:
        raise UsageError("expected --reason TEXT: whoever meets the silence must learn why, got: none")
    seconds = durations.seconds(for_) if for_ else 0.0
    if for_ and not 0 < seconds <= _LONGEST_S:
        raise UsageError(f"expected --for above 0 and at most {_LONGEST_S / 86_400:g}d, got: {for_}")

    def change(ledger: Ledger, now: datetime, actor: str) -> ev.Silenced | ev.Unsilenced:
        if not end:
            return ev.Silenced(owner=actor, reason=reason, until=now + timedelta(seconds=seconds))
        silence = ledger.known[fingerprint].silence
        if silence is None:
            raise errors.Conflict(f"expected a silence to end, got: {fingerprint} is not silenced")
        return ev.Unsilenced(reason=ev.UnsilenceReason.PERSON, owner=silence.owner)

    async with operator(common) as session:
        event = await _change(session, fingerprint, change)
    if isinstance(event, ev.Silenced):
        print(f"{fingerprint} is silent until {event.until:%Y-%m-%d %H:%M:%S} UTC, or until it is gone")
    else:
        print(f"{fingerprint} may call people again")
    return Exit.DONE


async def raise_(
    severity: Literal["concern", "ultra"],
    /,
    *,
    title: str,
    detail: str = "",
    evidence: tuple[str, ...] = (),
    common: Common = DEFAULTS,
) -> int:
    """Say that something is wrong; it is a finding until somebody closes it, or nobody says it again for a day.

    Args:
        severity: concern waits for a person, ultra calls one.
        title: What is wrong, in one line. The same title from the same place is the same finding.
        detail: More about it.
        evidence: A message that shows it, as STREAM:SEQUENCE, or any text. May be repeated.
        common: Which fleet, and how to print.
    """
    asked = raising.Raise(severity=Severity(severity), title=title, detail=detail, evidence=evidence)
    asked = raised.read(msgspec.json.encode(asked))
    parent = os.environ.get("SYSTEMS_PARENT", "")
    away = False
    async with operator(common) as session:
        headers = {ACTOR: session.actor} | ({PARENT: parent} if parent else {})
        try:
            taken = await raising.ask(session.bus.connection, asked, headers)
        except raising.MonitorAway:
            # Nobody limits us now: a person's word must not be lost because the warden is.
            away = True
            event = raised.event(asked, session.actor)
            taken = raising.Taken(fingerprint=raised.print_of(event))
            await session.bus.store.append(session.bus.author.control(taken.fingerprint, event))
    if common.json:
        output.json(taken)
    elif taken.deduplicated:
        print(f"{taken.fingerprint} is open already")
    else:
        print(f"{taken.fingerprint} raised" + ("; the warden is away, and will find it" if away else ""))
    return Exit.DONE


async def _ledger(session: Session) -> Ledger:
    ledger = Ledger(session.bus)
    await ledger.catch_up()
    return ledger


async def _change(session: Session, fingerprint: str, make: Make) -> Event:
    """Append what `make` makes of an open finding, again if somebody else has written to it meanwhile."""
    ledger = Ledger(session.bus)
    for _ in range(_TRIES):
        await ledger.catch_up()
        if fingerprint not in ledger.known:
            raise errors.UnknownName("open finding", fingerprint, ledger.known)
        event = make(ledger, session.bus.author.now(), session.actor)
        if await ledger.write(Step(fingerprint, event)):
            return event
    raise errors.Conflict(f"expected {fingerprint} to rest for a moment, got: it changes all the time; try again")


def _order(found: Open) -> tuple[object, ...]:
    return (found.severity != "ultra", bool(found.cause or found.silenced_by), found.since)


def _print_sweep(done: Done) -> None:
    counts = done.finished.counts
    print(
        f"{output.paint(done.finished.verdict.value, 'bold')}  sweep of {done.at:%Y-%m-%d %H:%M:%S} UTC "
        f"({done.finished.trigger.value}, {done.finished.took_ms:.0f} ms): {counts.open} open, {counts.new} new, "
        f"{counts.worse} worse, {counts.better} better, {counts.gone} gone"
    )
    for what in done.finished.unseen:
        print(f"  not seen: {what}")


def _print(findings: list[Open] | tuple[Open, ...]) -> None:
    if not findings:
        print("nothing is wrong that nobody knows of")
        return
    output.table(
        ["fingerprint", "severity", "since (UTC)", "what", "run"],
        [
            [
                one.fingerprint,
                one.severity + (" (muted)" if one.cause else " (silenced)" if one.silenced_by else ""),
                f"{one.since:%Y-%m-%d %H:%M:%S}",
                one.title,
                one.command,
            ]
            for one in findings
        ],
    )

"""``systems quota``: what is spent, held and capped; and a person sets or raises a cap.

What is shown is what is enforced: the warden's fold of the log, which the counters follow. Caps that people set lie in the
registry over those of the fleet file, and outlive every ``systems up``.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
from cyclopts import App
from nats import errors as driver

from bus import errors
from bus.errors import did_you_mean
from bus.events import quota as ev
from bus.spend import scope_text
from bus.subjects import check_name
from services.cli import output
from services.cli.common import DEFAULTS, Common
from services.cli.exits import Exit, UsageError
from services.cli.session import Session, operator
from services.fleet import durations
from services.fleet.registry import CapOverride, Registry, caps_key
from services.fleet.spec import Unit, Window
from services.guards.settings import amount
from services.quota import caps
from services.quota.caps import Cover
from services.quota.lines import QuotaLine, clock, short, whole
from services.warden.treasurer import STATUS

app = App(name="quota", help="Show, set and raise caps on spend.", help_format="plaintext")

app.command("services.cli.reprice:command", name="reprice", help="Compute spend again with other prices.")

_WINDOWS = [window.value for window in Window]
_UNITS = [unit.value for unit in Unit]


@app.default
async def show(*, common: Common = DEFAULTS) -> int:
    """Show every cap: used, held, how fast, and when it will be reached.

    Args:
        common: Which fleet, and how to print.
    """
    async with operator(common) as session:
        lines = await _lines(session)
    if common.json:
        output.json({"quota": lines})
        return Exit.DONE
    if not lines:
        print("no caps: set one with `systems quota set`, or with `caps` in the fleet file")
        return Exit.DONE
    now = datetime.now(UTC)
    output.table(
        ["scope", "window", "used", "of", "%", "held", "assumed", "per minute", "cap reached", "resets", ""],
        [_row(line, now) for line in lines],
        right=["used", "of", "%", "held", "assumed", "per minute"],
    )
    print(f"times in UTC; windows begin by the clock of {lines[0].zone}")
    return Exit.DONE


def _row(line: QuotaLine, now: datetime) -> list[str]:
    unit = " USD" if line.unit == Unit.USD else ""
    state = "tripped" if line.tripped else f"not verified: {line.problem}" if line.problem else ""
    if line.tree:
        state = " ".join(filter(None, (f"tree {line.tree}", state)))
    return [
        line.scope,
        line.window,
        short(line.used, line.unit) + unit,
        short(line.cap, line.unit) + unit,
        whole(line.percent),
        short(line.held, line.unit),
        short(line.assumed, line.unit),
        short(line.burn, line.unit),
        f"{line.reached_at:{clock(line.reached_at, now)}}"
        if line.reached_at is not None
        else "reached"
        if line.tripped
        else "-",
        f"{line.resets_at:%Y-%m-%d %H:%M}" if line.resets_at is not None else "-",
        state,
    ]


async def _lines(session: Session) -> list[QuotaLine]:
    try:
        answer = await session.bus.connection.nc.request(STATUS, b"", timeout=5)
    except (driver.NoRespondersError, driver.TimeoutError) as exc:
        raise errors.BusUnreachable(
            session.bus.connection.url, "the warden, which counts, does not answer", "see `systems status`"
        ) from exc
    return msgspec.json.decode(answer.data, type=list[QuotaLine])


@app.command(name="set")
async def set_(
    scope: str,
    /,
    *,
    cap: str,
    window: str,
    reason: str,
    unit: str = "tokens",
    until: str = "",
    common: Common = DEFAULTS,
) -> int:
    """Set a cap, over whatever the fleet file says.

    Args:
        scope: PROJECT/ROLE, PROJECT or system.
        cap: How much, such as 2M, 500k or 2.50.
        window: hour, 5h, day, week, month or tree.
        reason: Why; it goes into the record, with your name.
        unit: tokens or usd.
        until: For so long, such as 8h, or until an RFC 3339 time; then the fleet file's cap counts again.
        common: Which fleet, and how to print.
    """
    wanted = _amount(cap, "--cap")
    async with operator(common) as session:
        token = await _scope(session, scope)
        return await _put(session, token, _unit(unit), _window(window), wanted, reason, until)


@app.command(name="raise")
async def raise_(
    scope: str,
    /,
    *,
    to: str,
    reason: str,
    window: str = "",
    unit: str = "",
    until: str = "",
    common: Common = DEFAULTS,
) -> int:
    """Raise a cap. Work that waited for it goes on.

    Args:
        scope: PROJECT/ROLE, PROJECT or system.
        to: How much, such as 2M, 500k or 2.50.
        reason: Why; it goes into the record, with your name.
        window: Which of its caps, if it has several.
        unit: Which of its caps, if it has several.
        until: For so long, such as 8h, or until an RFC 3339 time; then the old cap counts again.
        common: Which fleet, and how to print.
    """
    wanted = _amount(to, "--to")
    async with operator(common) as session:
        token = await _scope(session, scope)
        registry = await session.registry()
        present = [cover for cover in caps.all_covers(registry, session.bus.author.now()) if cover.scope == token]
        chosen = _one(scope, present, _unit(unit) if unit else None, _window(window) if window else None)
        if caps.in_units(wanted, chosen.unit) < chosen.cap:
            raise UsageError(
                f"expected --to to be at least the present cap ({_shown(chosen)}), got: {to}; lower it with `systems quota set`"
            )
        return await _put(session, token, Unit(chosen.unit), Window(chosen.window), wanted, reason, until)


def _one(scope: str, present: list[Cover], unit: Unit | None, window: Window | None) -> Cover:
    found = [c for c in present if (unit is None or c.unit == unit) and (window is None or c.window == window)]
    if len(found) == 1:
        return found[0]
    if not present:
        raise UsageError(f"expected a scope with a cap, got: {scope}, which has none; set one with `systems quota set`")
    listed = ", ".join(f"--window {c.window} --unit {c.unit} ({_shown(c)})" for c in present)
    raise UsageError(f"expected one of the caps of {scope} to be named, got: {len(found)} that fit; it has {listed}")


def _shown(cover: Cover) -> str:
    return f"{cover.cap / 1e6:,.2f} USD" if cover.unit == Unit.USD else f"{cover.cap:,} tokens"


async def _put(session: Session, token: str, unit: Unit, window: Window, cap: float, reason: str, until: str) -> int:
    now = session.bus.author.now()
    end = _until(until, now)
    registry = await session.registry()
    before = next(
        (
            cover.cap
            for cover in caps.all_covers(registry, now)
            if (cover.scope, cover.unit, cover.window) == (token, unit.value, window.value)
        ),
        None,
    )
    override = CapOverride(unit=unit, window=window, cap=cap, by=session.actor, reason=reason, at=now, until=end)
    bucket = session.bus.bucket("registry")
    while True:
        entry = await bucket.latest(caps_key(token))
        present = (
            msgspec.json.decode(entry.value, type=tuple[CapOverride, ...])
            if entry is not None and not entry.gone
            else ()
        )
        # One with an end lies over the one without, which counts again afterwards; older ones of its kind go.
        kept = [
            one
            for one in present
            if (one.unit, one.window, one.until is None) != (unit, window, end is None)
            and (one.until is None or one.until > now)
        ]
        try:
            value = msgspec.json.encode((*kept, override))
            await bucket.put(caps_key(token), value, expect=entry.revision if entry is not None else 0)
        except errors.SequenceConflict:
            continue
        break
    after = caps.in_units(cap, unit.value)
    event = ev.CapSet(unit=unit.value, window=window.value, before=before, after=after, reason=reason, until=end)
    await session.bus.store.append(session.bus.author.control(token, event))
    was = "none" if before is None else f"{before:,}" if unit is Unit.TOKENS else f"{before / 1e6:,.2f}"
    now_ = f"{after:,}" if unit is Unit.TOKENS else f"{after / 1e6:,.2f}"
    text = f"{scope_text(token)}: {now_} {unit.value} each {window.value} (was {was})"
    print(text + (f", until {end:%Y-%m-%d %H:%M} UTC" if end is not None else ""))
    return Exit.DONE


async def _scope(session: Session, text: str) -> str:
    """The token of a scope that exists."""
    registry: Registry = await session.registry()
    project, slash, role = text.partition("/")
    if text == "system":
        return "system"
    check_name("a project", project)
    if slash:
        registry.role(project, role)
        return f"{project}_{role}"
    if project not in registry.projects:
        raise errors.UnknownName("scope", text, ["system", *registry.projects])
    return project


def _amount(text: str, option: str) -> float:
    """``2M``, ``500k``, ``1_000_000``, ``2.50``.

    Raises:
        UsageError: it is none, or below zero.
    """
    found = amount(text)
    if found is None:
        raise UsageError(f"expected {option} to be an amount of 0 or more, such as 2M, 500k or 2.50, got: {text!r}")
    return found


def _window(text: str) -> Window:
    if text not in _WINDOWS:
        raise UsageError(f"unknown window {text!r}{did_you_mean(text, _WINDOWS)}")
    return Window(text)


def _unit(text: str) -> Unit:
    if text not in _UNITS:
        raise UsageError(f"unknown unit {text!r}{did_you_mean(text, _UNITS)}")
    return Unit(text)


def _until(text: str, now: datetime) -> datetime | None:
    if not text:
        return None
    try:
        end = now + timedelta(seconds=durations.seconds(text))
    except durations.BadDuration:
        try:
            end = msgspec.convert(text, datetime)
        except msgspec.ValidationError as exc:
            raise UsageError(f"expected --until to be a duration such as 8h, or RFC 3339, got: {text!r}") from exc
        if end.tzinfo is None:
            raise UsageError(f"expected --until with a time zone, got: {text!r}") from None
    if end <= now:
        raise UsageError(f"expected --until to lie ahead, got: {text!r}")
    return end.astimezone(UTC)

"""A person sets or raises a cap: over the fleet file's, in the registry, with an event that names the person.

Caps that people set outlive every ``systems up``. One with an end lies over the one without, which counts again afterwards.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
from nats import errors as driver

from bus import errors
from bus.errors import BadAsk, did_you_mean
from bus.events import quota as ev
from bus.spend import scope_text
from bus.subjects import check_name
from services.daemon import Bus
from services.fleet import durations
from services.fleet.entries import CapOverride, caps_key
from services.fleet.registry import Registry
from services.fleet.spec import Unit, Window
from services.guards.settings import amount
from services.quota import caps
from services.quota.caps import Cover
from services.quota.lines import QuotaLine
from services.warden.treasurer import STATUS

_WINDOWS = [window.value for window in Window]
_UNITS = [unit.value for unit in Unit]


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """A cap as a person asks for it: texts, as they were typed."""

    #: ``PROJECT/ROLE``, ``PROJECT`` or ``system``.
    scope: str
    #: ``2M``, ``500k``, ``2.50``.
    cap: str
    reason: str
    #: Empty, to raise: the one that the scope has.
    window: str = ""
    unit: str = ""
    #: A duration or an RFC 3339 time; empty for no end.
    until: str = ""


async def lines(bus: Bus) -> list[QuotaLine]:
    """Every cap as the warden counts it.

    Raises:
        BusUnreachable: the warden does not answer.
    """
    try:
        answer = await bus.connection.nc.request(STATUS, b"", timeout=5)
    except (driver.NoRespondersError, driver.TimeoutError) as exc:
        raise errors.BusUnreachable(
            bus.connection.url, "the warden, which counts, does not answer", "see `systems status`"
        ) from exc
    return msgspec.json.decode(answer.data, type=list[QuotaLine])


async def set_cap(bus: Bus, registry: Registry, wanted: Wanted, by: str) -> ev.CapSet:
    """Set a cap, whatever the fleet file says.

    Raises:
        BadAsk, UnknownName, BadSubject: what was asked makes no sense.
    """
    cap = amount_of(wanted.cap, "--cap")
    token = scope_token(registry, wanted.scope)
    unit, window = unit_of(wanted.unit or Unit.TOKENS.value), window_of(wanted.window)
    return await _put(bus, registry, token, unit, window, cap, wanted, by)


async def raise_cap(bus: Bus, registry: Registry, wanted: Wanted, by: str) -> ev.CapSet:
    """Raise a cap that is there. Work that waited for it goes on.

    Raises:
        BadAsk, UnknownName, BadSubject: what was asked makes no sense.
    """
    to = amount_of(wanted.cap, "--to")
    token = scope_token(registry, wanted.scope)
    present = [cover for cover in caps.all_covers(registry, bus.author.now()) if cover.scope == token]
    unit = unit_of(wanted.unit) if wanted.unit else None
    chosen = _one(wanted.scope, present, unit, window_of(wanted.window) if wanted.window else None)
    if caps.in_units(to, chosen.unit) < chosen.cap:
        raise BadAsk(
            f"expected --to to be at least the present cap ({_shown(chosen)}), got: {wanted.cap}; "
            "lower it with `systems quota set`"
        )
    return await _put(bus, registry, token, Unit(chosen.unit), Window(chosen.window), to, wanted, by)


def told(token: str, event: ev.CapSet) -> str:
    """A cap that was set, in one line. Pure."""
    before, after = ("none" if one is None else _number(one, event.unit) for one in (event.before, event.after))
    until = f", until {event.until:%Y-%m-%d %H:%M} UTC" if event.until is not None else ""
    return f"{scope_text(token)}: {after} {event.unit} each {event.window} (was {before}){until}"


def _number(amount: int, unit: str) -> str:
    return f"{amount:,}" if unit == Unit.TOKENS else f"{amount / 1e6:,.2f}"


def _one(scope: str, present: list[Cover], unit: Unit | None, window: Window | None) -> Cover:
    found = [c for c in present if (unit is None or c.unit == unit) and (window is None or c.window == window)]
    if len(found) == 1:
        return found[0]
    if not present:
        raise BadAsk(f"expected a scope with a cap, got: {scope}, which has none; set one with `systems quota set`")
    listed = ", ".join(f"--window {c.window} --unit {c.unit} ({_shown(c)})" for c in present)
    raise BadAsk(f"expected one of the caps of {scope} to be named, got: {len(found)} that fit; it has {listed}")


def _shown(cover: Cover) -> str:
    return f"{cover.cap / 1e6:,.2f} USD" if cover.unit == Unit.USD else f"{cover.cap:,} tokens"


async def _put(
    bus: Bus, registry: Registry, token: str, unit: Unit, window: Window, cap: float, wanted: Wanted, by: str
) -> ev.CapSet:
    now = bus.author.now()
    end = until_of(wanted.until, now)
    before = next(
        (
            cover.cap
            for cover in caps.all_covers(registry, now)
            if (cover.scope, cover.unit, cover.window) == (token, unit.value, window.value)
        ),
        None,
    )
    override = CapOverride(unit=unit, window=window, cap=cap, by=by, reason=wanted.reason, at=now, until=end)
    bucket = bus.bucket("registry")
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
    event = ev.CapSet(unit=unit.value, window=window.value, before=before, after=after, reason=wanted.reason, until=end)
    await bus.store.append(bus.author.control(token, event, actor=by))
    return event


def scope_token(registry: Registry, text: str) -> str:
    """The token of a scope that exists. Pure.

    Raises:
        BadSubject, UnknownName: there is none.
    """
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


def amount_of(text: str, option: str) -> float:
    """``2M``, ``500k``, ``1_000_000``, ``2.50``.

    Raises:
        BadAsk: it is none, or below zero.
    """
    found = amount(text)
    if found is None:
        raise BadAsk(f"expected {option} to be an amount of 0 or more, such as 2M, 500k or 2.50, got: {text!r}")
    return found


def window_of(text: str) -> Window:
    """A window by name.

    Raises:
        BadAsk: there is none.
    """
    if text not in _WINDOWS:
        raise BadAsk(f"unknown window {text!r}{did_you_mean(text, _WINDOWS)}")
    return Window(text)


def unit_of(text: str) -> Unit:
    """A unit by name.

    Raises:
        BadAsk: there is none.
    """
    if text not in _UNITS:
        raise BadAsk(f"unknown unit {text!r}{did_you_mean(text, _UNITS)}")
    return Unit(text)


def until_of(text: str, now: datetime) -> datetime | None:
    """When a cap ends: after a duration, or at a time; None for never.

    Raises:
        BadAsk: it is neither, or is over.
    """
    if not text:
        return None
    try:
        end = now + timedelta(seconds=durations.seconds(text))
    except durations.BadDuration:
        try:
            end = msgspec.convert(text, datetime)
        except msgspec.ValidationError as exc:
            raise BadAsk(f"expected --until to be a duration such as 8h, or RFC 3339, got: {text!r}") from exc
        if end.tzinfo is None:
            raise BadAsk(f"expected --until with a time zone, got: {text!r}") from None
    if end <= now:
        raise BadAsk(f"expected --until to lie ahead, got: {text!r}")
    return end.astimezone(UTC)

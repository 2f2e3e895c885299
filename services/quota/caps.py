"""Which caps cover a role, by the fleet file and by what people have set over it. Pure, but for reading the registry.

A cap of the system covers every role, one of a project its roles, one of a role itself. A cap over the window ``tree``
counts what a run tree spends, whoever of the tree spends it, and holds back the claims of the scope that declares it: where
several do, the smallest counts.

What people set (``systems quota set`` and ``raise``) replaces the fleet file's cap of the same scope, unit and window, until
its own end; then the file's counts again.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal

import msgspec

from bus import trips
from bus.spend import USD, Calendar, Key, Limit, scope_text, scope_token, tree_token
from services.fleet.entries import CapOverride
from services.fleet.registry import Registry
from services.fleet.spec import Cap, Window

_MICROS = 1_000_000


class Cover(msgspec.Struct, frozen=True, kw_only=True):
    """A cap that holds now."""

    #: Token of the scope that declares it: ``system``, ``shop``, ``shop_coder``.
    scope: str
    #: ``tokens`` or ``usd``.
    unit: str
    #: ``hour``, ``5h``, ``day``, ``week``, ``month`` or ``tree``.
    window: str
    #: Tokens, or millionths of a US dollar.
    cap: int
    #: What a person set, if one did.
    override: CapOverride | None = None

    @property
    def text(self) -> str:
        """The scope as people write it."""
        return scope_text(self.scope)

    def key(self, calendar: Calendar, now: datetime, root: str = "") -> str:
        """The counter that it is counted on at a moment; `root` names the tree of a tree's cap."""
        scope = tree_token(root) if self.window == Window.TREE.value else self.scope
        return str(Key(scope, self.unit, calendar.id(self.window, now)))


def covers_of(registry: Registry, project: str, role: str, now: datetime) -> tuple[Cover, ...]:
    """The caps over a role, its own first."""
    found: list[Cover] = []
    for scope, declared in _scopes(registry, project, role):
        found += at(scope, declared, registry.overrides.get(scope, ()), now)
    return tuple(found)


def all_covers(registry: Registry, now: datetime) -> tuple[Cover, ...]:
    """Every cap of the fleet: of the system, of each project, of each role; also those that people set on a scope without."""
    declared: dict[str, tuple[Cap, ...]] = {scope_token(): registry.quota.caps}
    for name, project in registry.projects.items():
        declared[scope_token(name)] = project.caps
    for (project_name, name), role in registry.roles.items():
        declared.setdefault(scope_token(project_name), ())
        declared[scope_token(project_name, name)] = role.role.caps
    for scope in registry.overrides:
        declared.setdefault(scope, ())
    return tuple(
        cover for scope, caps in declared.items() for cover in at(scope, caps, registry.overrides.get(scope, ()), now)
    )


def limits(covers: Iterable[Cover], calendar: Calendar, now: datetime, root: str) -> tuple[Limit, ...]:
    """Caps as limits on counters; of two on one counter the smaller."""
    found: dict[str, int] = {}
    for cover in covers:
        key = cover.key(calendar, now, root)
        found[key] = min(cover.cap, found.get(key, cover.cap))
    return tuple(Limit(key, cap) for key, cap in found.items())


def at(scope: str, declared: Iterable[Cap], overrides: Iterable[CapOverride], now: datetime) -> list[Cover]:
    """The caps of one scope at a moment: what people set over what is declared."""
    found = {
        (cap.unit.value, cap.window.value): Cover(
            scope=scope, unit=cap.unit.value, window=cap.window.value, cap=in_units(cap.cap, cap.unit.value)
        )
        for cap in declared
    }
    for override in sorted(overrides, key=lambda one: one.at):
        if override.until is not None and override.until <= now:
            continue
        unit, window = override.unit.value, override.window.value
        found[unit, window] = Cover(
            scope=scope, unit=unit, window=window, cap=in_units(override.cap, unit), override=override
        )
    return list(found.values())


def trip_key(counter: str) -> str:
    """Where a cap's trip stands; a run tree's where every refusal of a tree does."""
    scope = counter.partition(".")[0]
    return trips.tree_key(scope.removeprefix("tree_")) if scope.startswith("tree_") else trips.quota_key(counter)


def counts_since(covers: Iterable[Cover], calendar: Calendar, now: datetime) -> datetime | None:
    """When the longest window began that one of the caps counts over; None for no cap but those of run trees."""
    kinds = {cover.window for cover in covers if cover.window != Window.TREE.value}
    return min((calendar.span(kind, now).start for kind in kinds), default=None)


def in_units(cap: float, unit: str) -> int:
    """A cap in whole tokens, or whole millionths of a US dollar; what is below one is cut off."""
    return max(0, int(Decimal(repr(cap)) * (_MICROS if unit == USD else 1)))


def _scopes(registry: Registry, project: str, role: str) -> Iterable[tuple[str, tuple[Cap, ...]]]:
    registered = registry.roles.get((project, role))
    yield scope_token(project, role), registered.role.caps if registered is not None else ()
    its = registry.projects.get(project)
    yield scope_token(project), its.caps if its is not None else ()
    yield scope_token(), registry.quota.caps

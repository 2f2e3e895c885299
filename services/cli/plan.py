"""``systems plan`` and ``systems apply``: the declared shape of the bus against the live one.

What is declared is the topology with one consumer for each registered role; with ``--fleet`` also the registry itself. What
the registry no longer names is shown as a deletion, except where its entry is there and cannot be read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from bus import errors, flags, wire
from bus import plan as planner
from bus.events.topology import Applied, Change
from bus.store import CONTROL, INVOCATIONS
from bus.subjects import role_consumer
from bus.topology import Topology
from services.cli import output
from services.cli.common import DEFAULTS, Common, Flag
from services.cli.exits import CommandFailed, Exit
from services.cli.session import Session, operator
from services.fleet import file as fleet_file
from services.fleet import registry as registered
from services.fleet.registry import RegisteredRole, Registry
from services.fleet.spec import Role
from services.warden.journal import declared

_REGISTRY_STREAM = "KV_registry"
_SIGNS = {"create": ("+", "green"), "update": ("~", "yellow"), "delete": ("-", "red")}
#: Characters of a value that a line shows.
_SHOWN = 70


class KeyChange(msgspec.Struct, frozen=True, kw_only=True):
    """A key of the registry that differs."""

    key: str
    #: ``create``, ``update`` or ``delete``.
    action: str
    changes: tuple[Change, ...] = ()


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """Everything between the live bus and the declared one."""

    steps: tuple[planner.Step, ...]
    registry: tuple[KeyChange, ...]

    @property
    def empty(self) -> bool:
        """Nothing differs."""
        return not self.steps and not self.registry


async def plan(*, fleet: Path | None = None, replicas: int | None = None, common: Common = DEFAULTS) -> int:
    """Show what apply would change, like a diff. Exit status: 0 for no difference, 1 for some.

    Args:
        fleet: Fleet file whose projects, roles and prompts the registry should hold.
        replicas: Copies of each stream; else as many as there are now.
        common: Which fleet, and how to print.
    """
    wanted = _entries(fleet)
    async with operator(common) as session:
        _, difference = await _compare(session, wanted, replicas)
    _show(difference, common)
    return Exit.DONE if difference.empty else Exit.REFUSED


async def apply(
    *,
    fleet: Path | None = None,
    replicas: int | None = None,
    allow_destructive: Flag = False,
    common: Common = DEFAULTS,
) -> int:
    """Bring the bus to its declared shape. On an empty server that creates everything.

    Args:
        fleet: Fleet file whose projects, roles and prompts the registry should hold.
        replicas: Copies of each stream; else as many as there are now.
        allow_destructive: Also do what loses messages or state.
        common: Which fleet, and how to print.
    """
    wanted = _entries(fleet)
    async with operator(common) as session:
        topology, difference = await _compare(session, wanted, replicas)
        await _refuse_frozen(session, difference)
        _refuse_destructive(difference, allow_destructive=allow_destructive)
        await _carry_out(session, topology, difference, allow_destructive=allow_destructive)
        if wanted is not None:
            await registered.publish(session.bus.bucket("registry"), wanted)
    _show(difference, common)
    return Exit.DONE


def _entries(fleet: Path | None) -> dict[str, bytes] | None:
    """The registry that a fleet file asks for; None without a file."""
    if fleet is None:
        return None
    loaded = fleet_file.load(fleet)
    return registered.entries(loaded.fleet, loaded.prompts)


async def _compare(
    session: Session, wanted: dict[str, bytes] | None, replicas: int | None
) -> tuple[Topology, Difference]:
    live = await _live_config(session, INVOCATIONS)
    present = await _present(session)
    registry = Registry(session.bus.bucket("registry"))
    values = present if wanted is None else wanted
    kept = _take_roles(registry, values)
    topology = declared(registry, replicas=replicas or (live or {}).get("num_replicas", 1))
    steps = await planner.plan(session.bus.connection, topology)
    if not any(step.kind == "stream" and step.action == "create" for step in steps):
        # Consumers can be listed only on streams that are there.
        steps = await planner.plan(session.bus.connection, topology, prune_roles=True)
    steps = [step for step in steps if step.action != "delete" or step.name not in kept]
    return topology, Difference(steps=tuple(steps), registry=() if wanted is None else key_changes(present, wanted))


async def _live_config(session: Session, stream: str) -> dict[str, Any] | None:
    try:
        config: dict[str, Any] = (await session.bus.connection.api(f"STREAM.INFO.{stream}"))["config"]
    except errors.ServerError as exc:
        if exc.code != wire.Code.STREAM_NOT_FOUND:
            raise
        return None
    return config


async def _present(session: Session) -> dict[str, bytes]:
    if await _live_config(session, _REGISTRY_STREAM) is None:
        return {}
    return {key: entry.value for key, entry in (await session.bus.bucket("registry").items()).items()}


def _take_roles(registry: Registry, values: dict[str, bytes]) -> set[str]:
    """Fill the registry with roles; the consumers of those that cannot be read are to be left alone."""
    kept: set[str] = set()
    for key, value in values.items():
        kind, _, rest = key.partition(".")
        project, _, name = rest.partition(".")
        if kind != "roles" or not name:
            continue
        try:
            role = msgspec.json.decode(value, type=Role)
        except msgspec.DecodeError as exc:
            output.note(f"systems: warning: the registry's {key} cannot be read ({exc}); its consumer is left as it is")
            kept.add(f"{INVOCATIONS}/{role_consumer(project, name)}")
            continue
        registry.roles[project, name] = RegisteredRole(
            project=project, name=name, role=role, revision=0, limits=role.limits
        )
    return kept


def key_changes(present: dict[str, bytes], wanted: dict[str, bytes]) -> tuple[KeyChange, ...]:
    """What a registry's keys need to become what is wanted, field by field. Pure."""
    found: list[KeyChange] = []
    for key in sorted(present.keys() | wanted.keys()):
        before, after = present.get(key), wanted.get(key)
        if before == after:
            continue
        if before is None:
            found.append(KeyChange(key=key, action="create"))
        elif after is None:
            found.append(KeyChange(key=key, action="delete"))
        else:
            found.append(KeyChange(key=key, action="update", changes=_fields(before, after)))
    return tuple(found)


def _fields(before: bytes, after: bytes) -> tuple[Change, ...]:
    old, new = _table(before), _table(after)
    if old is None or new is None:
        return (Change(field="text", before=_text(before), after=_text(after)),)
    return tuple(
        Change(field=field, before=_text(msgspec.json.encode(old.get(field))), after=_text(msgspec.json.encode(new.get(field))))
        for field in sorted(old.keys() | new.keys())
        if old.get(field) != new.get(field)
    )  # fmt: skip


def _table(value: bytes) -> dict[str, Any] | None:
    try:
        decoded = msgspec.json.decode(value)
    except msgspec.DecodeError:
        return None
    return decoded if isinstance(decoded, dict) else None


def _text(value: bytes) -> str:
    return value.decode(errors="replace")


def _refuse_destructive(difference: Difference, *, allow_destructive: bool) -> None:
    refused = [step for step in difference.steps if step.destructive]
    if refused and not allow_destructive:
        listed = "; ".join(f"{step.kind} {step.name}: {step.destructive}" for step in refused)
        raise errors.Conflict(
            f"expected only changes that lose nothing, got: {listed}; nothing was changed, use --allow-destructive if it is meant"
        )


async def _refuse_frozen(session: Session, difference: Difference) -> None:
    """A frozen stream differs from its declared shape, and must not be thawed by the way."""
    if not any(step.name == INVOCATIONS and step.action == "update" for step in difference.steps):
        return
    if await _live_config(session, "KV_flags") is None:
        return
    switch = await flags.kill_switch(session.bus.bucket("flags"))
    if switch.mode is not flags.Mode.CLEAR:
        raise CommandFailed(
            f"expected the kill switch to be clear, got: {switch.mode} since {switch.since:%Y-%m-%d %H:%M:%S} UTC ({switch.text}); "
            f"{INVOCATIONS} is not changed while it is thrown",
            Exit.LATER,
            "StreamFrozen",
        )


async def _carry_out(session: Session, topology: Topology, difference: Difference, *, allow_destructive: bool) -> None:
    """Do the steps, and write each into CONTROL; those that come before CONTROL exists are written after it."""
    unwritten: list[planner.Step] = []
    has_control = await _live_config(session, CONTROL) is not None
    for step in difference.steps:
        await planner.apply(session.bus.connection, topology, [step], allow_destructive=allow_destructive)
        unwritten.append(step)
        has_control = has_control or step.name == CONTROL
        while has_control and unwritten:
            done = unwritten.pop(0)
            event = Applied(name=done.name, action=done.action, changes=done.changes)
            id_ = done.name.replace("/", "-")
            await session.bus.store.append(session.bus.author.control(id_, event))


def _show(difference: Difference, common: Common) -> None:
    if common.json:
        output.json(difference)
        return
    if difference.empty:
        print("no difference")
    for step in difference.steps:
        _headline(step.action, f"{step.kind} {step.name}", step.why, step.destructive)
        if step.action == "update":
            _fields_of(step.changes)
    for change in difference.registry:
        _headline(change.action, f"registry {change.key}", "", "")
        _fields_of(change.changes)


def _headline(action: str, what: str, why: str, destructive: str) -> None:
    sign, colour = _SIGNS[action]
    text = output.paint(f"{sign} {what}", colour)
    if why and action == "create":
        text += output.paint(f"  ({why})", "dim")
    if destructive:
        text += output.paint(f"  DESTRUCTIVE: {destructive}", "red")
    print(text)


def _fields_of(changes: tuple[Change, ...]) -> None:
    for change in changes:
        before, after = output.clipped(change.before, _SHOWN), output.clipped(change.after, _SHOWN)
        print(f"    {output.paint('~', 'yellow')} {change.field} {before} -> {after}")

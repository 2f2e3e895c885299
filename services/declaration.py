"""The declared shape of the bus against the live one, and bringing it there.

What is declared is the topology with one consumer for each registered role; with a fleet file also the registry itself.
What the registry no longer names is shown as a deletion, except where its entry is there and cannot be read. Each step that
is done is an event in CONTROL.
"""

from __future__ import annotations

import platform
from typing import Any

import msgspec
import structlog

from bus import errors, flags, wire
from bus import plan as planner
from bus.events.topology import Applied, Change
from bus.store import CONTROL, INVOCATIONS
from bus.subjects import role_consumer
from bus.topology import Topology
from services.daemon import Bus
from services.fleet import entries as registered
from services.fleet.entries import FILE_KEY, AppliedFile
from services.fleet.file import LoadedFleet
from services.fleet.registry import RegisteredRole, Registry
from services.fleet.spec import Role
from services.warden.journal import declared

log = structlog.get_logger()

_REGISTRY_STREAM = "KV_registry"


class FrozenShape(errors.BusError):
    """INVOCATIONS differs from its declared shape because the kill switch is thrown: it must not be thawed by the way."""


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


async def compare(bus: Bus, wanted: dict[str, bytes] | None, replicas: int | None) -> tuple[Topology, Difference]:
    """What differs between the live bus and the declared one.

    Args:
        bus: where to look.
        wanted: the registry that a fleet file asks for; None leaves it as it is.
        replicas: copies of each stream; None is as many as there are now.
    """
    live = await _live_config(bus, INVOCATIONS)
    present = await present_values(bus)
    registry = Registry(bus.bucket("registry"))
    values = present if wanted is None else wanted
    kept = _take_roles(registry, values)
    topology = declared(registry, replicas=replicas or (live or {}).get("num_replicas", 1))
    steps = await planner.plan(bus.connection, topology)
    if not any(step.kind == "stream" and step.action == "create" for step in steps):
        # Consumers can be listed only on streams that are there.
        steps = await planner.plan(bus.connection, topology, prune_roles=True)
    steps = [step for step in steps if step.action != "delete" or step.name not in kept]
    return topology, Difference(steps=tuple(steps), registry=() if wanted is None else key_changes(present, wanted))


async def apply_fleet(bus: Bus, loaded: LoadedFleet) -> list[str]:
    """Bring the bus to what a fleet file says, as the launcher does at its start: the registry keys that changed.

    See :func:`of_file` for what that is. The number of copies of each stream stays.

    Raises:
        Conflict: that would lose something; nothing was changed, `systems plan` shows what.
    """
    wanted = of_file(await present_values(bus), loaded)
    topology, difference = await compare(bus, wanted, None)
    try:
        await refuse_frozen(bus, difference)
    except FrozenShape as exc:
        log.warning("stream_left_frozen", reason=str(exc))
        steps = tuple(step for step in difference.steps if step.name != INVOCATIONS)
        difference = msgspec.structs.replace(difference, steps=steps)
    # A role that is gone keeps its consumer while work waits on it: a person sees it in `systems plan`.
    kept = tuple(step for step in difference.steps if step.action != "delete" or not step.destructive)
    difference = msgspec.structs.replace(difference, steps=kept)
    planner.refuse_destructive(list(difference.steps))
    await carry_out(bus, topology, difference)
    headers = registered.provenance(bus.author.actor, f"fleet file {loaded.path}")
    return await registered.publish(bus.bucket("registry"), wanted, headers)


def exactly(present: dict[str, bytes], loaded: LoadedFleet) -> dict[str, bytes]:
    """A fleet file, with nothing that it does not know of but the caps that people have set. Pure, but for the host's name."""
    values = registered.entries(loaded.fleet, loaded.prompts)
    return {key: value for key, value in present.items() if key.startswith("caps.")} | values | _record(loaded, values)


def of_file(present: dict[str, bytes], loaded: LoadedFleet) -> dict[str, bytes]:
    """The present registry, with what a fleet file changes in it. Pure, but for the host's name.

    What the file says as it said the last time stays as people have set it since, and what it has never known of is
    somebody else's. What it no longer says is taken out.
    """
    values = registered.entries(loaded.fleet, loaded.prompts)
    before = _taken(present)
    if before is None:
        return retained(present, values) | _record(loaded, values)
    if before.digest == loaded.digest:
        return present
    now = registered.digests(values)
    changed = {key: value for key, value in values.items() if before.keys.get(key) != now[key]}
    kept = {key: value for key, value in present.items() if key in values or key not in before.keys}
    return kept | changed | _record(loaded, values)


def _record(loaded: LoadedFleet, values: dict[str, bytes]) -> dict[str, bytes]:
    """That a fleet file was taken, as the registry's own key."""
    file = AppliedFile(
        path=str(loaded.path),
        host=platform.node() or "localhost",
        digest=loaded.digest,
        keys=registered.digests(values),
    )
    return {FILE_KEY: msgspec.json.encode(file)}


def _taken(present: dict[str, bytes]) -> AppliedFile | None:
    """The fleet file that was taken last; None for none."""
    value = present.get(FILE_KEY)
    try:
        return None if value is None else msgspec.json.decode(value, type=AppliedFile)
    except msgspec.DecodeError as exc:
        log.warning("registry_value_unreadable", key=FILE_KEY, error=str(exc), action="taking the fleet file")
        return None


def retained(present: dict[str, bytes], wanted: dict[str, bytes]) -> dict[str, bytes]:
    """The wanted registry, with the projects and prompts that only the present one has. Pure."""
    projects = {key.split(".")[1] for key in wanted if key.startswith("projects.")}
    kept = {
        key: value
        for key, value in present.items()
        if key not in wanted
        # What a person has set with a command outlives every file.
        and (key.startswith(("prompts.", "caps.")) or key.split(".")[1] not in projects)
    }
    return kept | wanted


async def _live_config(bus: Bus, stream: str) -> dict[str, Any] | None:
    try:
        config: dict[str, Any] = (await bus.connection.api(f"STREAM.INFO.{stream}"))["config"]
    except errors.ServerError as exc:
        if exc.code != wire.Code.STREAM_NOT_FOUND:
            raise
        return None
    return config


async def present_values(bus: Bus) -> dict[str, bytes]:
    """What lies in the registry now, good or not; nothing where there is no registry yet."""
    if await _live_config(bus, _REGISTRY_STREAM) is None:
        return {}
    return {key: entry.value for key, entry in (await bus.bucket("registry").items()).items()}


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
            log.warning("registry_value_unreadable", key=key, error=str(exc), action="its consumer is left as it is")
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


async def refuse_frozen(bus: Bus, difference: Difference) -> None:
    """Refuse a change of INVOCATIONS while the kill switch is thrown.

    Raises:
        FrozenShape: the difference would thaw a frozen stream.
    """
    if not any(step.name == INVOCATIONS and step.action == "update" for step in difference.steps):
        return
    if await _live_config(bus, "KV_flags") is None:
        return
    switch = await flags.kill_switch(bus.bucket("flags"))
    if switch.mode is not flags.Mode.CLEAR:
        raise FrozenShape(
            f"expected the kill switch to be clear, got: {switch.mode} since {switch.since:%Y-%m-%d %H:%M:%S} UTC ({switch.text}); "
            f"{INVOCATIONS} is not changed while it is thrown"
        )


async def carry_out(bus: Bus, topology: Topology, difference: Difference, *, allow_destructive: bool = False) -> None:
    """Do the steps, and write each into CONTROL; those that come before CONTROL exists are written after it."""
    unwritten: list[planner.Step] = []
    has_control = await _live_config(bus, CONTROL) is not None
    for step in difference.steps:
        await planner.apply(bus.connection, topology, [step], allow_destructive=allow_destructive)
        unwritten.append(step)
        has_control = has_control or step.name == CONTROL
        while has_control and unwritten:
            done = unwritten.pop(0)
            event = Applied(name=done.name, action=done.action, changes=done.changes)
            id_ = done.name.replace("/", "-")
            await bus.store.append(bus.author.control(id_, event))

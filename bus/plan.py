"""What would change on the live bus, and changing it.

Like a diff: declared fields against live ones. A field that only the server knows is left alone. A change that the
server cannot make in place, or that would lose messages, is never made by itself: it is *destructive*.
"""

from __future__ import annotations

from typing import Any

import msgspec

from bus import errors, wire
from bus.connection import Connection
from bus.events.topology import Change
from bus.store import INVOCATIONS
from bus.subjects import role_requests
from bus.topology import Consumer, Stream, Topology

#: Fields that the server refuses to change on a live stream or consumer.
_FIXED = frozenset({"storage", "retention", "name", "deliver_policy", "ack_policy", "replay_policy"})
#: Switches that the server lets nobody take back.
_ONE_WAY = frozenset({"deny_delete", "deny_purge", "allow_msg_counter", "allow_msg_schedules", "allow_msg_ttl"})
#: Limits of a stream: lowering one drops what lies beyond it at once.
_BOUNDS = frozenset({"max_age", "max_bytes", "max_msgs", "max_msgs_per_subject"})
#: Fields whose absence in the server's answer means this value.
_ABSENT: dict[str, Any] = {"max_age": 0, "max_ack_pending": 1000, "max_waiting": 512, "max_msgs_per_subject": -1}


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that differs."""

    kind: str
    name: str
    #: ``create``, ``update`` or ``delete``.
    action: str
    changes: tuple[Change, ...]
    #: It cannot be done without losing messages or state; the sentence says why.
    destructive: str = ""
    why: str = ""


async def plan(connection: Connection, declared: Topology, *, prune_roles: bool = False) -> list[Step]:
    """The steps from the live bus to the declared one, in the order in which they are to be done.

    With `prune_roles`, consumers of roles that are no longer registered are deleted.
    """
    steps: list[Step] = []
    for stream in declared.streams:
        live = await _live(connection, f"STREAM.INFO.{stream.name}")
        step = _compare("stream", stream.name, stream.config, live, stream.why)
        if step:
            steps.append(step)
    for consumer in declared.consumers:
        live = await _live(connection, f"CONSUMER.INFO.{consumer.stream}.{consumer.name}")
        step = _compare("consumer", f"{consumer.stream}/{consumer.name}", consumer.config, live, "")
        if step:
            steps.append(step)
    if prune_roles:
        steps += await _leftovers(connection, declared)
    return steps


async def apply(
    connection: Connection, declared: Topology, steps: list[Step], *, allow_destructive: bool = False
) -> None:
    """Carry the steps out.

    Raises:
        Conflict: a step is destructive and that was not allowed; nothing was done.
        ServerError: the server refused one; those before it stand.
    """
    if not allow_destructive:
        refuse_destructive(steps)
    streams = {stream.name: stream for stream in declared.streams}
    consumers = {f"{c.stream}/{c.name}": c for c in declared.consumers}
    for step in steps:
        if step.kind == "stream":
            await _apply_stream(connection, streams[step.name], step)
        elif step.action == "delete":
            stream, _, name = step.name.partition("/")
            await connection.api(f"CONSUMER.DELETE.{stream}.{name}")
        else:
            await _apply_consumer(connection, consumers[step.name], step)


def refuse_destructive(steps: list[Step]) -> None:
    """Pass if no step loses anything.

    Raises:
        Conflict: some do; all of them are named.
    """
    refused = [f"{step.kind} {step.name}: {step.destructive}" for step in steps if step.destructive]
    if refused:
        raise errors.Conflict(
            f"expected only changes that lose nothing, got: {'; '.join(refused)}; "
            "nothing was changed, use --allow-destructive if it is meant"
        )


async def _apply_stream(connection: Connection, stream: Stream, step: Step) -> None:
    live: dict[str, Any] = {}
    if step.action == "update":
        live = (await connection.api(f"STREAM.INFO.{stream.name}"))["config"]
    verb = "CREATE" if step.action == "create" else "UPDATE"
    # An update takes the whole configuration: what we do not declare stays as it is.
    await connection.api(f"STREAM.{verb}.{stream.name}", live | stream.config | {"name": stream.name}, timeout=15)


async def _apply_consumer(connection: Connection, consumer: Consumer, step: Step) -> None:
    config = consumer.config
    if step.action == "update":
        live = (await connection.api(f"CONSUMER.INFO.{consumer.stream}.{consumer.name}"))["config"]
        # Only what was planned: a max_deliver that is left alone must not be lowered along with another field.
        config = live | {change.field: config[change.field] for change in step.changes}
    body = {
        "stream_name": consumer.stream,
        "config": config | {"name": consumer.name, "durable_name": consumer.name},
        "action": step.action,
    }
    await connection.api(f"CONSUMER.CREATE.{consumer.stream}.{consumer.name}", body, timeout=15)


_ABSENT_CODES = frozenset({wire.Code.STREAM_NOT_FOUND, wire.Code.CONSUMER_NOT_FOUND})


async def _live(connection: Connection, request: str) -> dict[str, Any] | None:
    try:
        config: dict[str, Any] = (await connection.api(request))["config"]
    except errors.ServerError as exc:
        if exc.code in _ABSENT_CODES:
            return None
        raise
    return config


def _compare(kind: str, name: str, declared: dict[str, Any], live: dict[str, Any] | None, why: str) -> Step | None:
    if live is None:
        changes = tuple(Change(field=k, before="null", after=_json(v)) for k, v in sorted(declared.items()))
        return Step(kind=kind, name=name, action="create", changes=changes, why=why)
    changed = {k: v for k, v in declared.items() if not _same(k, v, live.get(k))}
    if not changed:
        return None
    return Step(
        kind=kind,
        name=name,
        action="update",
        changes=tuple(Change(field=k, before=_json(live.get(k)), after=_json(v)) for k, v in sorted(changed.items())),
        destructive=_destructive(changed, live),
        why=why,
    )


def _same(field: str, declared: object, live: object) -> bool:
    if live is None:
        # The server leaves out what is false, zero or its own default.
        return declared == _ABSENT.get(field) or not declared
    if field == "max_deliver" and isinstance(live, int) and isinstance(declared, int) and 0 < declared < live:
        # Lowering it would strand, without an advisory, what was delivered more often already (nats-server#7148).
        # The log's own counts are the limit; the server's backstop may well be higher.
        return True
    return declared == live


def _destructive(changed: dict[str, Any], live: dict[str, Any]) -> str:
    for field, value in changed.items():
        if field in _FIXED:
            return f"{field} cannot be changed in place (live: {live.get(field)!r}, declared: {value!r})"
        if field in _ONE_WAY and live.get(field) and not value:
            return f"{field} cannot be taken back"
        if field == "num_replicas" and value < live.get(field, 1):
            return f"fewer copies of each message would be kept (live: {live.get(field)}, declared: {value})"
        if field in _BOUNDS and _bound(value) < _bound(live.get(field)):
            return f"{field} would drop messages that are kept now (live: {live.get(field)!r}, declared: {value!r})"
    return ""


def _bound(value: object) -> float:
    """How much a limit allows: zero, less and nothing mean no limit."""
    return value if isinstance(value, int) and value > 0 else float("inf")


async def _leftovers(connection: Connection, declared: Topology) -> list[Step]:
    wanted = {f"{c.stream}/{c.name}" for c in declared.consumers}
    if await _live(connection, f"STREAM.INFO.{INVOCATIONS}") is None:
        return []
    steps: list[Step] = []
    offset = 0
    while True:
        page = await connection.api(f"CONSUMER.LIST.{INVOCATIONS}", {"offset": offset})
        found = page.get("consumers") or []
        for info in found:
            name = f"{INVOCATIONS}/{info['name']}"
            if _of_a_role(info) and name not in wanted:
                pending = info["num_pending"] + info["num_ack_pending"]
                steps.append(
                    Step(
                        kind="consumer",
                        name=name,
                        action="delete",
                        changes=(),
                        destructive=f"{pending:,} work items wait on it" if pending else "",
                    )
                )
        offset += len(found)
        if not found or offset >= page.get("total", 0):
            return steps


def _of_a_role(info: dict[str, Any]) -> bool:
    """Whether a consumer is one that we made for a role; anybody else's is left alone."""
    project, _, role = info["name"].partition("_")
    return bool(info["config"].get("filter_subject") == role_requests(project, role))


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()

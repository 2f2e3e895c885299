"""Registry changes: each becomes an event in CONTROL, and consumers and schedules follow what is registered.

It listens to the bucket itself, so a plain ``nats kv put registry …`` is recorded and takes effect like any other change.
What the registry no longer names keeps its consumer while work waits on it: that is `systems plan`'s to show and a
person's to remove.
"""

from __future__ import annotations

import asyncio
import re

import msgspec
import structlog

from bus import errors, plan, topology, wire
from bus.events import registry as ev
from bus.ids import key_id
from bus.store import CONTROL
from services.daemon import Bus
from services.fleet.entries import OPERATION, WHO, WHY
from services.fleet.registry import RegisteredRole, Registry

log = structlog.get_logger()

CONSUMER = topology.service_consumer("KV_registry", "warden_registry", "$KV.registry.>")


def declared(registry: Registry, *, replicas: int = 1) -> topology.Topology:
    """The whole topology: streams, the warden's consumers, and one for each registered role."""
    return topology.Topology(
        streams=topology.streams(replicas),
        consumers=(*topology.SERVICE_CONSUMERS, CONSUMER, *(consumer_of(r) for r in registry.roles.values())),
    )


def consumer_of(registered: RegisteredRole) -> topology.Consumer:
    """The consumer that a role needs."""
    role = registered.role
    return topology.role_consumer(
        registered.project,
        registered.name,
        ack_wait_s=role.ack_wait,
        max_deliver=role.limits.max_deliver,
        max_ack_pending=role.in_flight,
    )


def control_id(key: str) -> str:
    """The token that names a registry key in CONTROL: ``roles_shop_coder``."""
    return re.sub(r"[^A-Za-z0-9-]", "_", key)[:128]


class Journal:
    """Writes registry changes down and keeps the server in step."""

    def __init__(self, bus: Bus, registry: Registry) -> None:
        self._bus = bus
        self._registry = registry
        self._prefix = "$KV.registry."

    async def write(self, delivery: wire.Delivery) -> None:
        """Handle one change of the bucket."""
        key = delivery.subject.removeprefix(self._prefix)
        name = control_id(key)
        previous = await self._bus.store.last(CONTROL, f"ctl.registry.{name}.*")
        replaced = previous.data.revision if previous is not None and previous.data is not None else 0
        if replaced < delivery.seq:
            event = self._event(key, delivery, replaced)
            event_id = key_id("registry", f"{key}@{delivery.seq}")
            await self._bus.store.append(self._bus.author.control(name, event, event_id=event_id))
        await self.reconcile(key)

    def _event(self, key: str, delivery: wire.Delivery, replaced: int) -> ev.RegistryEvent:
        """What became of a value that was put, or taken out."""
        headers = delivery.headers
        who, why, operation = (headers.get(name, "") for name in (WHO, WHY, OPERATION))
        if "KV-Operation" in headers:
            return ev.Removed(key=key, revision=delivery.seq, replaced=replaced, who=who, why=why, operation=operation)
        fault = self._registry.fault(key, delivery.data)
        if fault:
            kept = self._registry.revisions.get(key, 0)
            return ev.Refused(key=key, revision=delivery.seq, sentence=fault, kept=kept)
        value = _as_json(key, delivery.data)
        return ev.Changed(
            key=key, revision=delivery.seq, value=value, replaced=replaced, who=who, why=why, operation=operation
        )

    async def reconcile(self, key: str) -> None:
        """Bring the consumer of one role to what is registered."""
        kind, _, rest = key.partition(".")
        project, _, role = rest.partition(".")
        if kind != "roles" or not role:
            return
        # The registry's own watcher may be a moment behind this message.
        await self._registry.refresh(key)
        registered = self._registry.roles.get((project, role))
        if registered is None:
            return
        wanted = topology.Topology(streams=(), consumers=(consumer_of(registered),))
        steps = await plan.plan(self._bus.connection, wanted)
        try:
            await plan.apply(self._bus.connection, wanted, steps)
        except errors.Conflict as exc:
            log.error("consumer_not_changed", role=registered.path, error=str(exc))
            return
        for step in steps:
            log.info(
                "consumer_applied", role=registered.path, action=step.action, fields=[c.field for c in step.changes]
            )


def _as_json(key: str, value: bytes) -> msgspec.Raw:
    """A registry value as JSON; a prompt's text, whatever it looks like, as a string."""
    if not key.startswith("prompts."):
        try:
            msgspec.json.decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
        else:
            return msgspec.Raw(value)
    return msgspec.Raw(msgspec.json.encode(value.decode(errors="replace")))


async def wait_until_applied(bus: Bus) -> None:
    """Wait until the streams are there: the launcher or `systems apply` makes them."""
    told = False
    while True:
        try:
            await bus.connection.api("STREAM.INFO.INVOCATIONS")
        except errors.ServerError as exc:
            if exc.code != wire.Code.STREAM_NOT_FOUND:
                raise
            if not told:
                log.warning("streams_missing", action="waiting for `systems apply`")
                told = True
            await asyncio.sleep(0.5)
        else:
            return

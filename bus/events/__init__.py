"""What can happen, one file per noun, one union per noun.

Events are facts: frozen Structs in the past tense. A new field has a default; a field never changes its type; an older
shape is read through :mod:`bus.upcasters`. ``CATALOGUE`` maps the CloudEvents type to the Struct; the JSON Schemas and
the AsyncAPI document are made from it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from bus.events import (
    archive,
    card,
    daemon,
    deadletter,
    decision,
    desk,
    drill,
    finding,
    freeze,
    guard,
    incident,
    invocation,
    loop,
    message,
    ops,
    projection,
    quota,
    registry,
    schedule,
    slack,
    sweep,
    topology,
)

NOUNS: dict[str, dict[str, type[msgspec.Struct]]] = {
    "invocation": invocation.EVENTS,
    "daemon": daemon.EVENTS,
    "deadletter": deadletter.EVENTS,
    "message": message.EVENTS,
    "registry": registry.EVENTS,
    "schedule": schedule.EVENTS,
    "topology": topology.EVENTS,
    "freeze": freeze.EVENTS,
    "quota": quota.EVENTS,
    "loop": loop.EVENTS,
    "guard": guard.EVENTS,
    "drill": drill.EVENTS,
    "projection": projection.EVENTS,
    "archive": archive.EVENTS,
    "sweep": sweep.EVENTS,
    "finding": finding.EVENTS,
    "incident": incident.EVENTS,
    "ops": ops.EVENTS,
    "decision": decision.EVENTS,
    "slack": slack.EVENTS,
    "card": card.EVENTS,
    "desk": desk.EVENTS,
}

#: CloudEvents type -> Struct of its data.
CATALOGUE: dict[str, type[msgspec.Struct]] = {
    f"systems.{noun}.{name}": struct for noun, events in NOUNS.items() for name, struct in events.items()
}

#: Struct -> (noun, event name), the other way round.
NAMES: dict[type[Any], tuple[str, str]] = {
    struct: (noun, name) for noun, events in NOUNS.items() for name, struct in events.items()
}

#: Struct -> CloudEvents type, looked up once per event written.
TYPES: dict[type[Any], str] = {struct: type_ for type_, struct in CATALOGUE.items()}

"""What each type of event says in typed columns of the log: column name -> one value for each event.

A column that a type does not name is NULL in its rows. Usage and settlements are taken from the events that they happen in,
and not from the sums that a death repeats: adding up a column never counts anything twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from bus.events.moment import Moment

Columns = dict[str, Any]


class _Advisory(msgspec.Struct, frozen=True, kw_only=True):
    """What the server's JetStream advisories share, and what those of deliveries add (ADR-17, server's ``jsadvisory``)."""

    type: str
    id: str
    timestamp: Moment
    domain: str = ""
    stream: str = ""
    consumer: str = ""
    stream_seq: int = 0
    deliveries: int = 0
    reason: str = ""


ADVISORY = msgspec.json.Decoder(_Advisory)


def of(type_: str, subjects: Sequence[str], data: Sequence[Any]) -> Columns:
    """The facts of events of one type, by column."""
    count = len(data)
    if type_.startswith("systems.invocation."):
        event = type_.rpartition(".")[2]
        tokens = [subject.split(".") for subject in subjects]
        return {
            "noun": pa.repeat("invocation", count),
            "event": pa.repeat(event, count),
            "project": [t[1] for t in tokens],
            "role": [t[2] for t in tokens],
            "key": [t[3] for t in tokens],
        } | _INVOCATION[event](data)
    if not type_.startswith("systems."):
        return _advisory(type_, data)
    noun, event = type_.split(".")[1:]
    tokens = [subject.split(".") for subject in subjects]
    columns: Columns = {"noun": pa.repeat(noun, count), "event": pa.repeat(event, count)}
    if noun == "deadletter":
        return (
            columns
            | {"project": [t[1] for t in tokens], "role": [t[2] for t in tokens], "key": [t[3] for t in tokens]}
            | _kept(data)
        )
    return columns | {"key": [t[2] for t in tokens]} | _control(data)


def _requested(data: Sequence[Any]) -> Columns:
    return {
        "parent": [d.parent for d in data],
        "root": [d.root for d in data],
        "depth": [d.depth for d in data],
        "generation": [d.generation for d in data],
        "schedule": [d.schedule for d in data],
        "due": _or_null([d.due for d in data]),
    }


def _scheduled(data: Sequence[Any]) -> Columns:
    return _requested([d.request for d in data]) | {"due": [d.due for d in data]}


def _claimed(data: Sequence[Any]) -> Columns:
    columns: Columns = {
        "holder": [d.holder for d in data],
        "runner": [d.runner for d in data],
        "delivery": [d.delivery for d in data],
        "attempt": [d.attempt for d in data],
        "registry_revision": [d.registry_revision for d in data],
        "prompt_digest": [d.prompt_digest for d in data],
    }
    holds = _or_null([d.hold for d in data])
    if holds is not None:
        columns["hold_tokens"] = [None if h is None else h.tokens for h in holds]
        columns["hold_usd_micros"] = [None if h is None else h.usd_micros for h in holds]
    return columns


def _completed(data: Sequence[Any]) -> Columns:
    return {
        "holder": [d.holder for d in data],
        "delivery": [d.delivery for d in data],
        "duration_ms": [d.duration_ms for d in data],
    } | _cost(data)


def _failed(data: Sequence[Any]) -> Columns:
    return (
        _completed(data)
        | {"attempt": [d.attempt for d in data], "retry_at": _or_null([d.retry_at for d in data])}
        | _error([d.error for d in data])
    )


def _swept(data: Sequence[Any]) -> Columns:
    return _released(data) | {"age_s": [d.age_s for d in data]}


def _released(data: Sequence[Any]) -> Columns:
    return {
        "holder": [d.holder for d in data],
        "delivery": [d.delivery for d in data],
        "reason": [d.reason for d in data],
    } | _settled(data)


def _cancelled(data: Sequence[Any]) -> Columns:
    return {"reason": [d.reason for d in data]} | _settled(data)


def _dead_lettered(data: Sequence[Any]) -> Columns:
    return {"reason": [d.reason for d in data]} | _error([d.error for d in data]) | _settled(data)


def _ordered(data: Sequence[Any]) -> Columns:
    """What a person orders: a reason and nothing else."""
    return {"reason": [d.reason for d in data]}


_INVOCATION: dict[str, Callable[[Sequence[Any]], Columns]] = {
    "scheduled": _scheduled,
    "requested": _requested,
    "claimed": _claimed,
    "completed": _completed,
    "failed": _failed,
    "swept": _swept,
    "released": _released,
    "cancelled": _cancelled,
    "dead_lettered": _dead_lettered,
    "redriven": _ordered,
    "discarded": _ordered,
}


def _kept(data: Sequence[Any]) -> Columns:
    request = _requested([d.request for d in data])
    return request | {"reason": [d.reason for d in data]} | _error([d.error for d in data])


def _control(data: Sequence[Any]) -> Columns:
    """Events on CONTROL: whom they concern and why, where they tell. All else is in their JSON."""
    roles = [_role(d) for d in data]
    return {
        "project": [project for project, _ in roles],
        "role": [role for _, role in roles],
        "reason": [_text(d, "reason") for d in data],
        "schedule": [_text(d, "schedule") for d in data],
        "due": _or_null([getattr(d, "due", None) for d in data]),
    }


def _advisory(type_: str, data: Sequence[Any]) -> Columns:
    """The server's word on a consumer. A role's consumer is named ``<project>_<role>``."""
    roles = [d.consumer.split("_") if d.stream == "INVOCATIONS" else [] for d in data]
    return {
        "noun": pa.repeat("advisory", len(data)),
        "event": pa.repeat(type_.rpartition(".")[2], len(data)),
        "key": [f"{d.stream}.{d.consumer}" for d in data],
        "project": [r[0] if len(r) == 2 else None for r in roles],
        "role": [r[1] if len(r) == 2 else None for r in roles],
        "delivery": [d.deliveries for d in data],
        "reason": [d.reason for d in data],
    }


def _error(found: Sequence[Any]) -> Columns:
    if _or_null(found) is None:
        return {}
    return {
        "error_kind": [None if e is None else e.kind for e in found],
        "error_message": [None if e is None else e.message for e in found],
        "error_fingerprint": [None if e is None else e.fingerprint for e in found],
        "permanent": [None if e is None else e.permanent for e in found],
    }


def _cost(data: Sequence[Any]) -> Columns:
    usages = [d.usage for d in data]
    return {
        "input_tokens": [u.input_tokens for u in usages],
        "output_tokens": [u.output_tokens for u in usages],
        "model": [u.model for u in usages],
    } | _settled(data)


def _settled(data: Sequence[Any]) -> Columns:
    found = _or_null([d.settled for d in data])
    if found is None:
        return {}
    return {
        "settled_tokens": [None if s is None else s.tokens for s in found],
        "settled_usd_micros": [None if s is None else s.usd_micros for s in found],
        "assumed": [None if s is None else s.assumed for s in found],
    }


def _or_null(values: Sequence[Any]) -> Sequence[Any] | None:
    """The values; None when there is none among them, which is the usual case for what is seldom said."""
    return values if any(value is not None for value in values) else None


def _role(data: Any) -> tuple[str | None, str | None]:
    role, project = _text(data, "role"), _text(data, "project")
    if role is not None and project is None and "/" in role:
        project, _, role = role.partition("/")
    return project, role


def _text(data: Any, field: str) -> str | None:
    value = getattr(data, field, None)
    return value if isinstance(value, str) else None

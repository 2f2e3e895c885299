"""Deliveries into rows of the log: one typed decode for each event, one Arrow column for each fact.

What an event is, :func:`bus.store.read` says, here as everywhere; the quick way in front of it only spares a second decode
where nothing is unusual. Whatever is no event, and an event with a number that no column holds, becomes a row with a
`problem` and its raw bytes: nothing that lies in a stream stops a reader. Pure, and on the path of every event.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import pyarrow as pa

from bus import events, store, upcasters
from bus.envelope import Envelope
from bus.subjects import type_of
from bus.topology import ADVISORIES
from bus.wire import Delivery
from projections import facts
from projections.log import LOG

#: Counted up whenever the same message becomes another row: tables made by another version are rebuilt.
VERSION = 1

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _quick(type_: str, struct: type[msgspec.Struct]) -> Callable[[bytes], Any]:
    """A decoder of one type's whole envelope."""
    whole = msgspec.defstruct(
        f"{type_}Envelope", [("data", struct)], bases=(Envelope,), frozen=True, kw_only=True, gc=False
    )
    return msgspec.json.Decoder(whole).decode


_QUICK = {type_: _quick(type_, struct) for type_, struct in events.CATALOGUE.items()}


class _Group:
    """Good events of one type, column by column as far as they are known."""

    __slots__ = ("deliveries", "envelopes", "type")

    def __init__(self, type_: str) -> None:
        self.type = type_
        self.deliveries: list[Delivery] = []
        self.envelopes: list[Any] = []

    def part(self, start: int, stop: int) -> _Group:
        """Some of them."""
        part = _Group(self.type)
        part.deliveries, part.envelopes = self.deliveries[start:stop], self.envelopes[start:stop]
        return part


def decode(stream: str, deliveries: Sequence[Delivery]) -> pa.Table:
    """Deliveries of one stream as rows of the log (:data:`projections.log.LOG`).

    Rows of one type lie together, in the order of their sequences. Never raises for what a message holds.
    """
    bad: list[tuple[Delivery, str]] = []
    groups = (_advisories if stream == ADVISORIES else _events)(deliveries, bad)
    tables = [table for group in groups for table in _tables(stream, group, bad)]
    if bad:
        tables.append(_rubbish(stream, bad))
    if not tables:
        return LOG.empty_table()
    return pa.concat_tables(tables)


def _events(deliveries: Sequence[Delivery], bad: list[tuple[Delivery, str]]) -> list[_Group]:
    groups: dict[str, _Group] = {}
    newest = upcasters.CURRENT
    for delivery in deliveries:
        subject = delivery.subject
        type_ = type_of(subject)
        quick = _QUICK.get(type_)
        envelope: Any = None
        if quick is not None:
            try:
                envelope = quick(delivery.data)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                envelope = None  # an old version, or no event: the slow way tells which
        if (
            envelope is None
            or envelope.type != type_
            or envelope.subject != subject
            or envelope.dataversion != newest.get(type_, 1)
            or envelope.specversion != "1.0"
        ):
            record = store.read(delivery.seq, subject, _EPOCH, delivery.data)
            if record.event is None:
                bad.append((delivery, record.problem))
                continue
            envelope = msgspec.structs.replace(record.event, data=record.data)
        group = groups.get(type_)
        if group is None:
            group = groups[type_] = _Group(type_)
        group.deliveries.append(delivery)
        group.envelopes.append(envelope)
    return list(groups.values())


def _advisories(deliveries: Sequence[Delivery], bad: list[tuple[Delivery, str]]) -> list[_Group]:
    """The server's own messages, as far as their shape is known."""
    groups: dict[str, _Group] = {}
    for delivery in deliveries:
        try:
            told = facts.ADVISORY.decode(delivery.data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            bad.append((delivery, f"expected an advisory of the server: {exc}"))
            continue
        envelope = Envelope(
            specversion="1.0",
            id=told.id,
            source=f"/nats-server/{told.domain}" if told.domain else "/nats-server",
            type=told.type,
            subject=delivery.subject,
            time=told.timestamp,
            data=told,
        )
        group = groups.setdefault(told.type, _Group(told.type))
        group.deliveries.append(delivery)
        group.envelopes.append(envelope)
    return list(groups.values())


def _tables(stream: str, group: _Group, bad: list[tuple[Delivery, str]]) -> list[pa.Table]:
    """The events of a group as rows. One with a number that no column holds is found by halving, and is bad."""
    try:
        return [_table(stream, group)]
    except (pa.ArrowException, OverflowError) as exc:
        count = len(group.envelopes)
        if count == 1:
            bad.append((group.deliveries[0], f"a value of {group.type} that no column holds: {exc}"))
            return []
        half = count // 2
        return [*_tables(stream, group.part(0, half), bad), *_tables(stream, group.part(half, count), bad)]


def _table(stream: str, group: _Group) -> pa.Table:
    deliveries, envelopes = group.deliveries, group.envelopes
    count = len(deliveries)
    columns = _place(stream, deliveries) | {
        "id": [e.id for e in envelopes],
        "time": [e.time for e in envelopes],
        "source": [e.source for e in envelopes],
        "actor": [e.actor for e in envelopes],
        "correlation_id": [e.correlationid for e in envelopes],
        "causation_id": [e.causationid for e in envelopes],
        "version": [e.dataversion for e in envelopes],
        "type": pa.repeat(group.type, count),
    }
    columns |= facts.of(group.type, [d.subject for d in deliveries], [e.data for e in envelopes])
    return _arrow(columns, count)


def _rubbish(stream: str, bad: Sequence[tuple[Delivery, str]]) -> pa.Table:
    columns = _place(stream, [delivery for delivery, _ in bad])
    # A problem may quote what a message holds: half a surrogate pair is no text of a table.
    columns["problem"] = [problem.encode(errors="replace").decode() for _, problem in bad]
    return _arrow(columns, len(bad))


def _place(stream: str, deliveries: Sequence[Delivery]) -> dict[str, Any]:
    stored = pa.array([d.stored_ns for d in deliveries], pa.timestamp("ns"))
    return {
        "stream": pa.repeat(stream, len(deliveries)),
        "seq": [d.seq for d in deliveries],
        "stored_at": stored.cast(pa.timestamp("us"), safe=False),
        "subject": [d.subject for d in deliveries],
        "raw": [d.data for d in deliveries],
    }


def _arrow(columns: dict[str, Any], count: int) -> pa.Table:
    """Columns of the log out of lists and arrays; what is not named is NULL."""
    return pa.Table.from_arrays([_array(field, columns.get(field.name), count) for field in LOG], schema=LOG)


def _array(field: pa.Field, values: Any, count: int) -> pa.Array:
    if values is None:
        return pa.nulls(count, field.type)
    if isinstance(values, pa.Array):
        return values
    if pa.types.is_timestamp(field.type):
        # Through durations: Arrow asks each datetime for its zone, which takes four times as long.
        spans = [None if value is None else value - _EPOCH for value in values]
        return pa.array(spans, pa.duration("us")).cast(pa.int64()).cast(field.type)
    return pa.array(values, field.type)

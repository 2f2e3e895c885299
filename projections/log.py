"""The log as a table: one row for each message of the event streams, good or bad, with the facts that tables are made of.

The primary file's ``hot.log``, the archive's Parquet segments and every batch on its way into tables have these columns, in
this order. Times are UTC, in microseconds, without a zone. A column is NULL where an event has no such fact; text that an
event leaves at its default is ``''``.
"""

from __future__ import annotations

import pyarrow as pa

from bus.store import CONTROL, DEAD_LETTERS, INVOCATIONS
from bus.topology import ADVISORIES

#: The streams that tables are made of.
STREAMS = (INVOCATIONS, CONTROL, DEAD_LETTERS, ADVISORIES)

#: What the server itself says of a message; every row has these.
_PLACE = {"stream": pa.string(), "seq": pa.uint64(), "stored_at": pa.timestamp("us"), "subject": pa.string()}

_ENVELOPE = {
    "id": pa.string(),
    "type": pa.string(),
    "time": pa.timestamp("us"),
    "source": pa.string(),
    "actor": pa.string(),
    "correlation_id": pa.string(),
    "causation_id": pa.string(),
    "version": pa.int16(),
    "noun": pa.string(),
    "key": pa.string(),
    "event": pa.string(),
    "project": pa.string(),
    "role": pa.string(),
}

_FACTS = {
    "parent": pa.string(),
    "root": pa.string(),
    "depth": pa.int32(),
    "generation": pa.int32(),
    "schedule": pa.string(),
    "due": pa.timestamp("us"),
    "holder": pa.string(),
    "runner": pa.string(),
    "delivery": pa.int32(),
    "attempt": pa.int32(),
    "registry_revision": pa.uint64(),
    "prompt_digest": pa.string(),
    "reason": pa.string(),
    "error_kind": pa.string(),
    "error_message": pa.string(),
    "error_fingerprint": pa.string(),
    "permanent": pa.bool_(),
    "retry_at": pa.timestamp("us"),
    "input_tokens": pa.int64(),
    "output_tokens": pa.int64(),
    "model": pa.string(),
    "duration_ms": pa.float64(),
    "age_s": pa.float64(),
    "hold_tokens": pa.int64(),
    "hold_usd_micros": pa.int64(),
    "settled_tokens": pa.int64(),
    "settled_usd_micros": pa.int64(),
    "assumed": pa.bool_(),
}

#: Columns of the log, in order.
LOG = pa.schema({**_PLACE, "problem": pa.string(), "raw": pa.binary(), **_ENVELOPE, **_FACTS})

"""The server's own advisories, as far as we act on them. They are not events of ours: the server's shape, read leniently."""

from __future__ import annotations

import msgspec


class MaxDeliveries(msgspec.Struct, frozen=True, kw_only=True):
    """``io.nats.jetstream.advisory.v1.max_deliver``: a message is out of deliveries."""

    stream: str
    consumer: str
    stream_seq: int
    deliveries: int = 0


def read(payload: bytes) -> MaxDeliveries | None:
    """The advisory, or None when it is something else."""
    try:
        return msgspec.json.decode(payload, type=MaxDeliveries)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None

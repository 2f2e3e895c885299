"""Key-value buckets (ADR-8), over the same publisher and follower as everything else.

Keys and values are what ``nats kv`` shows. A revision is the stream sequence of the value. Watching starts with every
value that is still kept, oldest first, and goes on for ever; it survives a server that goes away.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import msgspec

from bus import errors, wire
from bus.connection import Connection
from bus.follower import Follower
from bus.publisher import Publisher
from bus.store import Store

_OPERATION = "KV-Operation"
_MARKER = "Nats-Marker-Reason"


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One value of a key, or the news that it is gone."""

    key: str
    value: bytes
    revision: int
    created: datetime
    #: True: deleted, purged or expired.
    gone: bool = False
    #: It ran out of its time to live; nobody deleted it.
    expired: bool = False


class Bucket:
    """One bucket. The stream behind it is made by the topology."""

    def __init__(self, name: str, connection: Connection, publisher: Publisher, store: Store) -> None:
        self.name = name
        self.stream = f"KV_{name}"
        self._prefix = f"$KV.{name}."
        self._connection = connection
        self._publisher = publisher
        self._store = store

    async def put(self, key: str, value: bytes, *, expect: int | None = None, ttl_s: float | None = None) -> int:
        """Set a key: the new revision.

        Args:
            key: dots separate its tokens.
            value: any bytes.
            expect: the revision that must be the present one; 0 for a key that must not exist.
            ttl_s: seconds until it expires by itself; the bucket must allow it.

        Raises:
            SequenceConflict: another revision is there.
        """
        headers: dict[str, str] = {}
        if expect is not None:
            headers[wire.EXPECTED] = str(expect)
        if ttl_s is not None:
            headers[wire.TTL] = f"{max(1, round(ttl_s))}s"
        return (await self._publisher.publish(self._prefix + key, value, headers or None)).seq

    async def delete(self, key: str) -> int:
        """Mark a key as deleted; its history stays as long as the bucket keeps it."""
        return (await self._publisher.publish(self._prefix + key, b"", {_OPERATION: "DEL"})).seq

    async def get(self, key: str) -> Entry | None:
        """The present value; None when the key was never set, or is gone."""
        try:
            answer = await self._connection.api(
                f"STREAM.MSG.GET.{self.stream}", {"last_by_subj": self._prefix + key}
            )
        except errors.ServerError as exc:
            if exc.code == wire.Code.MESSAGE_NOT_FOUND:
                return None
            raise
        message = msgspec.convert(answer["message"], _Message)
        head = message.hdrs.decode(errors="replace")
        if f"{_OPERATION}:" in head or f"{_MARKER}:" in head:
            return None
        return Entry(key=key, value=message.data, revision=message.seq, created=message.time.astimezone(UTC))

    async def items(self) -> dict[str, Entry]:
        """All present values by key."""
        found: dict[str, Entry] = {}
        info = await self._connection.api(f"STREAM.INFO.{self.stream}")
        last = info["state"]["last_seq"]
        if info["state"]["messages"] == 0:
            return found
        async for entry in self.watch():
            if entry.gone:
                found.pop(entry.key, None)
            else:
                found[entry.key] = entry
            if entry.revision >= last:
                break
        return found

    async def watch(self) -> AsyncIterator[Entry]:
        """Every kept value and then every change, for ever."""
        follower = Follower(self._connection, self.stream, [self._prefix + ">"])
        async for batch in follower.batches():
            for item in batch:
                headers = item.headers
                yield Entry(
                    key=item.subject[len(self._prefix) :],
                    value=item.data,
                    revision=item.seq,
                    created=datetime.fromtimestamp(item.stored_ns / 1e9, UTC),
                    gone=_OPERATION in headers or _MARKER in headers,
                    expired=headers.get(_MARKER) == "MaxAge",
                )


class _Message(msgspec.Struct):
    seq: int
    time: datetime
    data: bytes = b""
    hdrs: bytes = b""

"""Key-value buckets (ADR-8), over the same publisher and follower as everything else.

Keys and values are what ``nats kv`` shows. A revision is the stream sequence of the value. Watching starts with every
value that is still kept, oldest first, and goes on for ever; it survives a server that goes away.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime

import msgspec

from bus import errors, wire
from bus.connection import Connection
from bus.driver import parse_headers
from bus.follower import Follower
from bus.ids import new_id
from bus.publisher import Publisher
from bus.store import Store

_OPERATION = "KV-Operation"
_MARKER = "Nats-Marker-Reason"
#: Header of the server's answers to a direct get.
_RELAYED = "Nats-Stream"


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
    #: Nobody put it: somebody had the server answer to its subject, which asks for no right to write there.
    relayed: bool = False


class Write(msgspec.Struct, frozen=True):
    """One key of a change of several."""

    key: str
    #: None deletes it.
    value: bytes | None


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
        headers = {} if ttl_s is None else _ttl(ttl_s)
        if expect is None:
            return (await self._publisher.publish(self._prefix + key, value, headers)).seq
        try:
            return (
                await self._publisher.publish(self._prefix + key, value, headers | {wire.EXPECTED: str(expect)})
            ).seq
        except errors.SequenceConflict:
            last = await self._last(key) if expect == 0 else None
            if last is None or not last.gone:
                raise
        # A key that is gone has left a mark, which the new value must follow.
        return (await self._publisher.publish(self._prefix + key, value, headers | {wire.EXPECTED: str(last.seq)})).seq

    async def put_all(self, writes: Sequence[Write], *, expect_last: int, headers: Mapping[str, str]) -> int:
        """Set and delete several keys, all or none: the new revision of the bucket. It must take atomic batches.

        Args:
            writes: each key at most once; at least one, at most :data:`bus.wire.BATCH_LIMIT`.
            expect_last: the bucket's revision (see :meth:`revision`) that must be the present one.
            headers: carried by each of the messages.

        Raises:
            SequenceConflict: something in the bucket has changed since.
            Conflict: no write, or too many.
            Unanswered: it may be done, or not.
        """
        if not 0 < len(writes) <= wire.BATCH_LIMIT:
            raise errors.Conflict(f"expected 1 to {wire.BATCH_LIMIT:,} keys in one change, got: {len(writes):,}")
        batch = new_id()
        for place, write in enumerate(writes, 1):
            own = dict(headers)
            if write.value is None:
                own[_OPERATION] = "DEL"
            if len(writes) > 1:
                own |= {wire.BATCH_ID: batch, wire.BATCH_SEQUENCE: str(place)}
            if place == 1:
                own[wire.EXPECTED_LAST] = str(expect_last)
            subject, value = self._prefix + write.key, write.value or b""
            if place < len(writes):
                self._publisher.send(subject, value, own)
                continue
            if place > 1:
                own[wire.BATCH_COMMIT] = "1"
            return (await self._publisher.publish(subject, value, own)).seq
        raise AssertionError("a change has at least one key")

    async def revision(self) -> int:
        """The bucket's own revision: that of the newest word on any of its keys; 0 for none."""
        info = await self._connection.api(f"STREAM.INFO.{self.stream}")
        return int(info["state"]["last_seq"])

    async def delete(self, key: str, *, ttl_s: float | None = None) -> int:
        """Mark a key as deleted; its history stays as long as the bucket keeps it, the mark for `ttl_s` if that is given."""
        headers = {_OPERATION: "DEL"} | ({} if ttl_s is None else _ttl(ttl_s))
        return (await self._publisher.publish(self._prefix + key, b"", headers)).seq

    async def get(self, key: str) -> Entry | None:
        """The present value; None when the key was never set, or is gone."""
        message = await self._last(key)
        if message is None or message.gone:
            return None
        return Entry(key=key, value=message.data, revision=message.seq, created=message.time.astimezone(UTC))

    async def _last(self, key: str) -> _Message | None:
        try:
            answer = await self._connection.api(f"STREAM.MSG.GET.{self.stream}", {"last_by_subj": self._prefix + key})
        except errors.ServerError as exc:
            if exc.code == wire.Code.MESSAGE_NOT_FOUND:
                return None
            raise
        return msgspec.convert(answer["message"], _Message)

    async def latest(self, key: str) -> Entry | None:
        """The last word on a key, also that it is gone; None when it was never set, or all of it was removed."""
        message = await self._last(key)
        if message is None:
            return None
        return self._entry(key, message)

    async def history(self, key: str) -> list[Entry]:
        """Every kept value of a key and every mark that it was gone, oldest first, as the stream itself tells them.

        Not by direct get: its answers carry headers of the server's own, which a value that was relayed carries too.
        """
        found: list[Entry] = []
        start = 1
        while True:
            body = {"seq": start, "next_by_subj": self._prefix + key}
            try:
                answer = await self._connection.api(f"STREAM.MSG.GET.{self.stream}", body)
            except errors.ServerError as exc:
                if exc.code == wire.Code.MESSAGE_NOT_FOUND:
                    return found
                raise
            message = msgspec.convert(answer["message"], _Message)
            found.append(self._entry(key, message))
            start = message.seq + 1

    def _entry(self, key: str, message: _Message) -> Entry:
        return Entry(
            key=key,
            value=message.data,
            revision=message.seq,
            created=message.time.astimezone(UTC),
            gone=message.gone,
            relayed=message.relayed,
        )

    async def items(self) -> dict[str, Entry]:
        """All present values by key."""
        found: dict[str, Entry] = {}
        async for message in self._store.messages(self.stream, self._prefix + ">"):
            key = message.subject[len(self._prefix) :]
            if _OPERATION in message.headers or _MARKER in message.headers:
                found.pop(key, None)
            else:
                found[key] = Entry(key=key, value=message.data, revision=message.seq, created=message.stored_at)
        return found

    async def watch(self) -> AsyncGenerator[Entry, None]:
        """Every kept value and then every change, for ever."""
        follower = Follower(self._connection, self.stream, [self._prefix + ">"])
        async with aclosing(follower.batches()) as batches:
            async for batch in batches:
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

    @property
    def gone(self) -> bool:
        """It says that the key was deleted, purged or expired."""
        headers = parse_headers(self.hdrs)
        return _OPERATION in headers or _MARKER in headers

    @property
    def relayed(self) -> bool:
        """It is an answer of the server (a direct get), and not what somebody put."""
        return _RELAYED in parse_headers(self.hdrs)


def _ttl(seconds: float) -> dict[str, str]:
    return {wire.TTL: f"{max(1, round(seconds))}s"}

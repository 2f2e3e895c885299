"""Buckets on a real server: values, revisions, marks, expiry and watching."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from typing import Any

import pytest

from bus import errors
from bus.bucket import Bucket, Entry
from bus.connection import Connection
from bus.publisher import Publisher
from bus.store import Store
from tests.bus.conftest import LIMIT_S

_S = 1_000_000_000


@pytest.fixture
def bucket(connection: Connection, publisher: Publisher, store: Store) -> Bucket:
    """The flags."""
    return Bucket("flags", connection, publisher, store)


@pytest.fixture
async def fleeting(connection: Connection, publisher: Publisher, store: Store) -> Bucket:
    """A bucket whose values may expire after a second, and whose marks do too."""
    config = {
        "name": "KV_fleeting",
        "subjects": ["$KV.fleeting.>"],
        "retention": "limits",
        "storage": "memory",
        "num_replicas": 1,
        "max_msgs_per_subject": 1,
        "allow_direct": True,
        "allow_rollup_hdrs": True,
        "deny_delete": True,
        "discard": "new",
        "allow_msg_ttl": True,
        "subject_delete_marker_ttl": _S,
    }
    await connection.api("STREAM.CREATE.KV_fleeting", config)
    return Bucket("fleeting", connection, publisher, store)


async def watched(bucket: Bucket, enough: Callable[[list[Entry]], object]) -> list[Entry]:
    """What a watch brings, until it is enough."""
    seen: list[Entry] = []
    async with asyncio.timeout(LIMIT_S), aclosing(bucket.watch()) as entries:
        async for entry in entries:
            seen.append(entry)
            if enough(seen):
                break
    return seen


async def test_bucket_gives_back_what_was_put(bucket: Bucket) -> None:
    """The last value counts, its revision is the stream's sequence, and any bytes will do."""
    assert await bucket.get("a") is None
    first = await bucket.put("a", b"1")
    second = await bucket.put("a", b"\x00\xff")
    await bucket.put("a.b", b"other")
    entry = await bucket.get("a")
    assert entry is not None
    assert (entry.key, entry.value, entry.revision) == ("a", b"\x00\xff", second)
    assert second == first + 1
    assert await bucket.put("empty", b"") == second + 2
    empty = await bucket.get("empty")
    assert empty is not None
    assert empty.value == b""


async def test_bucket_put_expects_a_revision(bucket: Bucket) -> None:
    """Of two that change the same revision the second is refused, whatever happens to other keys."""
    revision = await bucket.put("a", b"1", expect=0)
    await bucket.put("b", b"x")
    with pytest.raises(errors.SequenceConflict):
        await bucket.put("a", b"2", expect=0)
    await bucket.put("a", b"2", expect=revision)
    with pytest.raises(errors.SequenceConflict):
        await bucket.put("a", b"3", expect=revision)
    entry = await bucket.get("a")
    assert entry is not None
    assert entry.value == b"2"


async def test_bucket_deleted_key_is_gone_and_can_be_made_again(bucket: Bucket) -> None:
    """A deleted key has no value, is not listed, and counts as one that does not exist."""
    await bucket.put("a", b"1")
    await bucket.put("b", b"2")
    await bucket.delete("a")
    assert await bucket.get("a") is None
    assert set(await bucket.items()) == {"b"}
    await bucket.put("a", b"3", expect=0)
    with pytest.raises(errors.SequenceConflict):
        await bucket.put("a", b"4", expect=0)
    assert {key: entry.value for key, entry in (await bucket.items()).items()} == {"a": b"3", "b": b"2"}


async def test_bucket_of_one_thousand_keys_is_listed_whole(bucket: Bucket) -> None:
    """More keys than one request brings are all there, each with its last value."""
    await asyncio.gather(*[bucket.put(f"k{n}", b"old") for n in range(700)])
    await asyncio.gather(*[bucket.put(f"k{n}", b"%d" % n) for n in range(1000)])
    found = await bucket.items()
    assert {key: entry.value for key, entry in found.items()} == {f"k{n}": b"%d" % n for n in range(1000)}


async def test_bucket_without_keys_is_empty(bucket: Bucket) -> None:
    """Listing an empty bucket returns at once."""
    async with asyncio.timeout(LIMIT_S):
        assert await bucket.items() == {}


async def test_bucket_watch_brings_what_is_there_and_what_comes(bucket: Bucket) -> None:
    """Kept values with their history first, oldest first, then every change, deletions included."""
    await bucket.put("a", b"1")
    await bucket.put("a", b"2")
    watching = asyncio.create_task(watched(bucket, lambda seen: len(seen) == 4))
    await bucket.put("b", b"3")
    await bucket.delete("a")
    seen = [(entry.key, entry.value, entry.gone, entry.expired) for entry in await watching]
    assert seen == [
        ("a", b"1", False, False),
        ("a", b"2", False, False),
        ("b", b"3", False, False),
        ("a", b"", True, False),
    ]


@pytest.mark.slow
async def test_bucket_value_expires_and_the_watch_says_so(fleeting: Bucket) -> None:
    """A value past its time is gone, and a watcher is told that it expired and was not deleted."""
    watching = asyncio.create_task(watched(fleeting, lambda seen: sum(entry.gone for entry in seen) == 2))
    await fleeting.put("taken-back", b"x", ttl_s=30)
    await fleeting.delete("taken-back")
    await fleeting.put("silent", b"x", ttl_s=1)
    entries = [entry for entry in await watching if entry.gone]
    assert [(entry.key, entry.expired) for entry in entries] == [("taken-back", False), ("silent", True)]
    assert await fleeting.get("silent") is None
    assert await fleeting.items() == {}


@pytest.mark.slow
async def test_bucket_lists_at_once_although_its_newest_value_has_expired(
    fleeting: Bucket, connection: Connection, until: Callable[..., Coroutine[Any, Any, None]]
) -> None:
    """When the last message of the stream is gone and older ones stay, the list ends all the same."""
    await fleeting.put("stays", b"1")
    await fleeting.put("goes", b"2", ttl_s=1)
    async with asyncio.timeout(LIMIT_S):
        while (await connection.api("STREAM.INFO.KV_fleeting"))["state"]["messages"] != 1:
            await asyncio.sleep(0.1)
        assert set(await fleeting.items()) == {"stays"}


@pytest.mark.slow
async def test_bucket_mark_of_a_deletion_expires_too(fleeting: Bucket, connection: Connection) -> None:
    """A mark with a time to live does not stay for ever."""
    await fleeting.put("a", b"1")
    await fleeting.delete("a", ttl_s=1)
    async with asyncio.timeout(LIMIT_S):
        while (await connection.api("STREAM.INFO.KV_fleeting"))["state"]["messages"] != 0:
            await asyncio.sleep(0.1)


async def test_bucket_that_does_not_exist_is_told(connection: Connection, publisher: Publisher, store: Store) -> None:
    """A bucket that nobody made is an error that names what is missing, for reading and for writing."""
    bucket = Bucket("nowhere", connection, publisher, store)
    for attempt in (bucket.get("a"), bucket.put("a", b"1"), bucket.items()):
        with pytest.raises(errors.ServerError, match="code 10059"):
            await attempt

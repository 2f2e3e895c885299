"""Several keys of a bucket, put and deleted in one piece."""

from __future__ import annotations

import pytest

from bus import errors
from bus.bucket import Bucket, Write
from bus.connection import Connection
from bus.publisher import Publisher
from bus.store import Store


@pytest.fixture
def bucket(connection: Connection, publisher: Publisher, store: Store) -> Bucket:
    """The registry, which takes batches."""
    return Bucket("registry", connection, publisher, store)


async def test_change_of_several_keys_is_whole(bucket: Bucket) -> None:
    """Puts and deletions of one change follow one another, and the bucket's revision is the last one's."""
    await bucket.put("a", b"1")
    await bucket.put("b", b"1")
    revision = await bucket.put_all(
        [Write("c", b"3"), Write("a", None)], expect_last=2, headers={"Systems-Actor": "ann"}
    )
    assert revision == await bucket.revision() == 4
    assert {key: entry.value for key, entry in (await bucket.items()).items()} == {"b": b"1", "c": b"3"}
    assert await bucket.put_all([Write("d", b"4")], expect_last=4, headers={}) == 5


async def test_change_over_what_has_changed_since_is_not_made(bucket: Bucket) -> None:
    """A change that was prepared over an older revision, of any key, leaves nothing behind."""
    await bucket.put("a", b"1")
    await bucket.put("other", b"1")
    for writes in ([Write("a", b"2")], [Write("a", b"2"), Write("b", b"2")]):
        with pytest.raises(errors.SequenceConflict):
            await bucket.put_all(writes, expect_last=1, headers={})
    assert {key: entry.value for key, entry in (await bucket.items()).items()} == {"a": b"1", "other": b"1"}


async def test_change_of_nothing_or_of_too_much_is_refused(bucket: Bucket) -> None:
    """A change names at least one key, and no more than one batch takes."""
    for writes in ([], [Write(f"k{n}", b"") for n in range(1001)]):
        with pytest.raises(errors.Conflict, match="expected 1 to 1,000 keys"):
            await bucket.put_all(writes, expect_last=0, headers={})
    assert await bucket.revision() == 0

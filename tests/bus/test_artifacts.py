"""Artifacts on a real server: whole, with their digest, and told when they are missing."""

from __future__ import annotations

import hashlib
import os

import msgspec
import pytest

from bus import artifacts as module
from bus import errors
from bus.artifacts import Artifacts
from bus.connection import Connection
from bus.subjects import Ref
from bus.topology import Topology

REF = Ref("shop", "coder", "0197c0de-0000-7000-8000-000000000000")


@pytest.fixture
def artifacts(connection: Connection, topology: Topology) -> Artifacts:
    """The object store."""
    return Artifacts(connection)


@pytest.mark.parametrize("size", [0, 1, 128 * 1024, 128 * 1024 + 1, 3_000_000])
async def test_artifacts_come_back_whole(artifacts: Artifacts, size: int) -> None:
    """Content of any size, over many chunks, is given back, and its reference has size and SHA-256."""
    content = os.urandom(size)
    made = await artifacts.put(REF, "output.bin", content, "application/x-test")
    assert made.name == f"shop/coder/{REF.id}/output.bin"
    assert (made.size, made.media_type) == (size, "application/x-test")
    assert made.digest == f"sha-256:{hashlib.sha256(content).hexdigest()}"
    assert await artifacts.get(made) == content


async def test_artifacts_of_one_name_are_replaced(artifacts: Artifacts) -> None:
    """The later content of a name counts."""
    await artifacts.put(REF, "log", b"first", "text/plain")
    made = await artifacts.put(REF, "log", b"second", "text/plain")
    assert await artifacts.get(made) == b"second"


async def test_artifacts_that_are_missing_are_named(artifacts: Artifacts) -> None:
    """A reference that leads nowhere is told by name."""
    made = await artifacts.put(REF, "a", b"x", "text/plain")
    gone = msgspec.structs.replace(made, name="shop/coder/none/a")
    with pytest.raises(errors.UnknownName, match="unknown artifact 'shop/coder/none/a'"):
        await artifacts.get(gone)


async def test_artifacts_that_were_changed_are_not_given_out(artifacts: Artifacts) -> None:
    """Content that does not fit the digest of its reference is refused and not taken for the real one."""
    made = await artifacts.put(REF, "a", b"real", "text/plain")
    await artifacts.put(REF, "a", b"fake", "text/plain")
    with pytest.raises(errors.Conflict, match=r"to have the digest .* it was overwritten"):
        await artifacts.get(made)


async def test_artifacts_over_the_limit_are_refused(artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too much is refused with both sizes before anything is sent."""
    monkeypatch.setattr(module, "LIMIT", 10)
    with pytest.raises(errors.PayloadTooLarge, match="expected artifact 'a' to be at most 10 bytes, got: 11"):
        await artifacts.put(REF, "a", b"x" * 11, "text/plain")


async def test_artifacts_without_a_store_are_told(connection: Connection) -> None:
    """Before ``systems apply`` there is no bucket, and that is an error of ours."""
    with pytest.raises(errors.ServerError, match="there is no object store artifacts; run `systems apply`"):
        await Artifacts(connection).put(REF, "a", b"x", "text/plain")


async def test_artifacts_in_a_freeze_are_refused_as_frozen(artifacts: Artifacts, connection: Connection) -> None:
    """A frozen object store refuses by code, and what was there stays readable."""
    made = await artifacts.put(REF, "a", b"x", "text/plain")
    config = (await connection.api("STREAM.INFO.OBJ_artifacts"))["config"]
    await connection.api("STREAM.UPDATE.OBJ_artifacts", config | {"max_bytes": 1})
    with pytest.raises(errors.StreamFrozen):
        await artifacts.put(REF, "b", b"y", "text/plain")
    assert await artifacts.get(made) == b"x"

"""Things too large for an event, in the object store ``artifacts``: the event holds a reference and a digest.

An artifact is written before the event that names it, so a reference never points at nothing; one that no event came to
name (the writer lost its fence) stays behind until the archiver cleans up.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from nats import errors as driver

from bus import errors, wire
from bus.connection import Connection
from bus.events.invocation import ArtifactRef
from bus.publisher import Passage
from bus.subjects import Ref

if TYPE_CHECKING:
    from nats.js.object_store import ObjectStore

BUCKET = "artifacts"
#: The largest artifact that is taken; its bytes pass through memory.
LIMIT = 256 * 1024 * 1024


class Artifacts:
    """The object store ``artifacts``."""

    def __init__(self, connection: Connection, gate: Passage | None = None) -> None:
        self._connection = connection
        self._gate = gate
        self._store: ObjectStore | None = None

    async def _bucket(self) -> ObjectStore:
        if self._store is None:
            with _translated(f"opening the object store {BUCKET}"):
                self._store = await self._connection.nc.jetstream().object_store(BUCKET)
        return self._store

    async def put(self, ref: Ref, name: str, content: bytes, media_type: str) -> ArtifactRef:
        """Keep `content` under the invocation: its reference.

        Raises:
            GuardRefused: the kill switch is thrown, or cannot be read.
            PayloadTooLarge: it is over :data:`LIMIT`.
            StreamFrozen, ServerError: the server will not take it.
            Unanswered: it may be there, or not; putting it again does no harm.
        """
        if len(content) > LIMIT:
            raise errors.PayloadTooLarge(f"artifact {name!r}", len(content), LIMIT)
        if self._gate is not None:
            self._gate.check(f"$O.{BUCKET}.")
        store = await self._bucket()
        key = f"{ref.project}/{ref.role}/{ref.id}/{name}"
        with _translated(f"artifact {key!r}"):
            info = await store.put(key, content)
        digest = base64.urlsafe_b64decode((info.digest or "").removeprefix("SHA-256=")).hex()
        return ArtifactRef(name=key, size=len(content), digest=f"sha-256:{digest}", media_type=media_type)

    async def get(self, artifact: ArtifactRef) -> bytes:
        """The content of an artifact, checked against the digest in its reference.

        Raises:
            UnknownName: it is not there (any more).
            Conflict: something else lies under its name.
        """
        from nats.js.errors import NotFoundError  # noqa: PLC0415 (see bus.later)

        store = await self._bucket()
        try:
            with _translated(f"artifact {artifact.name!r}"):
                found = await store.get(artifact.name)
        except NotFoundError as exc:
            raise errors.UnknownName("artifact", artifact.name, ()) from exc
        content = found.data or b""
        digest = f"sha-256:{hashlib.sha256(content).hexdigest()}"
        if digest != artifact.digest:
            raise errors.Conflict(
                f"expected artifact {artifact.name!r} to have the digest {artifact.digest}, got: {digest}; it was overwritten"
            )
        return content


@contextmanager
def _translated(what: str) -> Iterator[None]:
    """The driver's errors as ours; a missing object stays a ``NotFoundError``."""
    from nats.js.errors import APIError, BucketNotFoundError, NotFoundError  # noqa: PLC0415 (see bus.later)

    try:
        yield
    except BucketNotFoundError as exc:
        why = f"there is no object store {BUCKET}; run `systems apply`"
        raise errors.ServerError(what, wire.Code.STREAM_NOT_FOUND, why) from exc
    except NotFoundError:
        raise
    except APIError as exc:
        error = wire.ApiError(code=exc.code or 0, err_code=exc.err_code or 0, description=exc.description or "")
        raise wire.refusal(what, error) from exc
    except (driver.TimeoutError, driver.ConnectionClosedError, TimeoutError) as exc:
        raise errors.Unanswered(what, 5.0) from exc

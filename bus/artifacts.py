"""Things too large for an event, in the object store ``artifacts``: the event holds a reference and a digest.

An artifact is written before the event that names it, so a reference never points at nothing; one that no event came to
name (the writer lost its fence) stays behind until the archiver cleans up.
"""

from __future__ import annotations

import base64

from nats.js.errors import NotFoundError
from nats.js.object_store import ObjectStore

from bus import errors
from bus.connection import Connection
from bus.events.invocation import ArtifactRef
from bus.subjects import Ref

BUCKET = "artifacts"
#: The largest artifact that is taken; its bytes pass through memory.
LIMIT = 256 * 1024 * 1024


class Artifacts:
    """The object store ``artifacts``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._store: ObjectStore | None = None

    async def _bucket(self) -> ObjectStore:
        if self._store is None:
            self._store = await self._connection.nc.jetstream().object_store(BUCKET)
        return self._store

    async def put(self, ref: Ref, name: str, content: bytes, media_type: str) -> ArtifactRef:
        """Keep `content` under the invocation: its reference.

        Raises:
            PayloadTooLarge: it is over :data:`LIMIT`.
        """
        if len(content) > LIMIT:
            raise errors.PayloadTooLarge(f"artifact {name!r}", len(content), LIMIT)
        store = await self._bucket()
        key = f"{ref.project}/{ref.role}/{ref.id}/{name}"
        info = await store.put(key, content)
        digest = base64.urlsafe_b64decode((info.digest or "").removeprefix("SHA-256=")).hex()
        return ArtifactRef(name=key, size=len(content), digest=f"sha-256:{digest}", media_type=media_type)

    async def get(self, artifact: ArtifactRef) -> bytes:
        """The content of an artifact, checked against its digest by the driver.

        Raises:
            UnknownName: it is not there (any more).
        """
        store = await self._bucket()
        try:
            found = await store.get(artifact.name)
        except NotFoundError as exc:
            raise errors.UnknownName("artifact", artifact.name, ()) from exc
        return found.data or b""

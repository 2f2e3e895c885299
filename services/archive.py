"""The trimmed beginning of INVOCATIONS, read back from the archive of this home when somebody asks for something old."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from bus.store import INVOCATIONS, Recorded
from bus.subjects import Ref
from services.daemon import Bus

if TYPE_CHECKING:
    from projections.archive.reader import Lookup


class Archive:
    """Records of INVOCATIONS before the stream's first sequence. Blocks for the time of a look into the files."""

    def __init__(self, root: Path, created: str, first: int) -> None:
        """`created` and `first` are the stream's: when it was made, and where it begins."""
        self._root = root
        self._created = created
        self._first = first
        self._lookup: Lookup | None = None

    def find(self, id_: str) -> Ref | None:
        """Which project and role an invocation belongs to; None if it is in no file.

        Raises:
            Unreadable: a file is damaged.
        """
        lookup = self._look()
        return lookup.find(id_) if lookup is not None else None

    def history(self, ref: Ref) -> list[Recorded]:
        """An invocation's records, in order, as far as the stream does not hold them.

        Raises:
            Unreadable: a file is damaged.
        """
        lookup = self._look()
        return lookup.history(ref, before=self._first) if lookup is not None else []

    def members(self, root: str) -> list[Recorded]:
        """Requests of a run tree, in order, as far as the stream does not hold them.

        Raises:
            Unreadable: a file is damaged.
        """
        lookup = self._look()
        return lookup.members(root, before=self._first) if lookup is not None else []

    def _look(self) -> Lookup | None:
        """None while the stream holds all that it ever held."""
        if self._first <= 1:
            return None
        if self._lookup is None:
            # Arrow and DuckDB take a quarter of a second to load, and most questions are about what is new.
            from projections.archive.reader import Lookup  # noqa: PLC0415

            self._lookup = Lookup(self._root, self._created)
        return self._lookup


async def since(bus: Bus, root: Path, moment: datetime, tell: Callable[[str], None]) -> AsyncGenerator[Recorded, None]:
    """Records of INVOCATIONS from a moment on, in order: from the archive what has left the stream, the rest from the stream.

    Args:
        bus: the log.
        root: ``HOME/archive``.
        moment: what was stored before is left out.
        tell: is told why some of it is in neither.

    Raises:
        Unreadable: a file of the archive is damaged.
        ServerError, Unanswered: see :func:`bus.wire.api`.
    """
    read_to = 0
    while True:
        info = await bus.connection.api(f"STREAM.INFO.{INVOCATIONS}")
        first = info["state"]["first_seq"]
        # Trimmed while files were read: the files have that as well.
        if first <= read_to + 1:
            break
        from projections.archive import reader  # noqa: PLC0415 (as above)

        found = await asyncio.to_thread(reader.before, root, INVOCATIONS, info["created"], first, moment)
        if found.problem:
            tell(found.problem)
        batches = reader.batches(found, first=first, since=moment)
        while (batch := await asyncio.to_thread(next, batches, None)) is not None:
            for record in batch:
                if record.seq > read_to:
                    yield record
        read_to = first - 1
    async with aclosing(bus.store.read(INVOCATIONS, "inv.>", start=read_to + 1)) as records:
        async for record in records:
            if record.stored_at >= moment:
                yield record

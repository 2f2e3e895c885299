"""The trimmed beginning of INVOCATIONS, read back from the archive of this home when somebody asks for something old."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bus.store import Recorded
from bus.subjects import Ref

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

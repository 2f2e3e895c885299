"""What tables are to reach: how far each stream went at a moment. Sequences are compared, nothing is guessed."""

from __future__ import annotations

from collections.abc import Mapping

from bus.connection import Connection
from projections import streams
from projections.log import STREAMS
from projections.positions import Position


class Goal:
    """The last sequence of each stream, as of the moment when it was looked up. An empty one is reached."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._heads: dict[str, int] = {}

    def __bool__(self) -> bool:
        """Whether there is anything to reach."""
        return bool(self._heads)

    async def set(self) -> None:
        """What the streams hold now.

        Raises:
            ServerError, Unanswered: see :func:`bus.wire.api`.
        """
        self._heads = {stream: await streams.last(self._connection, stream) for stream in STREAMS}

    async def look_again(self) -> None:
        """What is to be reached may be gone meanwhile: trimmed or deleted.

        Raises:
            ServerError, Unanswered: see :func:`bus.wire.api`.
        """
        for stream, head in self._heads.items():
            self._heads[stream] = min(head, await streams.last(self._connection, stream))

    def clear(self) -> None:
        """It was reached."""
        self._heads = {}

    def missed(self, positions: Mapping[str, Position]) -> dict[str, tuple[int, int]]:
        """Streams that are behind: stream -> (sequence in the tables, sequence to reach)."""
        reached = {stream: positions[stream].seq if stream in positions else 0 for stream in self._heads}
        return {s: (reached[s], head) for s, head in self._heads.items() if reached[s] < head}

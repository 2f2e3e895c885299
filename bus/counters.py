"""Counters that live in the server (ADR-49): one message adds, the answer is the new total.

A counter is a cache of the log and never the truth. An addition carries its own message id, so a repeated one counts
once within the stream's duplicate window.
"""

from __future__ import annotations

import msgspec

from bus import errors, wire
from bus.connection import Connection
from bus.publisher import Publisher
from bus.topology import SPEND


class Counters:
    """Counters on ``spend.<scope>.<unit>.<window>``; see :mod:`bus.spend`."""

    def __init__(self, connection: Connection, publisher: Publisher) -> None:
        self._connection = connection
        self._publisher = publisher

    async def ready(self) -> None:
        """Wait until a server is there."""
        await self._connection.ready()

    async def add(self, key: str, amount: int, *, message_id: str = "") -> int:
        """Add to a counter: its new total.

        When this message id was counted before, nothing is added, and the answer is the present total: what others have
        added since is in it.

        Raises:
            ServerError: the server refused it.
            Unanswered: it may have been counted; repeat it with the same `message_id`.
        """
        headers = {wire.INCREMENT: f"{amount:+d}"}
        if message_id:
            headers[wire.MSG_ID] = message_id
        answer = await self._publisher.publish(f"spend.{key}", b"", headers)
        return await self.total(key) if answer.duplicate else int(answer.val)

    async def total(self, key: str) -> int:
        """The present total; 0 for a counter that was never touched.

        Raises:
            ServerError, Unanswered: the server does not say.
        """
        try:
            answer = await self._connection.api(f"STREAM.MSG.GET.{SPEND}", {"last_by_subj": f"spend.{key}"})
        except errors.ServerError as exc:
            if exc.code == wire.Code.MESSAGE_NOT_FOUND:
                return 0
            raise
        return int(msgspec.json.decode(msgspec.convert(answer["message"]["data"], bytes), type=_Value).val)

    async def seed(self, key: str, total: int, *, message_id: str = "") -> int:
        """Bring a counter to a total; for a counter that nobody else moves meanwhile.

        Raises:
            ServerError, Unanswered: as :meth:`add`.
        """
        return await self.add(key, total - await self.total(key), message_id=message_id)


class _Value(msgspec.Struct):
    val: str

"""Folding a log whose beginning is trimmed away: nothing that has left it may be missed without notice.

The archiver trims only what no fold needs (:mod:`projections.archive.trim`): what is left of the log holds open work, open
run trees and the spend of capped windows whole. So a fold may begin at the first message that is there; but a fold that has
read a part, and then finds messages behind it gone, holds claims whose end it will never see. It begins anew.
"""

from __future__ import annotations

from bus import errors, wire
from bus.connection import Connection
from bus.store import INVOCATIONS


class LogTrimmed(errors.BusError):
    """Messages that were not folded have left the log."""

    def __init__(self, position: int, first: int) -> None:
        self.position, self.first = position, first
        super().__init__(
            f"expected the log to go on at sequence {position + 1:,}, got: it begins at {first:,} by now; folding it from there"
        )


async def unbroken(connection: Connection, position: int) -> None:
    """Pass if everything behind a position is still in the log.

    Raises:
        LogTrimmed: some of it was trimmed.
        ServerError, Unanswered: the server does not say.
    """
    info = await connection.api(f"STREAM.INFO.{INVOCATIONS}")
    if info["state"]["first_seq"] > position + 1:
        raise LogTrimmed(position, info["state"]["first_seq"])


async def last(connection: Connection) -> int:
    """Sequence of the last message that is there; 0 for none. The stream's own last sequence may be one that was deleted.

    Raises:
        ServerError, Unanswered: the server does not say.
    """
    try:
        answer = await connection.api(f"STREAM.MSG.GET.{INVOCATIONS}", {"last_by_subj": "inv.>"})
    except errors.ServerError as exc:
        if exc.code != wire.Code.MESSAGE_NOT_FOUND:
            raise
        return 0
    return int(answer["message"]["seq"])

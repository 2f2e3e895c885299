"""Which stream it is that is read, how far it goes, and what waits in it: asked of the server, sequences compared.

A stream that was deleted and made anew counts from 1 again; one that was put back from a backup may go on differently from
a sequence that the tables hold already. Both would be merged silently by a reader that knows nothing but a number.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from bus import errors, wire
from bus.connection import Connection
from projections.positions import Position
from projections.standing import Lag

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class AnotherHistory(errors.BusError):
    """A stream is not the one that the tables were made from."""


async def identify(connection: Connection, stream: str, position: Position | None) -> str:
    """When the stream was made, in the server's words.

    Raises:
        AnotherHistory: it is not the one that was read up to `position`.
        ServerError, Unanswered: see :func:`bus.wire.api`.
    """
    info = await connection.api(f"STREAM.INFO.{stream}")
    era, last = str(info["created"]), int(info["state"]["last_seq"])
    if position is None:
        return era
    if position.era != era:
        raise AnotherHistory(
            f"expected the stream {stream} that was made at {position.era}, got: one made at {era}; it was deleted and made anew"
        )
    if position.seq > last:
        raise AnotherHistory(
            f"expected the stream {stream} to reach sequence {position.seq:,} at least, got: {last:,}; it was put back from a backup"
        )
    message = await _get(connection, stream, {"seq": position.seq}) if position.seq else None
    # A message that was trimmed or deleted proves nothing either way.
    if message is not None and _microseconds(message["time"]) != position.stored_us:
        raise AnotherHistory(
            f"expected message {position.seq:,} of the stream {stream} to be the one that was read, "
            f"got: one stored at {message['time']}; it was put back from a backup and went on differently"
        )
    return era


async def last(connection: Connection, stream: str) -> int:
    """Sequence of the last message that the stream still holds; 0 for none."""
    message = await _get(connection, stream, {"last_by_subj": ">"})
    return int(message["seq"]) if message is not None else 0


async def lag(connection: Connection, stream: str, position: Position | None, now: datetime) -> Lag:
    """How far a position is behind its stream. Nobody's clock makes it negative.

    Raises:
        ServerError, Unanswered: see :func:`bus.wire.api`.
    """
    seq = position.seq if position is not None else 0
    head = await last(connection, stream)
    waiting = await _get(connection, stream, {"seq": seq + 1, "next_by_subj": ">"}) if head > seq else None
    age = (now - _at(_microseconds(waiting["time"]))).total_seconds() if waiting is not None else 0.0
    return Lag(
        stream=stream,
        seq=seq,
        head=max(head, seq),
        behind=max(0, head - seq) if waiting is not None else 0,
        seconds=max(0.0, round(age, 3)),
        stored_at=_at(position.stored_us) if position is not None and position.seq else None,
    )


async def _get(connection: Connection, stream: str, which: dict[str, Any]) -> dict[str, Any] | None:
    try:
        answer = await connection.api(f"STREAM.MSG.GET.{stream}", which)
    except errors.ServerError as exc:
        if exc.code == wire.Code.MESSAGE_NOT_FOUND:
            return None
        raise
    found: dict[str, Any] = answer["message"]
    return found


def _at(microseconds: int) -> datetime:
    return _EPOCH + microseconds * _MICROSECOND


def _microseconds(text: str) -> int:
    """RFC 3339 with up to nine digits after the point, cut to six as the tables do."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    seconds = (datetime.fromisoformat(f"{whole}+00:00") - _EPOCH) // timedelta(seconds=1)
    return seconds * 1_000_000 + int(fraction[:6].ljust(6, "0") or "0")

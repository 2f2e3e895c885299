"""What only tables know, asked of the projector over NATS: rates, whether an error is new, and whether the archive is whole."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, TypeVar

import msgspec
from nats import errors as driver

from bus import errors
from bus.connection import Connection
from services.fleet.spec import SANDBOX, Monitor
from services.monitor.seen import ErrorSeen, GapSeen
from services.projector.subjects import LAG_EVENTS, LAG_SECONDS, SQL

T = TypeVar("T")

#: Seconds that an answer may take.
_TIMEOUT_S = 5.0
#: Windows of the past that the usual rate is taken over: a week of hours, with the default window.
_WINDOWS = 168
#: Fingerprints that are looked at; those of the most failures first. What drills let fail on purpose is none.
_ERRORS = 200

_ERRORS_SQL = f"""
SELECT error_fingerprint AS fingerprint, project || '/' || role AS path,
       arg_max(error_kind, seq) AS kind, arg_max(error_message, seq) AS message,
       min(stored_at) AS first_at, CAST(max(seq) AS BIGINT) AS last_seq,
       count(*) FILTER (stored_at > CAST($since AS TIMESTAMP)) AS lately,
       count(*) FILTER (stored_at <= CAST($since AS TIMESTAMP) AND stored_at > CAST($before AS TIMESTAMP)) AS earlier,
       CAST(epoch(CAST($since AS TIMESTAMP) - greatest(min(stored_at), CAST($before AS TIMESTAMP))) AS DOUBLE) AS over_s
FROM events
WHERE noun = 'invocation' AND event = 'failed' AND error_fingerprint IS NOT NULL AND project <> '{SANDBOX}'
GROUP BY ALL HAVING lately > 0 ORDER BY lately DESC
"""  # noqa: S608 (our own name)
_GAPS_SQL = """
SELECT stream, last_seq + 1 AS first, following - 1 AS last, '' AS why FROM (
    SELECT stream, created, last_seq, lead(first_seq) OVER (PARTITION BY stream, created ORDER BY first_seq) AS following
    FROM archive_segments
) WHERE following > last_seq + 1
UNION ALL SELECT stream, first_seq, last_seq, problem FROM archive_segments WHERE problem IS NOT NULL
ORDER BY 1, 2
"""


class TablesUnanswered(errors.BusError):
    """The tables could not be asked, or did not answer what was asked."""


class Rows(msgspec.Struct, frozen=True):
    """An answer."""

    rows: list[dict[str, Any]]


class _Error(msgspec.Struct, frozen=True):
    fingerprint: str
    path: str
    kind: str
    message: str
    first_at: datetime
    last_seq: int
    lately: int
    earlier: int
    over_s: float | None


class _Gap(msgspec.Struct, frozen=True):
    stream: str
    first: int
    last: int
    why: str


class Tables:
    """Asks the projector."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def ask(self, sql: str, **parameters: Any) -> tuple[list[dict[str, Any]], dict[str, str]]:
        """The rows of a statement, and the headers of the answer.

        Raises:
            TablesUnanswered: nobody answers, or the statement was refused.
        """
        body = msgspec.json.encode({"sql": sql, "parameters": parameters, "format": "json"})
        try:
            answer = await self._connection.nc.request(SQL, body, timeout=_TIMEOUT_S)
        except driver.NoRespondersError as exc:
            raise TablesUnanswered("no projector answers") from exc
        except (driver.Error, TimeoutError) as exc:
            raise TablesUnanswered(f"the projector did not answer within {_TIMEOUT_S:g} s") from exc
        headers = answer.headers or {}
        if refusal := headers.get("Nats-Service-Error"):
            raise TablesUnanswered(f"the projector refused: {refusal}")
        try:
            return msgspec.json.decode(answer.data, type=Rows).rows, headers
        except msgspec.DecodeError as exc:
            raise TablesUnanswered(f"expected rows as JSON from {SQL}, got: {answer.data[:80]!r}") from exc

    async def errors(self, now: datetime, limits: Monitor) -> tuple[tuple[ErrorSeen, ...], int, float]:
        """The failures of lately by fingerprint; and how far the tables are behind, in events and seconds."""
        since = now - timedelta(seconds=limits.lately)
        before = since - timedelta(seconds=limits.lately * _WINDOWS)
        rows, headers = await self.ask(
            f"{_ERRORS_SQL} LIMIT {_ERRORS}", since=timestamp(since), before=timestamp(before)
        )
        found = []
        for row in _read(rows, _Error):
            windows = max(1.0, (row.over_s or 0.0) / limits.lately)
            found.append(
                ErrorSeen(
                    fingerprint=row.fingerprint,
                    role=row.path,
                    kind=row.kind,
                    message=row.message,
                    first_at=row.first_at
                    if row.first_at.tzinfo is not None
                    else row.first_at.replace(tzinfo=now.tzinfo),
                    last_seq=row.last_seq,
                    lately=row.lately,
                    usual=round(row.earlier / windows, 3),
                )
            )
        return tuple(found), int(headers.get(LAG_EVENTS, "0")), float(headers.get(LAG_SECONDS, "0"))

    async def gaps(self) -> tuple[GapSeen, ...]:
        """Sequences that the archive lacks between its segments, and segments that cannot be read."""
        rows, _ = await self.ask(_GAPS_SQL)
        return tuple(
            GapSeen(stream=row.stream, first=row.first, last=row.last, why=row.why) for row in _read(rows, _Gap)
        )


def timestamp(at: datetime) -> str:
    """A moment as a timestamp of the tables: UTC, without an offset."""
    return at.replace(tzinfo=None).isoformat(sep=" ")


def _read(rows: list[dict[str, Any]], kind: type[T]) -> list[T]:
    try:
        return [msgspec.convert(row, kind, strict=False) for row in rows]
    except msgspec.ValidationError as exc:
        raise TablesUnanswered(f"the projector's answer has another shape: {exc}") from exc

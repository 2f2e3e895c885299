"""What needs the stream INVOCATIONS, and from which sequence on: read from the tables, the files and the server."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import msgspec

from bus import subjects
from bus.connection import Connection
from bus.store import INVOCATIONS
from projections.archive import manifest, register
from projections.archive.trim import Hold
from projections.quoting import quoted

#: What a holder's clock may be ahead of the server's: the windows that its claim names begin by its own clock.
_SKEW = timedelta(hours=1)


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of tables and files."""

    #: When the stream was created, and its first sequence.
    created: str
    first: int
    now: datetime
    #: Seconds that messages stay at least.
    hot_s: float
    #: When the longest window began that a cap counts over; None for no cap.
    window: datetime | None
    #: Store that must have copies; empty for none.
    store: str

    @property
    def before(self) -> datetime:
        """Messages younger than this stay."""
        return self.now - timedelta(seconds=self.hot_s)


def reach(connection: duckdb.DuckDBPyConnection, stream: str, created: str) -> int:
    """The last sequence of a stream that is in a file, with all before it; 0 for none."""
    return manifest.reach(entry.segment for entry in register.entries(connection, stream, created))


def of_tables(connection: duckdb.DuckDBPyConnection, root: Path, query: Query) -> tuple[Hold, ...]:
    """What tables and files hold."""
    entries = register.entries(connection, INVOCATIONS, query.created)
    archived = manifest.reach(entry.segment for entry in entries if not entry.problem)
    found = [
        Hold(kind="archived", lets_go=archived, what=f"files of the archive cover INVOCATIONS up to {archived:,}"),
        _until(
            connection, root, query, query.before, "hot", f"messages since {query.before:%Y-%m-%d %H:%M} UTC are hot"
        ),
    ]
    if query.store:
        copied = manifest.reach(e.segment for e in entries if not e.problem and e.copied_to == query.store)
        found.append(Hold(kind="copied", lets_go=copied, what=f"{query.store} has proven copies up to {copied:,}"))
    if query.window is not None:
        begun = f"a cap on spend counts since {query.window:%Y-%m-%d %H:%M} UTC"
        found.append(_until(connection, root, query, query.window - _SKEW, "window", begun))
    unfinished = _unfinished(connection, min(hold.lets_go for hold in found))
    if unfinished is not None:
        seq, id_ = unfinished
        found.append(
            Hold(kind="unfinished", lets_go=seq - 1, what=f"run tree {id_} has unfinished work, or a dead letter")
        )
    return tuple(found)


def _until(
    connection: duckdb.DuckDBPyConnection, root: Path, query: Query, moment: datetime, kind: str, what: str
) -> Hold:
    """The last sequence such that it and all before it were stored before a moment."""
    at = moment.astimezone(UTC).replace(tzinfo=None)
    entries = register.entries(connection, INVOCATIONS, query.created)
    younger = (e.segment for e in entries if e.segment.last_at >= moment and not e.problem)
    first = next(younger, None)
    log = "SELECT seq FROM hot.log WHERE stream = $stream AND stored_at >= $moment"
    if first is not None:
        file = quoted(root / first.key)
        log += f" UNION ALL SELECT seq FROM read_parquet({file}, hive_partitioning = false) WHERE stored_at >= $moment"  # noqa: S608 (our own file)
    row = connection.execute(f"SELECT min(seq) FROM ({log})", {"stream": INVOCATIONS, "moment": at}).fetchone()  # noqa: S608
    archived = manifest.reach(entry.segment for entry in entries)
    return Hold(kind=kind, lets_go=row[0] - 1 if row is not None and row[0] is not None else archived, what=what)


def _unfinished(connection: duckdb.DuckDBPyConnection, up_to: int) -> tuple[int, str] | None:
    """The first sequence, up to one, of a run tree with unfinished work, and the tree's root; None for none.

    A tree counts from its oldest member, finished or not: depth, repetitions and spend of a tree are counted over all of it.
    """
    row = connection.execute(
        """
        WITH live AS (
            SELECT DISTINCT coalesce(nullif(root, ''), id) AS root FROM hot.invocations
            WHERE state NOT IN ('completed', 'cancelled', 'discarded')
        )
        SELECT min(first_seq), arg_min(coalesce(nullif(i.root, ''), i.id), first_seq)
        FROM invocations AS i WHERE first_seq <= $up_to AND coalesce(nullif(i.root, ''), i.id) IN (SELECT root FROM live)
        """,
        {"up_to": max(0, up_to)},
    ).fetchone()
    return None if row is None or row[0] is None else (row[0], row[1])


async def of_consumers(connection: Connection, stream: str) -> list[Hold]:
    """What durable consumers have not handled yet. Ones that are not durable belong to readers that begin where they are.

    A role's consumer does not count: it hands out work, and unfinished work holds by itself.

    Raises:
        BusError: the server does not answer.
    """
    found: list[Hold] = []
    offset = 0
    while True:
        page: dict[str, Any] = await connection.api(f"CONSUMER.LIST.{stream}", {"offset": offset})
        for info in page.get("consumers") or []:
            behind = info["num_pending"] + info["num_ack_pending"]
            if info["config"].get("durable_name") and behind and not _of_role(info["config"]):
                name, floor = info["name"], info["ack_floor"]["stream_seq"]
                what = f"consumer {name} has {behind:,} messages to handle, from {floor + 1:,} on"
                found.append(Hold(kind="consumer", lets_go=floor, what=what))
        offset += len(page.get("consumers") or [])
        if offset >= page["total"] or not page.get("consumers"):
            return found


def _of_role(config: dict[str, Any]) -> bool:
    tokens = str(config.get("filter_subject", "")).split(".")
    if len(tokens) != 5 or tokens[3:] != ["*", "requested"]:
        return False
    return bool(config["durable_name"] == subjects.role_consumer(tokens[1], tokens[2]))

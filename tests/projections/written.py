"""A log that a test writes event by event, as tables: real envelopes, decoded and folded as the projector does it."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import msgspec
import pyarrow as pa

from bus import envelope as ce
from bus.author import Author
from bus.events import invocation as ev
from bus.ids import new_id
from bus.store import CONTROL, DEAD_LETTERS, INVOCATIONS
from bus.subjects import Ref
from bus.wire import Delivery
from projections import decode, fold

#: When the log begins.
START = datetime(2026, 11, 23, 3, 0, tzinfo=UTC)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STREAMS = {"inv": INVOCATIONS, "ctl": CONTROL, "dlq": DEAD_LETTERS}


class Written:
    """The log so far. Each event is one second after the one before, unless the test lets time pass."""

    def __init__(self, start: datetime = START) -> None:
        self.time = start
        self.author = Author("/test/1", actor="test", clock=self)
        self.deliveries: dict[str, list[Delivery]] = {}
        self._seqs: Counter[str] = Counter()

    def now(self) -> datetime:
        """The log's own time."""
        return self.time

    def monotonic(self) -> float:
        """Seconds of it."""
        return (self.time - START).total_seconds()

    def wait(self, **span: float) -> None:
        """Let time pass."""
        self.time += timedelta(**span)

    def invocation(self, ref: Ref, *events: Any, **more: str) -> None:
        """Append events of an invocation."""
        for event in events:
            self.put(self.author.invocation(ref, event, **more))

    def control(self, id_: str, *events: Any) -> None:
        """Append events of CONTROL."""
        for event in events:
            self.put(self.author.control(id_, event))

    def put(self, event: ce.Envelope) -> None:
        """Append an envelope."""
        self.raw(event.subject, ce.encode(event))

    def raw(self, subject: str, data: bytes) -> None:
        """Append whatever it is."""
        stream = _STREAMS[subject.partition(".")[0]]
        self._seqs[stream] += 1
        stored = (self.time - _EPOCH) // timedelta(microseconds=1) * 1000
        seq = self._seqs[stream]
        self.deliveries.setdefault(stream, []).append(Delivery(subject, data, "", seq, 1, seq, stored, 0))
        self.wait(seconds=1)

    def done(self, role: str = "shop/coder", tokens: int = 100, **more: Any) -> Ref:
        """A whole invocation that completes."""
        ref = self.asked(role, **more)
        claim = claimed()
        self.invocation(ref, claim)
        usage = ev.Usage(input_tokens=tokens, output_tokens=tokens // 10, model="trace")
        self.invocation(ref, ev.Completed(holder=claim.holder, delivery=1, usage=usage, duration_ms=1000))
        return ref

    def asked(self, role: str = "shop/coder", **more: Any) -> Ref:
        """An invocation that waits."""
        project, _, name = role.partition("/")
        ref = Ref(project, name, new_id())
        self.invocation(ref, ev.Requested(**({"root": ref.id} | more)), root=more.get("root", ""))
        return ref

    def moment(self, stored_ns: int) -> datetime:
        """The server's time of a message."""
        return _EPOCH + timedelta(microseconds=stored_ns // 1000)

    def until(self, at: datetime) -> Written:
        """The log as it was at a moment."""
        so_far = Written()
        for stream, deliveries in self.deliveries.items():
            kept = [delivery for delivery in deliveries if self.moment(delivery.stored_ns) <= at]
            if kept:
                so_far.deliveries[stream] = kept
        return so_far

    def rows(self) -> pa.Table:
        """The whole log as rows."""
        return pa.concat_tables([decode.decode(stream, all_) for stream, all_ in self.deliveries.items()])

    def tables(self, connection: duckdb.DuckDBPyConnection | None = None) -> duckdb.DuckDBPyConnection:
        """All tables, in memory or in a connection's database."""
        if connection is None:
            connection = duckdb.connect()
            connection.execute("SET TimeZone = 'UTC'")
        fold.create(connection)
        connection.register("batch", self.rows())
        fold.apply(connection)
        fold.append(connection)
        connection.unregister("batch")
        return connection


def claimed(holder: str = "boot-1", attempt: int = 1, **more: Any) -> ev.Claimed:
    """A claim."""
    return ev.Claimed(
        holder=holder, runner="agent_runner-1@vm", delivery=attempt, attempt=attempt, reply="$JS.ACK.x", **more
    )


def failed(kind: str = "exit_1", message: str = "it broke", **more: Any) -> ev.Failed:
    """A failed attempt."""
    error = ev.Error(kind=kind, message=message, fingerprint=f"{abs(hash(kind)):012x}"[:12])
    return msgspec.structs.replace(ev.Failed(holder="boot-1", delivery=1, attempt=1, error=error), **more)

"""The tables, folded once more by other means: plain dicts and :func:`bus.invocation.evolve`, one message after the other.

Shares no line with the SQL and none with the decoder of the projections: it reads messages with :func:`bus.store.read`, as
the daemons do. What both agree on, on any history, is what the tables promise.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from bus import store
from bus.events import daemon, deadletter, freeze, guard, loop, quota
from bus.events import invocation as ev
from bus.invocation import Invocation, evolve
from bus.store import Recorded
from bus.wire import Delivery
from tests.projections.care_oracle import Care

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RESOLVES = {ev.Redriven: "redriven", ev.Discarded: "discarded", ev.Cancelled: "cancelled"}
_NO_CLAIM = (ev.Scheduled, ev.Redriven, ev.Discarded)

#: Columns of a claim that its end fills.
_END = (
    "ended_seq",
    "ended_at",
    "outcome",
    "reason",
    "duration_ms",
    "input_tokens",
    "output_tokens",
    "model",
    "error_kind",
    "error_fingerprint",
    "error_message",
    "retry_at",
    "settled_tokens",
    "settled_usd_micros",
    "assumed",
)

Row = dict[str, Any]
Key = tuple[Any, ...]


def plain(moment: datetime | None) -> datetime | None:
    """A time as tables have it: UTC, without saying so."""
    return None if moment is None else moment.astimezone(UTC).replace(tzinfo=None)


class Oracle:
    """Everything that the log says, in dicts by key."""

    def __init__(self) -> None:
        self.states: dict[Key, Invocation] = {}
        self.invocations: dict[Key, Row] = {}
        self.claims: dict[int, Row] = {}
        self.standing: dict[Key, int] = {}
        self.spend: dict[Key, Row] = {}
        self.dead_letters: dict[int, Row] = {}
        self.trips: dict[Key, Row] = {}
        self.daemons: dict[str, Row] = {}
        self.care = Care()
        self.rejected: dict[Key, str] = {}

    def read(self, stream: str, deliveries: Iterable[Delivery]) -> None:
        """Fold messages of one stream, in their order."""
        for delivery in deliveries:
            stored_at = _EPOCH + timedelta(microseconds=delivery.stored_ns // 1000)
            record = store.read(delivery.seq, delivery.subject, stored_at, delivery.data)
            if record.event is None:
                self.rejected[stream, record.seq] = record.problem
            elif delivery.subject.startswith("inv."):
                self._invocation(record)
            elif delivery.subject.startswith("dlq."):
                self._kept(record)
            else:
                self._control(stream, record)
                self.care.take(record)

    def _invocation(self, record: Recorded) -> None:
        _, project, role, id_, event = record.subject.split(".")
        key = (project, role, id_)
        data = record.data
        assert record.event is not None
        state = evolve(self.states.get(key), data, record.seq, record.stored_at)
        self.states[key] = state
        row = self.invocations.setdefault(
            key,
            {"project": project, "role": role, "id": id_, "first_seq": record.seq}
            | {"requested_at": plain(record.stored_at), "actor": record.event.actor}
            | dict.fromkeys(("first_claimed_at", "last_claimed_at", "claimed_seq", "error_seq"), None)
            | dict.fromkeys(("registry_revision", "prompt_digest", "due"), None)
            | dict.fromkeys(("attempts", "releases", "deliveries", "run_us", "unsettled_input_tokens"), 0)
            | dict.fromkeys(
                ("unsettled_output_tokens", "settled_tokens", "settled_usd_micros", "assumed_usd_micros"), 0
            ),
        )
        self._count(row, record)
        row |= {
            "state": state.status.value,
            "reason": getattr(data, "reason", ""),
            "since": plain(record.stored_at),
            "retry_at": plain(state.retry_at),
            "errors": state.errors,
            "crashes": state.crashes,
            "redrives": state.redrives,
            "generation": state.request.generation,
            "holder": state.claim.holder if state.claim else "",
            "runner": state.claim.runner if state.claim else "",
            "input_tokens": state.usage.input_tokens,
            "output_tokens": state.usage.output_tokens,
            "model": state.usage.model,
            "error_kind": state.error.kind if state.error else None,
            "error_fingerprint": state.error.fingerprint if state.error else None,
            "error_message": state.error.message if state.error else None,
            "parent": state.request.parent,
            "root": state.request.root or id_,
            "depth": state.request.depth,
            "schedule": state.request.schedule,
            "last_seq": record.seq,
            "requested_seq": state.requested_seq,
        }
        if isinstance(data, ev.Scheduled | ev.Requested):
            row["due"] = plain(data.due)
        self._claim(key, record, event)
        self._use(key, record)
        self._death(key, record)

    def _count(self, row: Row, record: Recorded) -> None:
        data = record.data
        usage, settled = getattr(data, "usage", ev.Usage()), getattr(data, "settled", None)
        if isinstance(data, ev.Claimed):
            row["attempts"] += 1
            row["deliveries"] = data.delivery
            row["first_claimed_at"] = row["first_claimed_at"] or plain(record.stored_at)
            row |= {"last_claimed_at": plain(record.stored_at), "claimed_seq": record.seq}
            row |= {"registry_revision": data.registry_revision, "prompt_digest": data.prompt_digest}
        row["releases"] += isinstance(data, ev.Released)
        if isinstance(data, ev.Failed):
            row["error_seq"] = record.seq
        if isinstance(data, ev.Completed | ev.Failed):
            row["run_us"] += _rounded(data.duration_ms * 1000)
            if settled is None:
                row["unsettled_input_tokens"] += usage.input_tokens
                row["unsettled_output_tokens"] += usage.output_tokens
        if isinstance(data, ev.Swept):
            row["run_us"] += _rounded(data.age_s * 1_000_000)
        if settled is not None:
            row["settled_tokens"] += max(0, settled.tokens)
            row["settled_usd_micros"] += max(0, settled.usd_micros)
            row["assumed_usd_micros"] += max(0, settled.usd_micros) if settled.assumed else 0

    def _claim(self, key: Key, record: Recorded, event: str) -> None:
        data = record.data
        if isinstance(data, _NO_CLAIM):
            return
        standing = self.standing.pop(key, None)
        if standing is not None:
            error, settled = getattr(data, "error", None), getattr(data, "settled", None)
            usage = data.usage if isinstance(data, ev.Completed | ev.Failed) else None
            self.claims[standing] |= {
                "ended_seq": record.seq,
                "ended_at": plain(record.stored_at),
                "outcome": event,
                "reason": getattr(data, "reason", None),
                "duration_ms": getattr(data, "duration_ms", None),
                "input_tokens": usage.input_tokens if usage else None,
                "output_tokens": usage.output_tokens if usage else None,
                "model": usage.model if usage else None,
                "error_kind": error.kind if error else None,
                "error_fingerprint": error.fingerprint if error else None,
                "error_message": error.message if error else None,
                "retry_at": plain(getattr(data, "retry_at", None)),
                "settled_tokens": settled.tokens if settled else None,
                "settled_usd_micros": settled.usd_micros if settled else None,
                "assumed": settled.assumed if settled else None,
            }
        if isinstance(data, ev.Claimed):
            assert record.event is not None
            self.standing[key] = record.seq
            hold = data.hold
            self.claims[record.seq] = dict.fromkeys(
                _END,
                None,
            ) | {
                "project": key[0],
                "role": key[1],
                "id": key[2],
                "root": record.event.correlationid or key[2],
                "claimed_seq": record.seq,
                "claimed_at": plain(record.stored_at),
                "attempt": data.attempt,
                "delivery": data.delivery,
                "holder": data.holder,
                "runner": data.runner,
                "registry_revision": data.registry_revision,
                "prompt_digest": data.prompt_digest,
                "hold_tokens": hold.tokens if hold else None,
                "hold_usd_micros": hold.usd_micros if hold else None,
            }

    def _use(self, key: Key, record: Recorded) -> None:
        data = record.data
        settled = getattr(data, "settled", None)
        told = isinstance(data, ev.Completed | ev.Failed)
        if not told and settled is None:
            return
        usage = data.usage if told else ev.Usage()
        moment = plain(record.stored_at)
        assert moment is not None
        hour = moment.replace(minute=0, second=0, microsecond=0)
        where = (hour, key[0], key[1], usage.model)
        row = self.spend.setdefault(
            where,
            dict(zip(("hour", "project", "role", "model"), where, strict=True))
            | dict.fromkeys(("ends", "input_tokens", "output_tokens", "unsettled_input_tokens"), 0)
            | dict.fromkeys(
                ("unsettled_output_tokens", "settled_tokens", "settled_usd_micros", "assumed_usd_micros"), 0
            )
            | {"first_seq": record.seq},
        )
        row["ends"] += 1
        row["input_tokens"] += usage.input_tokens
        row["output_tokens"] += usage.output_tokens
        row["last_seq"] = record.seq
        if settled is None:
            row["unsettled_input_tokens"] += usage.input_tokens
            row["unsettled_output_tokens"] += usage.output_tokens
        else:
            row["settled_tokens"] += max(0, settled.tokens)
            row["settled_usd_micros"] += max(0, settled.usd_micros)
            row["assumed_usd_micros"] += max(0, settled.usd_micros) if settled.assumed else 0

    def _death(self, key: Key, record: Recorded) -> None:
        data = record.data
        assert record.event is not None
        if type(data) in _RESOLVES:
            for row in self.dead_letters.values():
                there = (row["project"], row["role"], row["id"]) == key and row["died_at"] is not None
                if there and row["resolution"] is None:
                    row |= {"resolution": _RESOLVES[type(data)], "resolved_at": plain(record.stored_at)}
                    row |= {"resolved_seq": record.seq, "resolved_by": record.event.actor, "resolved_why": data.reason}
        if isinstance(data, ev.DeadLettered):
            row = self.dead_letters.setdefault(record.seq, _no_death(record.seq))
            row |= _death_of(key, data.reason, record.event.correlationid, data.error)
            row["died_at"] = plain(record.stored_at)

    def _kept(self, record: Recorded) -> None:
        data = record.data
        assert isinstance(data, deadletter.Kept)
        _, project, role, id_ = record.subject.split(".")
        row = self.dead_letters.get(data.died_seq)
        if row is None:
            row = self.dead_letters[data.died_seq] = _no_death(data.died_seq)
            row |= _death_of((project, role, id_), data.reason, data.request.root, data.error)
        row |= {"kept_at": plain(record.stored_at), "kept_seq": record.seq}

    def _control(self, stream: str, record: Recorded) -> None:
        data = record.data
        assert record.event is not None
        token = record.subject.split(".")[2]
        who = record.event.actor
        match data:
            case freeze.Frozen():
                self._trip(stream, record, "kill_switch", "system", token, data.reason, data.until, data.by or who)
            case quota.Tripped(key=key):
                reason = f"{data.used} of {data.cap} used of {key}"
                self._trip(stream, record, "quota", key.partition(".")[0], key, reason, data.until, who)
            case loop.Tripped():
                reason = f"{data.reason.value}: {data.count}, allowed are {data.limit}"
                self._trip(stream, record, "loop", f"tree {token}", token, reason, None, who)
            case guard.Paused(role=role):
                self._trip(stream, record, "pause", role, role, data.reason, data.until, who)
            case freeze.Thawed():
                self._clear(stream, record, "kill_switch", token, "thawed")
            case quota.Reset(key=key):
                self._clear(stream, record, "quota", key, "reset")
            case loop.Cleared():
                self._clear(stream, record, "loop", token, "cleared")
            case guard.Resumed(role=role):
                self._clear(stream, record, "pause", role, "resumed")
            case daemon.Started() | daemon.Stopped() | daemon.Exited() | daemon.GaveUp():
                self._daemon(token, record)
            case _:
                pass

    def _trip(
        self,
        stream: str,
        record: Recorded,
        guard_: str,
        scope: str,
        key: str,
        reason: str,
        until: datetime | None,
        actor: str,
    ) -> None:
        self.trips[stream, record.seq] = {
            "guard": guard_,
            "scope": scope,
            "key": key,
            "project": _project_of(record.data),
            "reason": reason,
            "tripped_at": plain(record.stored_at),
            "until": plain(until),
            "stream": stream,
            "seq": record.seq,
            "actor": actor,
            "cleared_at": None,
            "cleared_by": None,
            "cleared_seq": None,
        }

    def _clear(self, stream: str, record: Recorded, guard_: str, key: str, by: str) -> None:
        for row in self.trips.values():
            if (row["stream"], row["guard"], row["key"], row["cleared_seq"]) == (stream, guard_, key, None):
                row |= {"cleared_at": plain(record.stored_at), "cleared_by": by, "cleared_seq": record.seq}

    def _daemon(self, seat: str, record: Recorded) -> None:
        data = record.data
        at = plain(record.stored_at)
        row = self.daemons.setdefault(
            seat,
            {"seat": seat, "first_seq": record.seq, "starts": 0, "stops": 0, "exits": 0}
            | dict.fromkeys(("host", "boot_id", "pid", "version", "started_at", "exited_at", "exit_status"), None)
            | dict.fromkeys(("restart_in_s", "command"), None),
        )
        row |= {"daemon": data.daemon, "state": record.subject.split(".")[3], "since": at, "last_seq": record.seq}
        match data:
            case daemon.Started():
                row["starts"] += 1
                row |= {"host": data.host, "boot_id": data.boot_id, "pid": data.pid, "version": data.version}
                row["started_at"] = at
            case daemon.Stopped():
                row["stops"] += 1
            case daemon.Exited():
                row["exits"] += 1
                row |= {
                    "host": data.host,
                    "exited_at": at,
                    "exit_status": data.status,
                    "restart_in_s": data.restart_in_s,
                }
            case daemon.GaveUp():
                row |= {"host": data.host, "command": data.command}


def _rounded(micros: float) -> int:
    """Half a microsecond goes away from zero, as SQL rounds."""
    return int(Decimal(min(max(micros, -1e15), 1e15)).to_integral_value(ROUND_HALF_UP))


def _project_of(data: Any) -> str | None:
    """The project that an event on CONTROL names, alone or in front of a role."""
    project: str | None = getattr(data, "project", None)
    role = getattr(data, "role", None)
    return project if project is not None or not isinstance(role, str) or "/" not in role else role.partition("/")[0]


def _no_death(seq: int) -> Row:
    return {"died_seq": seq} | dict.fromkeys(
        ("died_at", "kept_at", "kept_seq", "resolution", "resolved_at", "resolved_seq", "resolved_by", "resolved_why"),
        None,
    )


def _death_of(key: Key, reason: str, root: str, error: ev.Error | None) -> Row:
    return {
        "project": key[0],
        "role": key[1],
        "id": key[2],
        "reason": str(reason),
        "root": root or key[2],
        "error_kind": error.kind if error else None,
        "error_fingerprint": error.fingerprint if error else None,
        "error_message": error.message if error else None,
    }

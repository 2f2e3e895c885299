"""What the bus consists of, as data: streams, buckets, and a consumer for each role.

``bus.plan`` compares this with the live server and changes what differs. A field that is not named here is the server's
own business and is left alone. Durations are nanoseconds, as in JetStream's API.
"""

from __future__ import annotations

from typing import Any

import msgspec

from bus import subjects
from bus.store import CONTROL, DEAD_LETTERS, INVOCATIONS

_S = 1_000_000_000
_DAY = 86_400 * _S

#: Seconds that a daemon's heartbeat is believed.
HEARTBEAT_TTL_S = 15

SCHEDULES = "SCHEDULES"
SPEND = "SPEND"
ADVISORIES = "ADVISORIES"


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    """A stream: its JetStream configuration, field by field."""

    name: str
    config: dict[str, Any]
    #: Why it is as it is; shown by `systems plan`.
    why: str = ""


class Consumer(msgspec.Struct, frozen=True, kw_only=True):
    """A durable pull consumer."""

    stream: str
    name: str
    config: dict[str, Any]


class Topology(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the bus consists of."""

    streams: tuple[Stream, ...]
    consumers: tuple[Consumer, ...] = ()


def _stream(name: str, subject_list: list[str], why: str, replicas: int, **config: Any) -> Stream:
    base: dict[str, Any] = {
        "subjects": subject_list,
        "retention": "limits",
        "storage": "file",
        "discard": "old",
        "num_replicas": replicas,
        "allow_direct": True,
        "duplicate_window": 120 * _S,
    }
    return Stream(name=name, config=base | config, why=why)


def _bucket(name: str, why: str, replicas: int, *, history: int = 1, **config: Any) -> Stream:
    # The shape that nats-py, the nats CLI and the server agree on for a key-value bucket (ADR-8).
    base = {
        "max_msgs_per_subject": history,
        "allow_rollup_hdrs": True,
        "deny_delete": True,
        "discard": "new",
    }
    return _stream(f"KV_{name}", [f"$KV.{name}.>"], why, replicas, **(base | config))


def streams(replicas: int = 1) -> tuple[Stream, ...]:
    """All streams and buckets."""
    return (*_event_streams(replicas), *_buckets(replicas))


def _event_streams(replicas: int) -> tuple[Stream, ...]:
    """The streams of events, counters, schedules and advisories."""
    return (
        _stream(
            INVOCATIONS,
            ["inv.>"],
            "the life of each invocation; only the archiver trims it",
            replicas,
            allow_atomic=True,
            max_age=0,
            max_bytes=-1,
        ),
        _stream(
            CONTROL,
            ["ctl.>"],
            "guards, daemons, incidents, registry changes; never frozen, never thinned",
            replicas,
            max_age=0,
            max_bytes=-1,
            max_msgs=-1,
            max_msgs_per_subject=-1,
            deny_delete=True,
            deny_purge=True,
        ),
        _stream(
            DEAD_LETTERS,
            ["dlq.>"],
            "whole copies of what was given up on; no max_age, so the backlog cannot expire unseen",
            replicas,
            max_msgs_per_subject=1,
            max_age=0,
        ),
        _stream(
            SPEND,
            ["spend.>"],
            "counters of tokens and money: a cache of the log",
            replicas,
            allow_msg_counter=True,
            max_msgs_per_subject=1,
        ),
        _stream(
            SCHEDULES,
            ["sched.>", "tick.>"],
            "the server's own schedules and their ticks",
            replicas,
            allow_msg_schedules=True,
            allow_msg_ttl=True,
            allow_rollup_hdrs=True,
        ),
        _stream(
            "DRILL",
            ["drill.>"],
            "what drills write, to prove that the kill switch stops it",
            replicas,
            max_msgs=10_000,
            max_bytes=-1,
            max_age=7 * _DAY,
        ),
        _stream(
            ADVISORIES,
            ["$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.>", "$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.>"],
            "what the server says of deliveries given up on; consumer creations are left out on purpose",
            replicas,
            max_age=7 * _DAY,
        ),
    )


def _buckets(replicas: int) -> tuple[Stream, ...]:
    """All key-value buckets, and the object store."""
    ttl = HEARTBEAT_TTL_S * _S
    return (
        _bucket("flags", "the kill switch", replicas, history=64),
        _bucket(
            "registry",
            "roles, prompts, projects and settings, hot-reloaded; its sequence is the revision of the fleet's configuration",
            replicas,
            history=64,
            # A change of several keys is one batch: whole or not at all.
            allow_atomic=True,
        ),
        _bucket("trips", "guards that have tripped, and refuse until they are cleared", replicas, history=8),
        _bucket("schedules", "the last due time that was handled of each schedule", replicas),
        _bucket(
            "liveness",
            "heartbeats that expire",
            replicas,
            allow_msg_ttl=True,
            # A TTL shorter than this is raised to it, so it is no longer than the heartbeat's own.
            subject_delete_marker_ttl=ttl,
        ),
        _stream(
            "OBJ_artifacts",
            ["$O.artifacts.C.>", "$O.artifacts.M.>"],
            "inputs, outputs and logs too large for an event",
            replicas,
            discard="new",
            allow_rollup_hdrs=True,
        ),
    )


def role_consumer(project: str, role: str, *, ack_wait_s: float, max_deliver: int, max_ack_pending: int) -> Consumer:
    """The durable pull consumer that hands a role's work items to runners."""
    return Consumer(
        stream=INVOCATIONS,
        name=subjects.role_consumer(project, role),
        config={
            "filter_subject": subjects.role_requests(project, role),
            "deliver_policy": "all",
            "ack_policy": "explicit",
            "replay_policy": "instant",
            "ack_wait": int(ack_wait_s * _S),
            "max_deliver": max_deliver,
            "max_ack_pending": max_ack_pending,
            "max_waiting": 512,
        },
    )


def service_consumer(stream: str, name: str, filter_subject: str, *, ack_wait_s: float = 30.0) -> Consumer:
    """A durable pull consumer of one of our own services: at least once, in order of arrival."""
    return Consumer(
        stream=stream,
        name=name,
        config={
            "filter_subject": filter_subject,
            "deliver_policy": "all",
            "ack_policy": "explicit",
            "replay_policy": "instant",
            "ack_wait": int(ack_wait_s * _S),
            "max_deliver": -1,
            "max_ack_pending": 1000,
        },
    )


#: The monitor's: ticks that ask for a sweep.
MONITOR_TICKS = service_consumer(SCHEDULES, "monitor_ticks", "tick.monitor.>")

#: The incident handler's: what affected projects are told of.
INCIDENT_NEWS = service_consumer(CONTROL, "incident_news", "ctl.incident.>")

#: Consumers of the warden: dead letters to copy, ticks to turn into requests, advisories to act on.
SERVICE_CONSUMERS: tuple[Consumer, ...] = (
    service_consumer(INVOCATIONS, "warden_dead_letters", "inv.*.*.*.dead_lettered"),
    service_consumer(SCHEDULES, "warden_ticks", "tick.>"),
    service_consumer(ADVISORIES, "warden_advisories", "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.>"),
    MONITOR_TICKS,
    INCIDENT_NEWS,
)

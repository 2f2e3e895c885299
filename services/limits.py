"""What is bounded, what is not promised, and what stays with a person: sentences made from the constants that the code uses.

Each fact is written where its number comes from, so that none can be changed without the other. Shown by `systems limits`.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import msgspec

from bus import artifacts, connection, gate, liveness, topology, wire
from bus.server import Options
from bus.store import CONTROL, DEAD_LETTERS, INVOCATIONS
from services.fleet import reading, spec
from services.fleet.daemons import Restart
from services.fleet.slack import Slack
from services.requests import requests
from services.runner import attempt, handler
from services.runner.handlers import childlog
from services.runner.handlers.exec import PERMANENT_EXITS
from services.slack.channel import WAITING
from services.warden import freeze


class Kind(StrEnum):
    """What sort of fact it is."""

    PERSON = "stays with a person"
    BOUND = "bounded by code"
    UNPROMISED = "not promised"


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """One limit."""

    kind: Kind
    #: What it is about, in one or two words.
    topic: str
    sentence: str


def facts() -> tuple[Fact, ...]:
    """All of them, in the order in which they are shown."""
    return (*_person(), *_bounds(), *_unpromised())


def _person() -> list[Fact]:
    restart = Restart()
    role = spec.Role(handler=spec.FunctionHandler(target="module:callable"))
    config = {stream.name: stream.config for stream in topology.streams()}
    assert config[DEAD_LETTERS]["max_age"] == 0  # the sentence below says so
    assert config[CONTROL]["deny_purge"]
    sentences = {
        "daemons": f"A daemon that exits more than {restart.exits} times within {_time(restart.period)} (unless the fleet file says "
        "otherwise) stays down until a person runs `systems start NAME`.",
        "runners": "A runner never restarts itself, and nothing that runs inside it can make it: the launcher does, or a person.",
        "dead letters": f"What was given up on, by default after {role.max_attempts} errors or {role.max_crashes} crashes, waits in "
        f"{DEAD_LETTERS} without end until a person runs `systems dlq redrive` or `systems dlq discard`.",
        "orphans": "Work of a role with idempotent = false whose holder is gone is never run again by itself: a person decides.",
        "shape of the bus": "A change of the bus that would lose messages is not made without `systems apply --allow-destructive`, "
        "and the consumer of a role that is gone is not removed while work waits on it.",
        "hard freezes": "A hard freeze is cleared by a person's login only, with a typed word: `systems thaw --hard`. "
        "No daemon's login may write its flag but slack_hard, for people whom `[slack.permissions] hard` names; it names nobody unless "
        "the fleet file says so.",
        "stopped trees": "A run tree that the loop breaker has stopped stays so until a person runs `systems loop clear ROOT`; "
        "its queued work waits among the dead letters.",
        "incidents": "An incident stays open until a person closes it, and calls people until one acknowledges it; without an escalation "
        "policy in the fleet file it calls nobody.",
        "the record": f"{CONTROL} cannot be purged or edited by anybody, not by a person either.",
    }
    return [Fact(kind=Kind.PERSON, topic=topic, sentence=sentence) for topic, sentence in sentences.items()]


def _bounds() -> list[Fact]:
    role = spec.Role(handler=spec.FunctionHandler(target="module:callable"))
    schedule = spec.Schedule(cron="@hourly")
    loop = spec.LoopLimits()
    needed = ".".join(map(str, connection.NEEDED))
    sentences = {
        "silent holders": f"A holder that is silent keeps its claim for ack_wait, at most {_time(spec.MAX_ACK_WAIT_S)}; one whose "
        f"heartbeat (every {_time(liveness.BEAT_S)}) has been missing for {_time(topology.HEARTBEAT_TTL_S)} loses it at once.",
        "attempts": f"One attempt may take {_time(role.timeout)} and be without progress for {_time(role.progress_timeout)}, unless "
        "its role says otherwise; after that it is stopped and counted as failed.",
        "deliveries": f"The server delivers a request at most max_attempts + max_crashes + 1 times, by default "
        f"{role.limits.max_deliver}.",
        "freezes": f"A client that cannot read the kill switch for {_time(gate.STALE_S)} refuses to write; a daemon has "
        f"{_time(freeze.RECEIPT_S)} for its receipt; a thaw waits {_time(freeze.SETTLE_S)} for runners to settle what they hold.",
        "run trees": f"A run tree may be {loop.depth} deep, make {loop.fan_out:,} requests from one invocation and {loop.descendants:,} in "
        f"all, ask a role for the same input {loop.same_input} times, and let two roles answer one another {loop.ping_pong} times, unless "
        "the fleet file says otherwise.",
        "caps": "A claim under a cap reserves its declared maximum first, so caps are not passed by work that runs at the same time; "
        "a handler that reports more than it declared is stopped then, and what it reported counts.",
        "follow-ups": f"A completion carries at most {handler.FOLLOW_UP_LIMIT:,} follow-up requests: an atomic batch holds "
        f"{wire.BATCH_LIMIT:,} messages.",
        "input": f"Input over {_bytes(requests.INLINE_LIMIT)} goes to the artifacts; over {_bytes(requests.INPUT_LIMIT)} it is refused.",
        "output": f"Output over {_bytes(attempt.OUTPUT_LIMIT)} goes to the artifacts, which take up to {_bytes(artifacts.LIMIT)} each.",
        "child logs": f"Of each stream of an exec handler up to {_bytes(childlog.WHOLE_LIMIT)} are kept; beyond that the middle is dropped.",
        "exit codes": f"An exec handler's exit codes {', '.join(map(str, sorted(PERMANENT_EXITS)))} are permanent errors; others are tried again.",
        "prompts": f"A prompt holds at most {_bytes(reading.PROMPT_LIMIT)}.",
        "schedules": f"A due time that nobody handled within {_time(schedule.catch_up)}, unless its schedule says otherwise, is missed, "
        "and reported as missed; of several only the last is run.",
        "Slack": f"One channel gets {Slack().per_second:g} message a second and, when more than {Slack().burst} wait for it, those that are "
        f"alike as one, unless the fleet file says otherwise; for a channel that takes nothing {WAITING:,} wait, beyond which only what is "
        "urgent does.",
        "server": f"The NATS server must be {needed} or newer, for its {connection.FEATURE}.",
    }
    return [Fact(kind=Kind.BOUND, topic=topic, sentence=sentence) for topic, sentence in sentences.items()]


def _unpromised() -> list[Fact]:
    sentences = {
        "the outside": "Towards the outside world work is done at least once: a handler may run again after a crash whose effects "
        "are already out there. Only the log's own effects are exactly once.",
        "freezes and the outside": "A freeze stops writes to the bus and what asks the gate; what a running handler does outside "
        "without asking goes on, and what it did is not undone.",
        "loops": "Loops other than too deep ones are found some milliseconds after the event that passed the limit, and not while the "
        "warden is away.",
        "threads": "A function handler that runs in a thread cannot be stopped from outside: when it is called off only its result "
        "is refused, and the thread runs on.",
        "idempotency keys": f"A key is remembered as long as {INVOCATIONS} holds its invocation, and no longer.",
        "Slack": "An event stands once in its channel as long as Slack shows a message in its history within seconds after it has taken it: "
        "where Slack breaks off the answer and shows it only later, it can stand twice.",
        "progress notes": "Progress notes and other plain NATS messages are not kept: who does not listen does not see them.",
    }
    if not Options(store_dir=Path()).sync_always:
        sentences["power failure"] = (
            "The embedded server does not flush every write to the disk: a power failure can lose what was acknowledged within the "
            "last two minutes. A killed process or server loses nothing."
        )
    return [Fact(kind=Kind.UNPROMISED, topic=topic, sentence=sentence) for topic, sentence in sentences.items()]


def _time(seconds: float) -> str:
    if seconds >= 60 and seconds % 60 == 0:
        minutes = seconds / 60
        return f"{minutes:g} minute{'' if minutes == 1 else 's'}"
    return f"{seconds:g} seconds"


def _bytes(count: int) -> str:
    for unit, size in (("MiB", 1024 * 1024), ("KiB", 1024)):
        if count >= size and count % size == 0:
            return f"{count // size:,} {unit}"
    return f"{count:,} bytes"

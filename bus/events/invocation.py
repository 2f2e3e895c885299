"""The life of an invocation, as events on ``inv.<project>.<role>.<id>.<event>``."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from bus.events.moment import Moment

EMPTY = msgspec.Raw(b"null")


class ArtifactRef(msgspec.Struct, frozen=True, kw_only=True):
    """Where something too large for an event lies in the object store ``artifacts``."""

    #: Object name: ``<project>/<role>/<invocation id>/<name>``.
    name: str
    #: Bytes.
    size: int
    #: ``sha-256:<hex>`` of the content.
    digest: str
    media_type: str = "application/octet-stream"


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What a handler used up. Tokens are counts; the money is computed from them by a price table."""

    input_tokens: int = 0
    output_tokens: int = 0
    #: The model that was called, as the provider names it.
    model: str = ""

    def __add__(self, other: Usage) -> Usage:
        """Both uses together; the later model's name is kept."""
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            model=other.model or self.model,
        )


class Error(msgspec.Struct, frozen=True, kw_only=True):
    """Why an attempt failed."""

    #: Class of the error as the handler names it: ``TimeoutError``, ``http_503``, ``exit_1``.
    kind: str
    #: One sentence for a person; at most 2,000 characters.
    message: str
    #: Groups errors of one cause: digits, ids and addresses are taken out before hashing.
    fingerprint: str
    #: True: no retry can help.
    permanent: bool = False
    #: Traceback or the tail of stderr; at most 4,000 characters.
    detail: str = ""


class Hold(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a claim has reserved on the spend caps that cover it, before its handler may spend anything."""

    id: str
    #: The most that the attempt may use.
    tokens: int = 0
    #: Millionths of a US dollar.
    usd_micros: int = 0
    #: Counters that it was reserved on: ``<scope>.<unit>.<window>``, see :mod:`bus.spend`.
    keys: tuple[str, ...] = ()


class Settlement(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of a claim's hold: part of the event that ends the claim, and so exactly once."""

    hold: Hold
    #: What was used.
    tokens: int = 0
    usd_micros: int = 0
    #: Registry revision of the prices that the money was computed with.
    prices: int = 0
    #: True: the holder died or was cut off, and nobody knows what it used; the whole hold counts.
    assumed: bool = False


class SweepReason(StrEnum):
    """Why a claim was taken from its holder."""

    HOLDER_GONE = "holder_gone"
    HOLDER_REPLACED = "holder_replaced"
    ACK_WAIT = "ack_wait"


class ReleaseReason(StrEnum):
    """Why work went back to the queue at nobody's fault."""

    DRAIN = "drain"
    FREEZE = "freeze"
    QUOTA = "quota"
    LOST_DELIVERY = "lost_delivery"
    LOST_RETRY = "lost_retry"


class DeathReason(StrEnum):
    """Why an invocation was given up on."""

    ATTEMPTS_SPENT = "attempts_spent"
    CRASHES_SPENT = "crashes_spent"
    DELIVERIES_SPENT = "deliveries_spent"
    PERMANENT_ERROR = "permanent_error"
    NOT_IDEMPOTENT = "not_idempotent"
    #: Its run tree was stopped by the loop breaker, or by the tree's spend cap.
    TREE_STOPPED = "tree_stopped"


class Requested(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A role was asked to do work. This message is the work item that a runner pulls."""

    #: The input as JSON, untouched; ``null`` when it lies in `input_ref`.
    input: msgspec.Raw = EMPTY
    input_ref: ArtifactRef | None = None
    #: Id of the invocation that asked; empty for a person's or a schedule's request.
    parent: str = ""
    #: Id of the first invocation of the run tree (its own id at the root).
    root: str = ""
    #: Distance from the root.
    depth: int = 0
    idempotency_key: str = ""
    #: Name of the schedule that asked.
    schedule: str = ""
    #: When it was due, for a schedule's or a delayed request.
    due: Moment | None = None
    #: 0 for the first; a put-back or a redrive counts up. Above 0 the log holds earlier events to fold first.
    generation: int = 0


class Scheduled(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A request was accepted for later: nothing can claim it before `due`."""

    due: Moment
    request: Requested


class Claimed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A runner holds the invocation."""

    #: Boot id of the runner.
    holder: str
    #: Instance name of the runner, for people: ``agent_runner-1@host``.
    runner: str
    #: The server's delivery count of this request message, from 1.
    delivery: int
    #: Which try this is, from 1: errors and crashes so far, plus one.
    attempt: int
    #: Acknowledgement subject of the delivery: whoever NAKs it makes the server deliver again.
    reply: str
    #: KV revision of the role's registry entry that the work is done under.
    registry_revision: int = 0
    #: ``sha-256:<hex>`` of the prompt text; empty for a role without one.
    prompt_digest: str = ""
    #: What it has reserved on spend caps; None where no cap covers the role.
    hold: Hold | None = None


class Completed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The handler's result was accepted. Ends the invocation."""

    holder: str
    delivery: int
    output: msgspec.Raw = EMPTY
    output_ref: ArtifactRef | None = None
    usage: Usage = Usage()
    #: Milliseconds from the claim to the result.
    duration_ms: float = 0.0
    #: Ids of the invocations requested in the same atomic batch.
    follow_ups: tuple[str, ...] = ()
    artifacts: tuple[ArtifactRef, ...] = ()
    #: The end of what the handler logged; at most 4,000 characters.
    tail: str = ""
    settled: Settlement | None = None


class Failed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An attempt ended with an error. Waits for `retry_at`, or is followed by ``dead_lettered``."""

    holder: str
    delivery: int
    attempt: int
    error: Error
    #: None when no attempt is left.
    retry_at: Moment | None = None
    usage: Usage = Usage()
    duration_ms: float = 0.0
    artifacts: tuple[ArtifactRef, ...] = ()
    settled: Settlement | None = None


class Swept(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A claim was taken from a holder that is gone or silent. Counts as a crash."""

    holder: str
    delivery: int
    #: Seconds that the claim was held.
    age_s: float
    reason: SweepReason
    settled: Settlement | None = None


class Released(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Work went back to the queue at nobody's fault: costs no attempt."""

    reason: ReleaseReason
    holder: str = ""
    delivery: int = 0
    settled: Settlement | None = None


class Cancelled(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A person or a role called it off. Ends the invocation."""

    reason: str = ""
    settled: Settlement | None = None


class DeadLettered(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Given up on until a person redrives or discards it."""

    reason: DeathReason
    #: Errors counted so far.
    attempts: int = 0
    #: Deliveries that ended without a result.
    crashes: int = 0
    #: The last error, if one was seen.
    error: Error | None = None
    usage: Usage = Usage()
    settled: Settlement | None = None


class Redriven(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A person sent a dead letter back to work, with fresh attempts."""

    reason: str = ""


class Discarded(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A person gave a dead letter up for good. Ends the invocation."""

    reason: str = ""


InvocationEvent = (
    Scheduled
    | Requested
    | Claimed
    | Completed
    | Failed
    | Swept
    | Released
    | Cancelled
    | DeadLettered
    | Redriven
    | Discarded
)

EVENTS: dict[str, type[msgspec.Struct]] = {
    "scheduled": Scheduled,
    "requested": Requested,
    "claimed": Claimed,
    "completed": Completed,
    "failed": Failed,
    "swept": Swept,
    "released": Released,
    "cancelled": Cancelled,
    "dead_lettered": DeadLettered,
    "redriven": Redriven,
    "discarded": Discarded,
}

#: Struct -> event name, the last token of its subject.
NAMES: dict[type[msgspec.Struct], str] = {struct: name for name, struct in EVENTS.items()}

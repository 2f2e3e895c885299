"""What can be asked of an invocation, in the imperative; :func:`bus.invocation.decide` answers with facts."""

from __future__ import annotations

from datetime import datetime

import msgspec

from bus.events import invocation as ev


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """Take the work."""

    holder: str
    runner: str
    delivery: int
    reply: str
    registry_revision: int = 0
    prompt_digest: str = ""
    #: Reserved before; None where no cap covers the role.
    hold: ev.Hold | None = None


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What a held claim has used, in money. Its tokens are in the usage."""

    #: Millionths of a US dollar.
    usd_micros: int = 0
    #: Registry revision of the prices.
    prices: int = 0


class Complete(msgspec.Struct, frozen=True, kw_only=True):
    """Hand in the result. `follow_ups` are the ids requested in the same batch."""

    holder: str
    delivery: int
    output: msgspec.Raw = ev.EMPTY
    output_ref: ev.ArtifactRef | None = None
    usage: ev.Usage = ev.Usage()
    duration_ms: float = 0.0
    follow_ups: tuple[str, ...] = ()
    artifacts: tuple[ev.ArtifactRef, ...] = ()
    tail: str = ""
    cost: Cost = Cost()


class Fail(msgspec.Struct, frozen=True, kw_only=True):
    """Hand in an error; `retry_at` is when the next try would start, if one is left."""

    holder: str
    delivery: int
    error: ev.Error
    retry_at: datetime
    usage: ev.Usage = ev.Usage()
    duration_ms: float = 0.0
    artifacts: tuple[ev.ArtifactRef, ...] = ()
    cost: Cost = Cost()
    #: The usage is not all that was used, and nobody can say what was: all that was reserved counts.
    unverified: bool = False


class Sweep(msgspec.Struct, frozen=True, kw_only=True):
    """Take the claim from a holder that is gone or silent."""

    holder: str
    reason: ev.SweepReason


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """Put the work back at nobody's fault. An empty holder puts back what nobody holds."""

    reason: ev.ReleaseReason
    holder: str = ""
    #: What the attempt had used; None when nobody knows.
    usage: ev.Usage | None = None
    cost: Cost = Cost()


class Bury(msgspec.Struct, frozen=True, kw_only=True):
    """Give up on it: by default because the server will deliver no more."""

    reason: ev.DeathReason = ev.DeathReason.DELIVERIES_SPENT


class Cancel(msgspec.Struct, frozen=True, kw_only=True):
    """Call it off, wherever it stands."""

    reason: str = ""


class Redrive(msgspec.Struct, frozen=True, kw_only=True):
    """Send a dead letter back to work with fresh attempts."""

    reason: str = ""


class Discard(msgspec.Struct, frozen=True, kw_only=True):
    """Give a dead letter up for good."""

    reason: str = ""


class FallDue(msgspec.Struct, frozen=True, kw_only=True):
    """The time of a delayed request has come."""


Command = Claim | Complete | Fail | Sweep | Release | Bury | Cancel | Redrive | Discard | FallDue

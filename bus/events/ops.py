"""What people and daemons do to a fleet, as events on ``ctl.ops.<id>.<event>``: asked for, refused or begun, done."""

from __future__ import annotations

import msgspec


class Requested(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Somebody asks for an action."""

    #: ``restart``, ``reload``, ``config``, ``rollback``, ``apply``, ``deploy``, and its steps ``roll-out`` and ``roll-back``.
    action: str
    #: What it is done to: a daemon, a file, settings.
    target: str
    #: Who asks: a person's login, or a daemon.
    who: str
    why: str = ""
    #: Number of the decision that it rests on; 0 for none.
    decision: int = 0


class Refused(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """It is not done, and nothing was changed."""

    reason: str
    #: The exact command that a person runs instead; empty for none.
    command: str = ""


class Started(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """It is being done."""

    #: Seconds after which it counts as abandoned if nothing more is heard of it.
    limit_s: float
    #: What nobody else may begin meanwhile, such as ``daemon warden``; empty for nothing.
    lock: str = ""


class Finished(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """It is done, or has failed half-way."""

    ok: bool
    took_s: float
    #: What was seen of it: a JSON object whose keys depend on the action; of a failure, ``error``.
    evidence: msgspec.Raw


OpsEvent = Requested | Refused | Started | Finished

EVENTS: dict[str, type[msgspec.Struct]] = {
    "requested": Requested,
    "refused": Refused,
    "started": Started,
    "finished": Finished,
}

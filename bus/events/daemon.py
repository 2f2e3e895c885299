"""Daemons starting, stopping and dying, as events on ``ctl.daemon.<instance>.<event>``."""

from __future__ import annotations

import msgspec


class Started(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A daemon is up and doing its work."""

    daemon: str
    boot_id: str
    host: str
    pid: int
    version: str = ""


class Stopped(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A daemon ended because it was asked to."""

    daemon: str
    boot_id: str
    reason: str = ""


class Exited(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A daemon's process ended by itself or was killed. Written by the launcher."""

    daemon: str
    host: str
    pid: int
    #: Boot id, if the process lived long enough to tell it.
    boot_id: str = ""
    #: Exit status; negative is the signal's number, as in ``subprocess``.
    status: int = 0
    #: Seconds until it is started again; None when it is not.
    restart_in_s: float | None = None


class GaveUp(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The launcher does not start a daemon again: the failure climbs to a person."""

    daemon: str
    host: str
    #: Exits seen within `period_s`.
    exits: int
    period_s: float
    #: The exact command that a person runs.
    command: str
    status: int = 0
    #: Its settings leave every restart to a person; without that it exited too often.
    human: bool = False


DaemonEvent = Started | Stopped | Exited | GaveUp

EVENTS: dict[str, type[msgspec.Struct]] = {
    "started": Started,
    "stopped": Stopped,
    "exited": Exited,
    "gave_up": GaveUp,
}

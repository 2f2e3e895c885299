"""What waits for a person, as events on ``ctl.card.<seat>.<event>``: one card for a daemon's seat, and its end."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from bus.events.moment import Moment


class Reason(StrEnum):
    """Why a person is needed."""

    #: The launcher restarted it too often.
    GAVE_UP = "gave_up"
    #: It ended, and its settings leave the restart to a person.
    HUMAN = "human"
    #: Nothing shows that it works, and its settings leave the restart to a person.
    HUNG = "hung"
    #: It beats and its loop turns, and nothing reaches it.
    DEAF = "deaf"
    #: It has to be restarted by somebody outside of it, and was asked from inside.
    INSIDE = "inside"
    #: The launcher itself gives no sign of life.
    SILENT = "silent"


class End(StrEnum):
    """Why nobody has to do anything any more."""

    #: Another boot id sits in the seat.
    BACK = "back"
    #: It works again by itself.
    HEARD = "heard"


class Opened(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A person has to do something for a daemon that nobody else may or can do."""

    #: Which process: ``agent_runner-1`` on `host`, with `pid` while it runs and the boot id that is to be replaced.
    instance: str
    host: str
    reason: Reason
    why: str
    #: The exact command to paste into a shell of that host.
    command: str
    since: Moment
    pid: int = 0
    boot_id: str = ""
    #: Who says so: ``launcher``, a daemon of the watch ring, or whoever asked for an action.
    by: str = ""
    #: Action that it belongs to, in ``ctl.ops.<id>.>``; empty for none.
    operation: str = ""


class Closed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """It waits for nobody any more."""

    reason: End
    #: Boot id that sits there now.
    boot_id: str = ""
    #: Seconds that it waited.
    waited_s: float = 0.0


CardEvent = Opened | Closed

EVENTS: dict[str, type[msgspec.Struct]] = {"opened": Opened, "closed": Closed}

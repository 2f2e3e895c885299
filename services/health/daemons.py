"""How a daemon is, by the evidence of its heartbeat and its last word in the log. Pure."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec

from bus.events import daemon as daemon_events
from bus.liveness import BEAT_S, Heartbeat
from bus.puller import EXPIRES_S
from bus.store import Recorded
from services.launcher.reporter import describe

#: Seconds without a beat after which a daemon is late.
LATE_S = 2.5 * BEAT_S
#: Seconds for which an exit is shown, and a concern: the launcher counts restarts over the same time.
RECENT_EXIT_S = 300.0
#: Seconds without a message or an answered empty pull after which a beating daemon is deaf: three pulls went unanswered.
DEAF_S = 3 * EXPIRES_S
#: Seconds for which the event loop of a beating daemon has stood still, after which it is deaf.
STUCK_S = LATE_S


class State(StrEnum):
    """How a daemon is."""

    STARTING = "starting"
    ALIVE = "alive"
    LATE = "late"
    DEAF = "deaf"
    DOWN = "down"


class DaemonLine(msgspec.Struct, frozen=True, kw_only=True):
    """A daemon, with the evidence for its state."""

    name: str
    state: State
    daemon: str
    host: str = ""
    pid: int = 0
    boot_id: str = ""
    version: str = ""
    #: The release that it is started from; empty for the installation.
    release: str = ""
    #: Revision of the settings that it runs with; 0 for none.
    config_revision: int = 0
    #: Seconds since its last beat, since it last handled a message, since an empty pull was answered; None for never.
    beat_age_s: float | None = None
    message_age_s: float | None = None
    empty_age_s: float | None = None
    in_flight: int = 0
    handled: int = 0
    loop_lag_s: float = 0.0
    #: Seconds for which its event loop has stood still, and what in; 0 while it turns.
    stuck_s: float = 0.0
    stuck_in: str = ""
    #: When its process last ended by itself or was killed, if that was lately, in which message of CONTROL, and how.
    exited_at: datetime | None = None
    exited_seq: int = 0
    exit_status: int = 0
    #: What a person has to know or do.
    note: str = ""


def state_of(beat: Heartbeat, now: datetime) -> State:
    """A daemon's state by its heartbeat's evidence."""
    if (now - beat.at).total_seconds() > LATE_S:
        return State.LATE
    if beat.stuck_s > STUCK_S:
        return State.DEAF
    seen = [at for at in (beat.last_message_at, beat.last_empty_at) if at is not None]
    if beat.daemon == "launcher":
        return State.ALIVE
    if not seen:
        return State.STARTING if (now - beat.started_at).total_seconds() < DEAF_S else State.DEAF
    return State.DEAF if (now - max(seen)).total_seconds() > DEAF_S else State.ALIVE


def line_of(beat: Heartbeat, now: datetime) -> DaemonLine:
    """A heartbeat as a line of the panel."""

    def age(at: datetime | None) -> float | None:
        return None if at is None else round(max(0.0, (now - at).total_seconds()), 3)

    state = state_of(beat, now)
    return DaemonLine(
        name=beat.instance,
        state=state,
        daemon=beat.daemon,
        host=beat.host,
        pid=beat.pid,
        boot_id=beat.boot_id,
        version=beat.version,
        release=beat.release,
        config_revision=beat.config_revision,
        beat_age_s=age(beat.at),
        message_age_s=age(beat.last_message_at),
        empty_age_s=age(beat.last_empty_at),
        in_flight=beat.in_flight,
        handled=beat.handled,
        loop_lag_s=beat.loop_lag_s,
        stuck_s=beat.stuck_s,
        stuck_in=beat.stuck_in,
        note="draining" if beat.draining else "",
    )


def with_exit(line: DaemonLine, exited: Recorded | None, now: datetime) -> DaemonLine:
    """The line with the last exit of its seat, if that was lately."""
    if exited is None or exited.data is None or (now - exited.stored_at).total_seconds() > RECENT_EXIT_S:
        return line
    return msgspec.structs.replace(
        line, exited_at=exited.stored_at, exited_seq=exited.seq, exit_status=exited.data.status
    )


def missing(seat: str, last: daemon_events.DaemonEvent) -> DaemonLine:
    """The line of a daemon that does not beat, by its last event. Pure."""
    name = seat.rpartition("_")[0]
    kind = name.rpartition("-")[0] or name
    match last:
        case daemon_events.GaveUp():
            note = f"{_gave_up(last)}; run: {last.command}"
            return DaemonLine(name=name, state=State.DOWN, daemon=kind, host=last.host, note=note)
        case daemon_events.Exited():
            return DaemonLine(name=name, state=State.DOWN, daemon=kind, host=last.host, pid=last.pid)
        case daemon_events.Started():
            return DaemonLine(
                name=name, state=State.DOWN, daemon=kind, host=last.host, pid=last.pid, boot_id=last.boot_id
            )
        case daemon_events.Stopped():
            return DaemonLine(name=name, state=State.DOWN, daemon=kind)


def _gave_up(last: daemon_events.GaveUp) -> str:
    if last.human:
        return f"only a person restarts it ({describe(last.status)})"
    return f"restarted too often ({last.exits} exits in {last.period_s:g} s)"

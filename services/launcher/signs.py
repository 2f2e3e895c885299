"""When a daemon counts as hung: judged by the freshest of all signs that it works. Pure.

Times are seconds of the launcher's own monotonic clock: what a daemon says of its past is taken as an age at the moment at
which it came, so that no step of any wall clock makes anybody look dead.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from bus.liveness import Heartbeat
from bus.topology import HEARTBEAT_TTL_S
from services.fleet.daemons import Watchdog
from services.health.daemons import DEAF_S, LATE_S


class Sign(StrEnum):
    """What shows that a daemon works; a beat alone does not."""

    START = "its start"
    LOOP = "a turn of its event loop"
    WORK = "a message or an answer"
    PROGRESS = "progress of what it has in hand"
    ANSWER = "its answer to the question whether it lives"


class Signs(msgspec.Struct, frozen=True, kw_only=True):
    """When each of them was last seen of one process; None for never."""

    started_at: float
    beat_at: float | None = None
    loop_at: float | None = None
    work_at: float | None = None
    progress_at: float | None = None
    answered_at: float | None = None
    in_flight: int = 0
    boot_id: str = ""
    stuck_in: str = ""


class Hung(msgspec.Struct, frozen=True):
    """Nothing has shown for `silent_s` seconds that it works, the last time it was `sign`; `allowed_s` would be fine."""

    sign: Sign
    silent_s: float
    allowed_s: float


class Deaf(msgspec.Struct, frozen=True):
    """It beats and its loop turns, and nothing has reached it for so long: a restart may not help, and a person has to look."""

    deaf_s: float


def after_beat(signs: Signs, beat: Heartbeat, now: float, age_s: float) -> Signs:
    """The signs after a heartbeat that came at `now` and was made `age_s` seconds before."""
    made = now - min(max(0.0, age_s), HEARTBEAT_TTL_S)

    def at(moment: object) -> float | None:
        return made - max(0.0, (beat.at - moment).total_seconds()) if isinstance(moment, type(beat.at)) else None

    heard = [moment for moment in (beat.last_message_at, beat.last_empty_at) if moment is not None]
    return msgspec.structs.replace(
        signs,
        beat_at=made,
        loop_at=made - beat.stuck_s,
        work_at=at(max(heard, default=None)),
        progress_at=at(beat.progress_at) if beat.in_flight else None,
        in_flight=beat.in_flight,
        boot_id=beat.boot_id,
        stuck_in=beat.stuck_in,
    )


def freshest(signs: Signs) -> tuple[Sign, float]:
    """The sign that was seen last, and when."""
    seen = {
        Sign.START: signs.started_at,
        Sign.LOOP: signs.loop_at,
        Sign.WORK: signs.work_at,
        Sign.PROGRESS: signs.progress_at,
        Sign.ANSWER: signs.answered_at,
    }
    return max(((sign, at) for sign, at in seen.items() if at is not None), key=lambda found: found[1])


def judge(signs: Signs, now: float, since: float, limits: Watchdog) -> Hung | Deaf | None:
    """How a daemon stands.

    Args:
        signs: what was seen of it.
        now: the moment.
        since: from when on it could have been heard: silence before that is ours, not its.
        limits: how long it may be silent.
    """
    sign, at = freshest(signs)
    silent = now - max(at, since)
    beats = signs.beat_at is not None and now - signs.beat_at <= LATE_S
    # A call that blocks the loop is somebody's paid work: as long as the process beats, its claims stand and it may finish.
    patient = signs.beat_at is None or (beats and signs.in_flight > 0)
    allowed = max(limits.silent, limits.busy) if patient else limits.silent
    if silent > allowed:
        return Hung(sign, round(silent, 3), allowed)
    turns = beats and signs.loop_at is not None and now - signs.loop_at <= LATE_S
    heard = signs.work_at if signs.work_at is not None else signs.started_at
    deaf = now - max(heard, since)
    if turns and deaf > DEAF_S + limits.silent:
        return Deaf(round(deaf, 3))
    return None


def told(signs: Signs, now: float) -> str:
    """What was seen, for people."""

    def age(at: float | None) -> str:
        return "never" if at is None else f"{max(0.0, now - at):.0f} s ago"

    said = [f"last beat {age(signs.beat_at)}", f"last turn of its loop {age(signs.loop_at)}"]
    said += [f"last work {age(signs.work_at)}"]
    if signs.in_flight:
        said += [f"{signs.in_flight} in hand, last progress {age(signs.progress_at)}"]
    if signs.stuck_in:
        said += [f"it stands in {signs.stuck_in}"]
    return ", ".join(said)

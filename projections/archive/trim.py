"""How far the stream INVOCATIONS may be trimmed: decided from facts, each of which can only hold the trim back.

What leaves the stream is archived and proven in every store, older than the hot window, and of no use to anybody who decides
from the stream: it lies before the oldest run tree with unfinished work (dead letters count as unfinished: a person may
redrive them), before the window that a cap on spend counts over, before what a durable consumer has not handled yet. So whoever
folds what is left of the stream finds open work, open trees and enforced spend whole. The last message always stays: it
tells everybody how long the log is. In a freeze nothing is trimmed.

:func:`decide` is pure; :func:`carry_out` purges and writes the event. A process killed in between finds its intention at the
next start (:func:`resume`), and writes the event of the purge that it did not get to.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import msgspec
import structlog

from bus import errors
from bus.author import Author
from bus.connection import Connection
from bus.events import archive as ev
from bus.ids import key_id
from bus.store import CONTROL, Store
from projections.archive import files
from projections.archive.segment import Step

log = structlog.get_logger()

#: File with the trim that is under way.
INTENTION = "trim.json"


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """Something that needs the stream from a sequence on."""

    #: ``hot``, ``archived``, ``copied``, ``unfinished``, ``window``, ``consumer``, ``last``.
    kind: str
    #: Last sequence that it lets go.
    lets_go: int
    #: What exactly, for people.
    what: str


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What a decision is made from."""

    created: str
    #: First and last sequence of the stream.
    first: int
    last: int
    #: Messages younger than this are in the hot window.
    before: datetime
    holds: tuple[Hold, ...]
    #: Why nothing is trimmed now at all: a freeze, a store that is away; empty for nothing.
    refused: str = ""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """How far to go."""

    #: Last sequence to leave; below `Facts.first` for nothing.
    up_to: int
    #: Messages' worth of sequences that leave.
    count: int
    held_by: Hold | None
    refused: str = ""


def decide(facts: Facts) -> Decision:
    """The last sequence that nothing holds."""
    last = Hold(kind="last", lets_go=facts.last - 1, what="the last message tells how long the log is")
    hold = min((*facts.holds, last), key=lambda one: one.lets_go)
    up_to = max(0, hold.lets_go)
    if facts.refused:
        return Decision(up_to=0, count=0, held_by=hold, refused=facts.refused)
    return Decision(up_to=up_to, count=max(0, up_to - facts.first + 1), held_by=hold)


class Intention(msgspec.Struct, frozen=True, kw_only=True):
    """A trim that is under way, on the disk until its event is written."""

    trimmed: ev.Trimmed


async def carry_out(
    facts: Facts,
    decision: Decision,
    *,
    stream: str,
    root: Path,
    connection: Connection,
    store: Store,
    author: Author,
    step: Step = lambda _name: None,
) -> int:
    """Purge what the decision says, and write the event: sequences that left.

    Raises:
        Conflict: the stream was created again meanwhile.
        BusError: the server does not answer, or does not let us.
        OSError: the intention cannot be written; nothing was purged.
    """
    if decision.count <= 0 or decision.held_by is None:
        return 0
    info = await connection.api(f"STREAM.INFO.{stream}")
    if info["created"] != facts.created:
        raise errors.Conflict(
            f"expected the stream {stream} that was created at {facts.created}, got: one of {info['created']}; nothing was trimmed"
        )
    trimmed = ev.Trimmed(
        stream=stream,
        created=facts.created,
        first=facts.first,
        last=decision.up_to,
        held_by=decision.held_by.kind,
        before=facts.before,
    )
    step("intend")
    files.write(root / INTENTION, msgspec.json.encode(Intention(trimmed=trimmed)))
    step("purge")
    # A purge keeps the message at `seq` and drops all before it.
    await connection.api(f"STREAM.PURGE.{stream}", {"seq": decision.up_to + 1}, timeout=60.0)
    step("tell")
    await _tell(trimmed, store=store, author=author)
    step("forget")
    (root / INTENTION).unlink()
    log.info("stream_trimmed", stream=stream, first=facts.first, last=decision.up_to, held_by=decision.held_by.kind)
    return decision.count


async def resume(root: Path, *, connection: Connection, store: Store, author: Author) -> None:
    """Finish what a trim that was cut off has left: its event, if it did purge.

    Raises:
        BusError: the server does not answer.
    """
    file = root / INTENTION
    try:
        trimmed = msgspec.json.decode(file.read_bytes(), type=Intention).trimmed
    except FileNotFoundError:
        return
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        log.warning("trim_intention_unreadable", file=str(file), error=str(exc), action="the next trim is decided anew")
        file.unlink()
        return
    info = await connection.api(f"STREAM.INFO.{trimmed.stream}")
    if info["created"] == trimmed.created and info["state"]["first_seq"] > trimmed.last:
        await _tell(trimmed, store=store, author=author)
    file.unlink()


async def _tell(trimmed: ev.Trimmed, *, store: Store, author: Author) -> None:
    name = f"{trimmed.stream}/{trimmed.created}/{trimmed.last}"
    event = author.control(trimmed.stream, trimmed, event_id=key_id("archive.trimmed", name))
    last = await store.last(CONTROL, event.subject)
    if last is None or last.event is None or last.event.id != event.id:
        await store.append(event)

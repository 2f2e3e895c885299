"""How a freeze stands: receipts and writes, counted from the record and the stream and not from the flag."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

import msgspec

from bus import flags, wire
from bus.errors import ServerError
from bus.events import freeze as ev
from bus.flags import REAL, Mode
from bus.store import CONTROL, Recorded
from services import roster
from services.daemon import Bus


class Freeze(msgspec.Struct, frozen=True, kw_only=True):
    """The kill switch, and what became of it."""

    mode: Mode
    #: Something obeys it: a warden is alive to hold the server layer.
    armed: bool = False
    id: str = ""
    since: datetime | None = None
    until: datetime | None = None
    reason: str = ""
    by: str = ""
    text: str = ""
    #: The server layer stands: the server itself refuses every write.
    on_server: bool = False
    #: A thaw was begun and is not over.
    thawing: bool = False
    #: Last sequence of INVOCATIONS when the server layer stood.
    seq: int = 0
    #: Events in INVOCATIONS after that one; None when nobody can say.
    writes: int | None = None
    #: Receipts of the daemons that are alive or not known to have ended, and how many those are.
    receipts: int = 0
    owed: int = 0
    #: Instances without a receipt.
    missing: tuple[str, ...] = ()
    #: Instances that were reported as missing.
    overdue: tuple[str, ...] = ()
    #: What is wrong with a flag.
    problem: str = ""

    @property
    def told(self) -> str:
        """How it stands, in one line."""
        if self.mode is Mode.CLEAR:
            return "thawing" if self.thawing else "clear"
        layer = f"at sequence {self.seq:,}" if self.on_server else "on the clients only, not confirmed by the server"
        text = f"frozen ({self.mode.value}) {layer}: {self.receipts} of {self.owed} receipts"
        if self.missing:
            text += f" (none from {', '.join(self.missing)})"
        if self.writes is not None:
            text += f", {self.writes:,} writes after the freeze"
        return text


async def read(bus: Bus) -> Freeze:
    """How the kill switch stands now.

    Raises:
        BusUnreachable: there is no server to ask.
    """
    switch = await flags.kill_switch(bus.bucket(flags.BUCKET), REAL, bus.gate.switch)
    beats = await bus.liveness.all()
    armed = any(beat.daemon == "warden" for beat in beats)
    base = Freeze(
        mode=switch.mode,
        armed=armed,
        id=switch.id,
        since=switch.since,
        until=switch.until,
        reason=switch.reason,
        by=switch.by,
        text=switch.text,
        problem=switch.problem,
    )
    if not switch.frozen:
        return msgspec.structs.replace(base, thawing=bool(await unthawed(bus)))
    records = [record async for record in bus.store.read(CONTROL, f"ctl.freeze.{switch.id}.*")]
    info = await bus.connection.api(f"STREAM.INFO.{REAL.stream}")
    return told(
        base,
        records,
        {beat.boot_id: beat.instance for beat in beats} | await roster.unaccounted(bus, beats),
        held=info["config"].get("max_bytes") == 1,
        last_seq=info["state"]["last_seq"],
    )


def told(base: Freeze, records: Iterable[Recorded], owed: Mapping[str, str], *, held: bool, last_seq: int) -> Freeze:
    """A freeze that stands, with what became of it. Pure.

    Args:
        base: what is known of it.
        records: its events.
        owed: daemons that are alive or not known to have ended, boot id -> instance: each owes a receipt.
        held: the server layer stands, if the record says that it was put up.
        last_seq: last sequence of INVOCATIONS.
    """
    frozen: ev.Frozen | None = None
    stopped: set[str] = set()
    overdue: set[str] = set()
    for record in records:
        match record.data:
            case ev.Frozen() as found:
                frozen = found
            case ev.Receipt(stage=ev.Stage.FREEZE, boot_id=boot_id):
                stopped.add(boot_id)
            case ev.Missing(instances=instances):
                overdue |= set(instances)
            case _:
                pass
    missing = tuple(sorted(instance for boot_id, instance in owed.items() if boot_id not in stopped))
    return msgspec.structs.replace(
        base,
        on_server=frozen is not None and held,
        seq=frozen.seq if frozen is not None else 0,
        writes=max(0, last_seq - frozen.seq) if frozen is not None else None,
        receipts=len(owed) - len(missing),
        owed=len(owed),
        missing=missing,
        overdue=tuple(sorted(overdue & set(missing))),
    )


async def unthawed(bus: Bus) -> str:
    """Id of the last freeze of the real switch, if its thaw is not over; empty for none."""
    id_ = await newest(bus)
    return id_ if id_ and await bus.store.last(CONTROL, f"ctl.freeze.{id_}.thawed") is None else ""


async def newest(bus: Bus) -> str:
    """Id of the last freeze of the real switch; empty for none."""
    try:
        info = await bus.connection.api(f"STREAM.INFO.{CONTROL}", {"subjects_filter": "ctl.freeze.*.frozen"})
    except ServerError as exc:
        if exc.code == wire.Code.STREAM_NOT_FOUND:
            return ""
        raise
    return newest_of(subject.split(".")[2] for subject in info["state"].get("subjects") or {})


def newest_of(ids: Iterable[str]) -> str:
    """The last of some freezes of the real switch; empty for none. Pure."""
    real = [id_ for id_ in ids if id_.startswith(REAL.letter) and id_[1:].isdecimal()]
    return max(real, key=lambda id_: int(id_[1:]), default="")

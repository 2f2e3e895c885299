"""``systems archive``: history outside of the streams, whether it is whole, and ``systems rebuild``: the tables, made anew."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import msgspec
from cyclopts import App
from nats import errors as driver

from bus.clock import SystemClock
from bus.events import projection as ev
from bus.store import CONTROL, Recorded
from projections import standing
from projections.archive import manifest, verify
from projections.archive import store as stores
from projections.archive.archiver import Status
from projections.archive.verify import Range, Report
from projections.log import STREAMS
from services.cli import asking, output
from services.cli.common import DEFAULTS, Common, Flag
from services.cli.exits import CommandFailed, Exit
from services.cli.session import Session, actor, operator, speak_plainly
from services.home import resolve
from services.projector import archiving
from services.projector.asking import Asked

app = App(name="archive", help="History in files: how far, and whether it is whole.", help_format="plaintext")

#: Seconds that the projector gets to close and copy files, and to begin new tables.
_WORK_S, _ANSWER_S = 300.0, 10.0
#: Seconds between two looks whether the tables are new.
_LOOK_S = 0.2
#: Seconds without an answer after which a person is told what is waited for.
_TELL_S = 1.0
#: Sequences that lie in the tables, as ranges.
_HOT = """
SELECT stream, min(seq) AS first, max(seq) AS last
FROM (SELECT stream, seq, seq - row_number() OVER (PARTITION BY stream ORDER BY seq) AS island FROM hot.log)
GROUP BY stream, island ORDER BY stream, first
"""


@app.default
async def status(*, common: Common = DEFAULTS) -> int:
    """Show how far each stream is archived, where copies are, and what the stream INVOCATIONS may be trimmed to.

    Args:
        common: Which fleet, and how to print.
    """
    async with operator(common) as session:
        return _show(await _ask(session, archiving.STATUS, _ANSWER_S), common)


@app.command
async def now(*, common: Common = DEFAULTS) -> int:
    """Close files with everything that is in the streams now, copy them, and trim what may be trimmed.

    It waits for tables that have not caught up yet, for minutes if need be, and says so.

    Args:
        common: Which fleet, and how to print.
    """
    async with operator(common) as session, _telling(session):
        return _show(await _ask(session, archiving.NOW, _WORK_S), common)


@app.command
async def ls(*, common: Common = DEFAULTS) -> int:
    """List the files in the home, by stream and sequence.

    Args:
        common: Which fleet, and how to print.
    """
    async with operator(common) as session:
        root = session.home.archive
    found = await asyncio.to_thread(manifest.scan, root)
    if common.json:
        output.json({"files": found.segments, "faults": found.faults})
        return Exit.REFUSED if found.faults else Exit.DONE
    output.table(
        ["stream", "first", "last", "rows", "size", "day", "file"],
        [
            [s.stream, f"{s.first:,}", f"{s.last:,}", f"{s.rows:,}", _size(s.size), str(s.day), s.key]
            for s in found.segments
        ],
        right=["first", "last", "rows", "size"],
    )
    for fault in found.faults:
        print(output.paint(fault.sentence, "bold red"))
    return Exit.REFUSED if found.faults else Exit.DONE


@app.command(name="verify")
async def verify_(*, repair: Flag = False, common: Common = DEFAULTS) -> int:
    """Prove that files, tables and streams hold every sequence: checksums, copies, gaps. The exit code is 2 if they do not.

    Args:
        repair: Have the projector make damaged files again first, from their copies or from the stream.
        common: Which fleet, and how to print.
    """
    async with operator(common) as session:
        if repair:
            async with _telling(session):
                await _ask(session, archiving.MEND, _WORK_S)
        bus = session.bus
        try:
            hot, problem = await _hot(session), ""
        except driver.NoRespondersError:
            hot, problem = {}, "the projector does not answer, so rows in its tables were not counted"
        access = archiving.access((await session.registry()).settings.archive)
        reports = await verify.look(
            session.home.archive,
            await verify.live_streams(bus.connection, STREAMS),
            hot=hot,
            bus=bus.store,
            target=stores.open_store(access) if access is not None else None,
        )
    faults = [fault for report in reports for fault in report.faults]
    if common.json:
        output.json({"streams": reports, "whole": not faults, "unseen": problem})
    else:
        _reports(reports)
        if problem:
            output.note(f"systems: {problem}")
    return Exit.FAILED if faults else Exit.DONE


async def rebuild(*, reason: str, wait: Flag = False, offline: Flag = False, common: Common = DEFAULTS) -> int:
    """Have the tables made anew from archive and streams. The present ones answer until the new ones have caught up.

    Args:
        reason: Why; it goes into the record, with your name.
        wait: Wait until they have.
        offline: Make them here and from the archive alone, while no projector runs; the next one adds what is in the streams.
        common: Which fleet, and how to print.
    """
    if offline:
        return await _offline(reason, common)
    async with operator(common) as session:
        before = await _rebuilt(session)
        await _request(session, archiving.REBUILD, _ANSWER_S, f"{session.actor}: {reason}".encode())
        if not wait:
            print("begun; `systems status` shows the tables while they are made")
            return Exit.DONE
        while (done := await _rebuilt(session)) is None or (before is not None and done.seq == before.seq):
            await asyncio.sleep(_LOOK_S)
    assert isinstance(done.data, ev.Rebuilt)
    if common.json:
        output.json(done.data)
    else:
        print(f"the tables are new, after {output.age(done.data.took_s)}")
    return Exit.DONE


async def _offline(reason: str, common: Common) -> int:
    # Arrow and DuckDB take a quarter of a second to load, which no other command here needs.
    from projections import rebuild  # noqa: PLC0415
    from projections.primary import Files  # noqa: PLC0415

    speak_plainly()
    home = resolve(common.home, os.environ)
    begun = time.monotonic()
    files = Files(home.projections, home.tables)
    why = f"{actor()}: {reason}"
    rows = await rebuild.offline(files, home.path, why, SystemClock().now)
    took_s = round(time.monotonic() - begun, 3)
    if common.json:
        output.json({"events": rows, "took_s": took_s})
    else:
        print(f"{rows:,} events folded in {output.age(took_s)}; the next projector adds what is in the streams")
    return Exit.DONE


async def _rebuilt(session: Session) -> Recorded | None:
    return await session.bus.store.last(CONTROL, "ctl.projection.*.rebuilt")


async def _hot(session: Session) -> dict[str, list[Range]]:
    """Ranges of sequences in the tables.

    Raises:
        NoRespondersError: the projector is away.
    """
    answer = await asking.remote(session.bus.connection.nc, Asked(sql=_HOT))
    found: dict[str, list[Range]] = {}
    for row in answer.table.to_pylist():
        found.setdefault(row["stream"], []).append((row["first"], row["last"]))
    return found


@asynccontextmanager
async def _telling(session: Session) -> AsyncIterator[None]:
    """Tell once, on stderr, that tables are waited for, if the answer takes its time and they are the reason."""
    watch = asyncio.create_task(_tell(session))
    try:
        yield
    finally:
        watch.cancel()
        with suppress(asyncio.CancelledError):
            await watch


async def _tell(session: Session) -> None:
    while True:
        await asyncio.sleep(_TELL_S)
        try:
            answer = await session.bus.connection.nc.request(standing.SUBJECT, b"", timeout=_ANSWER_S)
        except (driver.NoRespondersError, driver.TimeoutError):
            continue  # the command itself says when nobody answers
        if (answer.headers or {}).get("Nats-Service-Error"):
            continue
        status = msgspec.json.decode(answer.data, type=standing.Status)
        if status.state is not standing.State.FOLLOWING or status.behind:
            why = status.problem or f"{status.state}, {status.behind:,} events behind"
            output.note(f"systems: waits for the tables: {why}")
            return


async def _ask(session: Session, subject: str, timeout_s: float) -> Status:
    return msgspec.json.decode(await _request(session, subject, timeout_s, b""), type=Status)


async def _request(session: Session, subject: str, timeout_s: float, body: bytes) -> bytes:
    try:
        answer = await session.bus.connection.nc.request(subject, body, timeout=timeout_s)
    except (driver.NoRespondersError, driver.TimeoutError) as exc:
        raise CommandFailed(
            f"expected the projector to answer on {subject}, got: {type(exc).__name__}; see `systems status`",
            Exit.LATER,
            "ProjectorAway",
        ) from exc
    error = (answer.headers or {}).get("Nats-Service-Error")
    if error:
        raise CommandFailed(error, Exit.FAILED, "ArchiveError")
    return answer.data


def _show(found: Status, common: Common) -> int:
    if common.json:
        output.json(found)
        return Exit.REFUSED if found.problem else Exit.DONE
    output.table(
        ["stream", "archived up to"], [[s, f"{n:,}"] for s, n in found.archived.items()], right=["archived up to"]
    )
    if found.store:
        print(f"\ncopies in {found.store}" + (f"; {found.uncopied} files wait" if found.uncopied else ", all proven"))
    if found.trim is not None:
        print(f"\n{_trim(found)}")
    if found.problem:
        print(output.paint(f"\nwaits: {found.problem}", "bold yellow"))
    return Exit.REFUSED if found.problem else Exit.DONE


def _trim(found: Status) -> str:
    trim = found.trim
    assert trim is not None
    if trim.refused:
        return f"INVOCATIONS is not trimmed: {trim.refused}"
    held = f": {trim.held_by.what}" if trim.held_by is not None else ""
    if trim.count:
        return f"INVOCATIONS is trimmed up to {trim.up_to:,} at the next look{held}"
    return f"INVOCATIONS keeps all that it has{held}"


def _reports(reports: list[Report]) -> None:
    output.table(
        ["stream", "last", "archived", "files", "rows", "size", ""],
        [
            [
                one.stream,
                f"{one.last:,}",
                f"{one.archived:,}",
                f"{one.files:,}",
                f"{one.rows:,}",
                _size(one.size),
                "whole" if one.whole else f"{len(one.faults)} faults",
            ]
            for one in reports
        ],
        right=["last", "archived", "files", "rows", "size"],
    )
    for one in reports:
        for fault in one.faults:
            print(output.paint(fault.sentence, "bold red"))


def _size(size: int) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:,.0f} {unit}"
        size = round(size / 1000)
    return f"{size:,} GB"

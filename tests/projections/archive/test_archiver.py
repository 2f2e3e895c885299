"""When files are made of the log, and what leaves the stream."""

from __future__ import annotations

import asyncio
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest

from bus import flags
from bus.events import archive as ev
from bus.store import CONTROL, INVOCATIONS
from projections.archive import manifest, segment
from projections.archive.store import Access
from tests.projections.archive.rig import Rig


def files(rig: Rig, stream: str = INVOCATIONS) -> list[tuple[int, int, int]]:
    """First and last sequence and rows of each file of a stream."""
    return [(s.first, s.last, s.rows) for s in manifest.scan(rig.root).segments if s.stream == stream]


async def test_full_file_is_closed_and_its_rows_leave_the_log(rig: Rig) -> None:
    """Each ten rows become a file, the rest stays in hot.log, and the view over both has every sequence once."""
    await rig.work(9)
    await rig.feed()
    archiver = rig.archiver(rows=10)
    await archiver.look()
    assert files(rig) == [(1, 10, 10), (11, 20, 10)]
    assert await rig.sql("SELECT min(seq), count(*) FROM hot.log WHERE stream = 'INVOCATIONS'") == [(21, 7)]
    assert await rig.sql("SELECT count(*), count(DISTINCT seq), max(seq) FROM events WHERE stream = 'INVOCATIONS'") == [
        (27, 27, 27)
    ]
    assert archiver.problem == ""


async def test_stream_that_never_held_anything_holds_nobody_up(rig: Rig) -> None:
    """Before the first event there is nothing to close and nothing to trim, and no time of a last message to reckon from."""
    await rig.feed()
    archiver = rig.archiver(rows=10, hot_s=604_800.0)
    await archiver.look(at_once=True)
    assert archiver.problem == ""
    assert (await archiver.status()).trim is not None
    assert files(rig) == []


async def test_day_that_is_over_is_closed_by_itself(rig: Rig) -> None:
    """A day's few rows become a file once the clock has passed midnight, and not an hour before it."""
    await rig.work(1)
    await rig.feed(INVOCATIONS)
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0) + timedelta(days=2)
    archiver = rig.archiver(rows=1_000, hot_s=1e9)
    rig.clock.moment = midnight - timedelta(days=1, hours=1)
    await archiver.look()
    assert files(rig) == []
    rig.clock.moment = midnight
    await archiver.look()
    assert files(rig) == [(1, 3, 3)]


async def test_what_a_stream_lost_is_listed_as_absent(rig: Rig) -> None:
    """A message that was removed from the stream before it was read is an absent range of its file, not a gap."""
    await rig.work(3)
    for seq in (1, 4, 5):
        await rig.bus.connection.api(f"STREAM.MSG.DELETE.{INVOCATIONS}", {"seq": seq, "no_erase": True})
    await rig.feed(INVOCATIONS)
    archiver = rig.archiver()
    await archiver.look(at_once=True)
    (one,) = manifest.scan(rig.root).segments
    assert (one.first, one.last, one.rows, one.absent) == (1, 9, 6, ((1, 1), (4, 5)))
    assert manifest.faults([one]) == []


async def test_no_file_is_written_over_what_the_tables_lack(rig: Rig) -> None:
    """A sequence that the stream has and the tables do not keeps the archiver from closing the file around it."""
    await rig.work(2)
    await rig.feed(INVOCATIONS)
    await rig.sql("DELETE FROM hot.log WHERE seq = 3")
    archiver = rig.archiver()
    await archiver.look(at_once=True)
    assert files(rig) == []
    assert "sequence 3" in archiver.problem


async def test_trim_takes_what_is_finished_and_tells(rig: Rig) -> None:
    """Messages before the oldest run tree with unfinished work leave the stream, in one purge with one event."""
    root = await rig.begin()
    await rig.claim(root)
    await rig.end(root)
    await rig.work(2)
    done = await rig.begin("planner")
    await rig.claim(done)
    child = await rig.begin("coder", parent=done.id, root=done.id)
    await rig.end(done)
    await rig.work(1)
    await rig.feed(INVOCATIONS)
    archiver = rig.archiver()
    await archiver.look(at_once=True)
    # The tree's root has ended, but its child has not: all of the tree stays.
    assert (await rig.first(), archiver.decision and archiver.decision.held_by and archiver.decision.held_by.kind) == (
        10,
        "unfinished",
    )
    record = await rig.bus.store.last(CONTROL, "ctl.archive.INVOCATIONS.trimmed")
    assert record is not None
    assert isinstance(record.data, ev.Trimmed)
    assert (record.data.first, record.data.last, record.data.held_by) == (1, 9, "unfinished")
    await rig.claim(child)
    await rig.end(child)
    await rig.feed(INVOCATIONS)
    await archiver.look(at_once=True)
    assert await rig.first() == await rig.last()  # the last message always stays


async def test_dead_letter_keeps_its_events_in_the_stream(rig: Rig) -> None:
    """What a person may still redrive is not trimmed, nor what came after it."""
    from bus.events import invocation as inv  # noqa: PLC0415

    ref = await rig.begin()
    await rig.claim(ref)
    dead = inv.DeadLettered(reason=inv.DeathReason.PERMANENT_ERROR, attempts=1, crashes=0)
    await rig.bus.store.append(rig.bus.author.invocation(ref, dead))
    await rig.work(3)
    await rig.feed(INVOCATIONS)
    archiver = rig.archiver()
    await archiver.look(at_once=True)
    assert await rig.first() == 1


async def test_hot_window_and_cap_window_hold_the_trim(rig: Rig) -> None:
    """Nothing leaves that is younger than the hot window, or than the begin of a window that a cap counts over."""
    await rig.work(3)
    await rig.feed(INVOCATIONS)
    archiver = rig.archiver(hot_s=3600.0)
    await archiver.look(at_once=True)
    assert await rig.first() == 1
    assert archiver.decision is not None
    assert archiver.decision.held_by is not None
    assert archiver.decision.held_by.kind == "hot"
    capped = rig.archiver(windows=lambda now: now - timedelta(days=20))
    await capped.look(at_once=True)
    assert await rig.first() == 1
    assert capped.decision is not None
    assert capped.decision.held_by is not None
    assert capped.decision.held_by.kind == "window"


async def test_local_clock_that_is_ahead_trims_nothing_early(rig: Rig) -> None:
    """With a clock that is a year ahead the hot window is still counted from the newest message of the server."""
    await rig.work(3)
    await rig.feed(INVOCATIONS)
    rig.clock.moment += timedelta(days=365)
    archiver = rig.archiver(hot_s=3600.0)
    await archiver.look(at_once=True)
    assert files(rig) == [(1, 9, 9)]
    assert await rig.first() == 1


async def test_durable_consumer_that_lags_holds_the_trim(rig: Rig) -> None:
    """A durable consumer that has not handled a message keeps it in the stream, and is named."""
    name = "mirror"
    config = {"durable_name": name, "ack_policy": "explicit", "filter_subject": "inv.*.*.*.completed"}
    body = {"stream_name": INVOCATIONS, "config": config}
    await rig.bus.connection.api(f"CONSUMER.CREATE.{INVOCATIONS}.{name}", body | {"config": config | {"name": name}})
    await rig.work(3)
    await rig.feed(INVOCATIONS)
    archiver = rig.archiver()
    await archiver.look(at_once=True)
    assert await rig.first() == 1
    assert archiver.decision is not None
    assert archiver.decision.held_by is not None
    assert "consumer mirror has 3 messages" in archiver.decision.held_by.what


async def test_freeze_stops_the_trim(rig: Rig) -> None:
    """While the kill switch is thrown nothing leaves the stream; files are still made."""
    await rig.work(3)
    await rig.feed(INVOCATIONS)
    await rig.bus.bucket(flags.BUCKET).put("kill_switch", b"frozen")
    async with asyncio.timeout(30):
        while not rig.bus.gate.closed:
            await rig.bus.gate.changed(1.0)
    archiver = rig.archiver()
    await archiver.look(at_once=True)
    assert files(rig) == [(1, 9, 9)]
    assert await rig.first() == 1
    assert archiver.decision is not None
    assert archiver.decision.refused == "a freeze stands"


async def test_damaged_file_is_found_before_the_stream_relies_on_it(rig: Rig) -> None:
    """A file that rotted after it was written is made again from the stream, said on the bus, and only then trimmed for."""
    await rig.work(3)
    await rig.feed(INVOCATIONS)
    held = rig.archiver(hot_s=3600.0)
    await held.look(at_once=True)
    (one,) = manifest.scan(rig.root).segments
    path = rig.root / one.key
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    archiver = rig.archiver()
    await archiver.look(at_once=True)
    assert await rig.first() == 1
    await archiver.look(at_once=True)
    assert await rig.bus.store.last(CONTROL, "ctl.archive.INVOCATIONS.damaged") is not None
    repaired = await rig.bus.store.last(CONTROL, "ctl.archive.INVOCATIONS.repaired")
    assert repaired is not None
    assert repaired.data.source == "stream"
    (made,) = manifest.scan(rig.root).segments
    assert segment.check(rig.root, made) is None
    assert list(path.parent.glob("*.broken-*"))
    await archiver.look(at_once=True)
    assert await rig.first() == await rig.last() == 9


async def test_file_that_nobody_can_make_again_is_reported_and_left_out(rig: Rig) -> None:
    """A file that is gone after its messages left the stream is an event, and queries still answer over the rest."""
    await rig.work(3)
    await rig.feed(INVOCATIONS)
    archiver = rig.archiver()
    await archiver.look(at_once=True)
    await rig.work(1)
    await rig.feed(INVOCATIONS)
    (one,) = manifest.scan(rig.root).segments
    (rig.root / one.key).unlink()
    await archiver.look(at_once=True)
    assert await rig.bus.store.last(CONTROL, "ctl.archive.INVOCATIONS.damaged") is not None
    assert await rig.sql("SELECT count(*) FROM events WHERE stream = 'INVOCATIONS'") == [(3,)]
    assert await rig.sql("SELECT problem FROM archive_segments WHERE first_seq = 1") != [(None,)]
    assert await rig.first() == 9


async def test_store_that_is_away_keeps_everything_and_says_so(rig: Rig, tmp_path: Path) -> None:
    """Without its store the archiver writes local files, trims nothing, says why, and catches up when the store is back."""
    await rig.work(3)
    await rig.feed(INVOCATIONS)
    away = rig.archiver(access=Access(url="s3://history", endpoint="http://127.0.0.1:9"))
    await away.look(at_once=True)
    assert files(rig) == [(1, 9, 9)]
    assert "s3://history" in away.problem
    assert await rig.first() == 1
    back = rig.archiver(access=Access(url=f"file://{tmp_path}/copies"))
    await back.look(at_once=True)
    assert back.problem == ""
    assert await rig.first() == 9
    assert len(list((tmp_path / "copies").rglob("*.parquet"))) == 1


async def test_full_disk_writes_nothing_and_goes_on_when_there_is_room(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that cannot be written leaves the rows in the log and the reason in the open; later they become a file."""
    await rig.work(3)
    await rig.feed(INVOCATIONS)
    rig.root.mkdir()
    (rig.root / "stream=INVOCATIONS").write_text("in the way")
    archiver = rig.archiver()
    await archiver.look(at_once=True)
    assert archiver.problem
    assert await rig.sql("SELECT count(*) FROM hot.log WHERE stream = 'INVOCATIONS'") == [(9,)]
    assert await rig.first() == 1
    (rig.root / "stream=INVOCATIONS").unlink()
    await archiver.look(at_once=True)
    assert archiver.problem == ""
    assert files(rig) == [(1, 9, 9)]


async def test_stream_forgets_only_what_the_file_of_the_tables_knows(rig: Rig, tmp_path: Path) -> None:
    """When the stream is purged, the primary as a kill would leave it has every file registered and is past what leaves."""
    left = tmp_path / "left.duckdb"
    await rig.work(9)
    await rig.feed()

    def step(name: str) -> None:
        if name == "purge":
            shutil.copyfile(rig.database.file, left)

    archiver = rig.archiver(rows=10, step=step)
    await archiver.look(at_once=True)
    trimmed = (await rig.first()) - 1
    assert trimmed > 0
    with duckdb.connect(str(left), read_only=True) as copy:
        found = copy.execute(
            "SELECT (SELECT max(last_seq) FROM archive_segments WHERE stream = 'INVOCATIONS'), "
            "(SELECT seq FROM hot.positions WHERE stream = 'INVOCATIONS')"
        ).fetchall()
    assert min(*found[0]) >= trimmed

"""Tables from the archive are the tables that grew with the streams, row for row."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from bus.store import CONTROL, DEAD_LETTERS, INVOCATIONS
from bus.wire import Delivery
from projections import database, fold, history, positions, rebuild
from projections.archive import manifest, register, segment
from projections.database import transaction
from projections.decode import decode
from tests.projections.histories import fleet

STREAMS = (INVOCATIONS, CONTROL, DEAD_LETTERS)
ERA = "2026-11-25T09:00:00Z"
#: Every table that events are folded into, and what people see.
LOOKED_AT = (
    *("hot.all_invocations", "hot.every_claim", "dead_letters", "spend", "hot.trips", "daemons"),
    *("hot.findings", "ops_actions", "sweeps", "decisions", "cards"),
    *("events", "rejected", "invocations", "claims", "attempts"),
)


def tables() -> duckdb.DuckDBPyConnection:
    """A new primary, in memory."""
    connection = duckdb.connect(config={"threads": 1})
    fold.create(connection)
    # A claim that stands is as old as the moment that views look from.
    connection.execute("CREATE OR REPLACE MACRO moment() AS TIMESTAMP '2026-11-25 12:00:00'")
    connection.execute(database.POSITIONS)
    connection.execute("INSERT INTO hot.made VALUES ('v', ?, '', '', true)", [datetime(2026, 11, 25)])  # noqa: DTZ001 (as tables have it)
    return connection


def take(connection: duckdb.DuckDBPyConnection, stream: str, deliveries: Sequence[Delivery]) -> None:
    """One batch, as the projector applies it."""
    connection.register("batch", decode(stream, deliveries))
    with transaction(connection):
        connection.execute("INSERT INTO hot.log BY NAME SELECT * FROM batch")
        fold.apply(connection)
    connection.unregister("batch")


def archive(connection: duckdb.DuckDBPyConnection, home: Path, stream: str, last: int) -> None:
    """Close a file up to a sequence, and register it."""
    first = manifest.reach(e.segment for e in register.entries(connection, stream, ERA)) + 1
    one = segment.write(connection, home / "archive", stream=stream, created=ERA, first=first, last=last)
    register.add(connection, [one], lambda con: history.publish(con, home))


def looked_at(connection: duckdb.DuckDBPyConnection) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of all of them, in an order that does not depend on how they came."""
    return {name: sorted(connection.execute(f"FROM {name}").fetchall(), key=repr) for name in LOOKED_AT}


@settings(max_examples=8, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(seed=st.integers(0, 2**32), steps=st.integers(1, 40), keep=st.integers(0, 5), end=st.floats(0.0, 1.0))
def test_rebuilt_tables_are_the_grown_ones(seed: int, steps: int, keep: int, end: float) -> None:
    """Folded live in small batches, archived on the way and gone cold, or from the files and the rest of the streams: one result."""
    chance = random.Random(seed)
    streams = fleet(seed, steps)
    with tempfile.TemporaryDirectory() as folder, tables() as plain, tables() as grown, tables() as rebuilt:
        home, cold = Path(folder) / "home", history.Cold(Path(folder) / "home", rows=keep)
        archived: dict[str, int] = {}
        for stream in STREAMS:
            deliveries = streams[stream]
            take(plain, stream, deliveries)
            at = 0
            while at < len(deliveries):
                step = chance.randint(1, 20)
                take(grown, stream, deliveries[at : at + step])
                at += step
                if at <= end * len(deliveries) and chance.random() < 0.5:
                    archived[stream] = deliveries[min(at, len(deliveries)) - 1].seq
                    archive(grown, home, stream, archived[stream])
                cold.move(grown)
        wanted = looked_at(plain)
        assert looked_at(grown) == wanted
        # Another home, because cold files belong to the tables that wrote them.
        other = Path(folder) / "other"
        other.mkdir()
        if (home / "archive").is_dir():
            (home / "archive").rename(other / "archive")
        eras = dict.fromkeys(STREAMS, ERA)
        count = rebuild.restore(rebuilt, other, eras, cold=history.Cold(other, rows=keep))
        reached = positions.read(rebuilt)
        assert {stream: position.seq for stream, position in reached.items()} == archived
        assert count == sum(d.seq <= archived.get(stream, 0) for stream in STREAMS for d in streams[stream])
        for stream in STREAMS:
            rest = [d for d in streams[stream] if d.seq > archived.get(stream, 0)]
            if rest:
                take(rebuilt, stream, rest)
        assert looked_at(rebuilt) == wanted


def some(tmp_path: Path, files: int) -> tuple[Path, dict[str, list[tuple[Any, ...]]]]:
    """A home with an archive of so many files, and the tables that it was made from."""
    home = tmp_path / "home"
    deliveries = fleet(7, 60)[INVOCATIONS]
    with tables() as connection:
        take(connection, INVOCATIONS, deliveries)
        for number in range(1, files + 1):
            archive(connection, home, INVOCATIONS, deliveries[len(deliveries) * number // files - 1].seq)
        return home, looked_at(connection)


def test_rebuild_that_is_cut_off_goes_on(tmp_path: Path) -> None:
    """A rebuild that ends after any file and begins again folds each file once, and has positions only when it is through."""
    home, wanted = some(tmp_path, 4)
    eras = {INVOCATIONS: ERA}

    class Cut(Exception):
        pass

    def cut(_one: object) -> None:
        raise Cut

    with tables() as connection:
        for _ in range(4):
            with pytest.raises(Cut):
                rebuild.restore(connection, home, eras, told=cut)
            assert positions.read(connection) == {}
        assert rebuild.restore(connection, home, eras, told=cut) == 0
        assert looked_at(connection) == wanted


def test_files_of_another_life_of_the_stream_are_left_alone(tmp_path: Path) -> None:
    """An archive of a stream that was made anew since is not read into the tables of the new one."""
    home, _ = some(tmp_path, 2)
    with tables() as connection:
        assert rebuild.restore(connection, home, {INVOCATIONS: "2026-11-26T09:00:00Z"}) == 0
        assert looked_at(connection)["events"] == []


def test_damaged_file_is_named_and_the_rest_is_there(tmp_path: Path) -> None:
    """A file whose checksum does not hold is registered with its problem, read by no view, and the other files are folded."""
    home, _ = some(tmp_path, 3)
    victim = manifest.scan(home / "archive").segments[1]
    file = home / "archive" / victim.key
    file.write_bytes(file.read_bytes()[:-100])
    with tables() as connection:
        rebuild.restore(connection, home, {INVOCATIONS: ERA})
        entries = register.entries(connection)
        assert [bool(entry.problem) for entry in entries] == [False, True, False]
        assert connection.execute("SELECT count(*) FROM hot.all_log").fetchone() == (
            entries[0].segment.rows + entries[2].segment.rows,
        )


STEPS: tuple[str, ...] = ("write invocations", "name invocations", "write claims", "name claims", "register")


@pytest.mark.parametrize("at", STEPS)
def test_move_that_is_cut_off_changes_nothing_and_leaves_nothing(tmp_path: Path, at: str) -> None:
    """Ended at any step before the registering transaction, the rows are where they were, and the leftovers are removed later."""
    deliveries = fleet(7, 60)[INVOCATIONS]

    class Cut(Exception):
        pass

    def step(name: str) -> None:
        if name == at:
            raise Cut

    with tables() as connection:
        take(connection, INVOCATIONS, deliveries)
        wanted = looked_at(connection)
        with pytest.raises(Cut):
            history.Cold(tmp_path, rows=0, step=step).move(connection)
        assert looked_at(connection) == wanted
        again = history.Cold(tmp_path, rows=0)
        assert again.move(connection) > 0
        again.tidy(connection)
        again.tidy(connection)
        assert looked_at(connection) == wanted
        known = {key for (key,) in connection.execute("SELECT key FROM cold_files").fetchall()}
        found = {
            p.relative_to(tmp_path / "history").as_posix() for p in (tmp_path / "history").rglob("*") if p.is_file()
        }
        assert found == known


def test_cold_files_of_former_tables_are_removed(tmp_path: Path) -> None:
    """Files that tables wrote which are no more stay until a copy of the present ones is published, and not for ever."""
    former = tmp_path / "history" / "20200101T000000000000" / "claims"
    former.mkdir(parents=True)
    (former / "000000000001-000000000009.parquet").write_bytes(b"x")
    with tables() as connection:
        cold = history.Cold(tmp_path)
        cold.tidy(connection)
        assert former.parent.exists()
        cold.tidy(connection)
    assert not former.parent.exists()

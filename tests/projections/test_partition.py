"""Several projectors that share the streams are one, once their tables are merged."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from bus import errors
from bus.events import invocation as ev
from bus.ids import new_id
from bus.server import EmbeddedServer
from bus.store import CONTROL, INVOCATIONS
from bus.subjects import Ref
from bus.wire import Delivery
from projections import database, fold, snapshot
from projections.merge import Unmergeable, merge
from projections.partition import Partition
from projections.primary import Files
from tests.projections.histories import fleet
from tests.projections.stand import LIMIT_S, Stand, open_stand
from tests.projections.test_rebuild import LOOKED_AT, take

#: No view that sums floats or takes the most frequent of several: those depend on the order of rows that are the same.
ALL = (*LOOKED_AT, "schedules", "freezes", "guard_trips", "registry_versions", "findings")


def dump(connection: duckdb.DuckDBPyConnection) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of all of them, in an order that does not depend on how they came."""
    connection.execute("CREATE OR REPLACE TEMP MACRO moment() AS TIMESTAMP '2026-11-25 12:00:00'")
    return {name: sorted(connection.execute(f"FROM {name}").fetchall(), key=repr) for name in ALL}


def made(file: Path, streams: Mapping[str, list[Delivery]], partition: Partition) -> Path:
    """Tables of one partition of a history, as a file."""
    with duckdb.connect(str(file), config={"threads": 1}) as connection:
        fold.create(connection)
        connection.execute(database.POSITIONS)
        connection.execute("INSERT INTO hot.made VALUES ('v', ?, '', '', true)", [datetime(2026, 11, 25)])  # noqa: DTZ001 (as tables have it)
        snapshot._stamp(
            connection, [], host=f"{partition.name}_here", pause_s=1.0, now=datetime(2026, 11, 25, tzinfo=UTC)
        )
        for stream, deliveries in streams.items():
            take(connection, stream, partition.own(stream, deliveries))
    return file


# Hundreds of comments on columns make a file of tables slow to begin: few examples, and none smaller.
@pytest.mark.soak
@settings(max_examples=3, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(seed=st.integers(0, 2**32), steps=st.integers(10, 40), of=st.integers(2, 3))
def test_merged_tables_are_those_of_one_projector(seed: int, steps: int, of: int) -> None:
    """Whatever the history and the number of partitions, their union has the rows of a single projector, no more and no less."""
    with tempfile.TemporaryDirectory() as name:
        folder, streams = Path(name), fleet(seed, steps)
        parts = [made(folder / f"{n}.duckdb", streams, Partition(n, of)) for n in range(of)]
        whole = made(folder / "whole.duckdb", streams, Partition())
        merge(parts, folder / "merged.duckdb")
        with duckdb.connect(str(folder / "merged.duckdb")) as one, duckdb.connect(str(whole)) as other:
            assert dump(one) == dump(other)


def test_each_message_belongs_to_one_partition() -> None:
    """Of any number of partitions exactly one takes a message; a part that there is not is refused."""
    for stream, deliveries in fleet(5, 40).items():
        for of in (1, 2, 5):
            taken = [d.seq for n in range(of) for d in Partition(n, of).own(stream, deliveries)]
            assert sorted(taken) == [d.seq for d in deliveries]
    with pytest.raises(errors.Conflict, match="between 0 and 1, got: 2"):
        Partition(2, 2)


def test_file_that_is_no_part_is_named(tmp_path: Path) -> None:
    """A file that is not there, or no published tables, ends the merge with its name and leaves the former result."""
    target = tmp_path / "merged.duckdb"
    target.write_bytes(b"former")
    with pytest.raises(Unmergeable, match=r"nothing\.duckdb"):
        merge([tmp_path / "nothing.duckdb"], target)
    assert target.read_bytes() == b"former"


@pytest.mark.slow
async def test_two_projectors_share_a_stream(server: EmbeddedServer, tmp_path: Path) -> None:
    """Two projectors on one server, each with its own primary, publish what merged is every message of the streams, once."""
    async with open_stand(server, tmp_path) as stand, AsyncExitStack() as stack:
        for number in range(12):
            ref = Ref(f"project-{number}", "coder", new_id())
            await stand.bus.store.append(
                stand.bus.author.invocation(ref, ev.Requested(input=msgspec.Raw(b"%d" % number)))
            )
        await stand.invocations(3)
        running = []
        for n in range(2):
            part = Partition(n, 2)
            stood = Stand(stand.bus, tmp_path)
            stood.files = Files(tmp_path / part.name, tmp_path / f"{part.name}.duckdb")
            projector = stood.projector(partition=part, seat=f"{part.name}_here")
            running.append((stood, await stack.enter_async_context(stood.running(projector))))
        for _, projector in running:
            async with asyncio.timeout(LIMIT_S):
                while not projector.positions:
                    await asyncio.sleep(0.01)
                await projector.caught_up()
            await projector.finish()
        rows = [len(stood.rows(projector)) for stood, projector in running]
        stored = await stand.stored()
        assert (sum(rows), all(rows)) == (len(stored), True)
        merge([stood.files.published for stood, _ in running], tmp_path / "fleet.duckdb")
        with duckdb.connect(str(tmp_path / "fleet.duckdb"), read_only=True) as whole:
            assert whole.execute("SELECT stream, seq, raw FROM hot.log ORDER BY ALL").fetchall() == stored
            assert whole.execute("SELECT count(*) FROM invocations").fetchall() == [(15,)]
            assert whole.execute("SELECT stream FROM projection_lag WHERE behind = 0 ORDER BY stream").fetchall() == [
                ("ADVISORIES",),
                (CONTROL,),
                ("DEAD_LETTERS",),
                (INVOCATIONS,),
            ]

"""Three parts as processes of their own, one of them killed with -9 under a load: merged they are what a single projector has."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pytest

from bus.server import EmbeddedServer
from bus.store import CONTROL, DEAD_LETTERS, INVOCATIONS
from projections.partition import Partition
from tests.chaos.story import LIMIT_S
from tests.chaos.writes import writes
from tests.projections.histories import fleet
from tests.projections.stand import Stand, open_stand
from tests.projections.test_partition import ALL, dump

pytestmark = [pytest.mark.chaos, pytest.mark.slow, pytest.mark.soak]

BIN = Path(sys.executable).parent
OF = 3
#: Histories of the load, and what each of them is made of.
ROUNDS, STEPS = 24, 60
ORDER = (INVOCATIONS, CONTROL, DEAD_LETTERS)


def histories() -> list[list[tuple[str, bytes]]]:
    """Rounds of messages as they are published: lives, soups, guards and rubbish of projects that no other round has."""
    rounds, published = [], 0
    for number in range(ROUNDS):
        streams = fleet(number, STEPS)
        # A copy of a dead letter replaces the one before: who reads later does not see that one.
        streams[DEAD_LETTERS] = list({each.subject: each for each in streams[DEAD_LETTERS]}.values())
        places = {each.seq: at for at, each in enumerate(streams[INVOCATIONS], published + 1)}
        published += len(places)
        messages = [(d.subject, placed(d.data, places)) for name in ORDER for d in streams[name]]
        for project in ("shop", "ledger"):
            old, new = f".{project}.", f".{project}-{number}."
            messages = [(s.replace(old, new), data.replace(old.encode(), new.encode())) for s, data in messages]
        rounds.append(messages)
    return rounds


def placed(data: bytes, places: dict[int, int]) -> bytes:
    """A copy of a dead letter names the death by its sequence: the one that the server gives it."""
    return re.sub(rb'"died_seq":(\d+)', lambda found: b'"died_seq":%d' % places[int(found[1])], data)


class Process:
    """One part, as anybody starts it."""

    def __init__(self, server: EmbeddedServer, number: int, folder: Path) -> None:
        part = Partition(number, OF)
        self.published = folder / f"{part.name}.duckdb"
        self._files = [folder / part.name / f"primary{name}.duckdb" for name in ("", ".next")]
        self._files.append(self.published.with_name(f".{self.published.name}.draft"))
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("NATS_", "SYSTEMS_"))}
        command = [str(BIN / "systems"), "part", "run", str(part), "--into", str(folder)]
        command += ["--server", server.url, "--home", str(folder / "no-home"), "--publish", "50ms"]
        self._lines = folder / f"{part.name}.jsonl"
        self._errors = (folder / f"{part.name}.err").open("ab")
        with self._lines.open("wb") as lines:
            self.process = subprocess.Popen(
                [*command, "--every", "50ms", "--output", "json"], stdout=lines, stderr=self._errors, env=kept
            )

    def said(self) -> dict[str, Any]:
        """The last line that it has printed."""
        lines = [line for line in self._lines.read_bytes().split(b"\n")[:-1] if line]
        return msgspec.json.decode(lines[-1]) if lines else {}

    async def writes(self, times: int, load: asyncio.Future[Any]) -> None:
        """Wait until it is at work, wherever in it: see :func:`writes`."""
        await writes(self.process, self._files, times, load, "its .err")

    async def reached(self, wanted: dict[str, int]) -> None:
        """Wait until its published copy is that far in each stream."""
        found: dict[str, int] = {}
        async with asyncio.timeout(LIMIT_S):
            while found != wanted:
                assert self.process.poll() is None, "the part ended by itself: see its .err"
                await asyncio.sleep(0.05)
                if self.published.exists():
                    with duckdb.connect(str(self.published), read_only=True) as copy:
                        found = dict(copy.execute("SELECT stream, seq FROM hot.positions").fetchall())

    def kill(self) -> None:
        """SIGKILL, and wait for its end."""
        self.process.kill()
        self.process.wait()
        self._errors.close()

    async def stop(self) -> int:
        """SIGTERM, and its exit status."""
        self.process.terminate()
        try:
            return await asyncio.to_thread(self.process.wait, LIMIT_S)
        finally:
            self.kill()


@asynccontextmanager
async def started(server: EmbeddedServer, folder: Path) -> AsyncIterator[list[Process]]:
    """All parts. None of them is left when the block ends."""
    folder.mkdir()
    parts = [Process(server, number, folder) for number in range(OF)]
    try:
        yield parts
    finally:
        for part in parts:
            part.kill()


async def load(stand: Stand, rounds: list[list[tuple[str, bytes]]]) -> None:
    """Publish everything, a round at a time, as fast as the server takes it."""
    nc = stand.bus.connection.nc
    for messages in rounds:
        for subject, data in messages:
            nc.send(subject, data)
        await nc.flush()


async def test_parts_that_are_killed_merge_into_what_one_projector_has(server: EmbeddedServer, tmp_path: Path) -> None:
    """Row for row the merged file of three parts, one killed twice under the load, is what a single projector has."""
    folder, merged = tmp_path / "parts", tmp_path / "fleet.duckdb"
    rounds = histories()
    async with open_stand(server, tmp_path / "single") as stand, started(server, folder) as parts:
        for chance in range(2):
            share = rounds[chance * ROUNDS // 2 : (chance + 1) * ROUNDS // 2]
            loading = asyncio.create_task(load(stand, share))
            # While its tables are made, then somewhere among its checkpoints and copies.
            await parts[1].writes(1 + 3 * chance, loading)
            parts[1].kill()
            await loading
            parts[1] = Process(server, 1, folder)
        last = {stream: seq for stream, seq, _ in await stand.stored()}
        for part in parts:
            await part.reached(last)
        assert [await part.stop() for part in parts] == [0] * OF
        assert [part.said()["state"] for part in parts] == ["stopped"] * OF

        merging = await asyncio.to_thread(
            subprocess.run,
            [str(BIN / "systems"), "part", "merge", str(folder), "--into", str(merged)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert merging.returncode == 0, merging.stderr
        async with stand.running() as projector:
            await stand.caught_up(projector)
            with duckdb.connect(str(merged)) as many, projector.cursor() as one:
                found, wanted = dump(many), dump(one)
                for name in ALL:
                    assert found[name] == wanted[name], name
                log = many.execute("SELECT stream, seq, raw FROM hot.log ORDER BY ALL").fetchall()
                assert log == stand.rows(projector) == await stand.stored()
        assert len(log) > ROUNDS * STEPS
        # The command line is of another release than the library that writes.
        asked = await asyncio.to_thread(
            subprocess.run,
            [str(BIN / "duckdb"), "-readonly", "-noheader", "-list", str(merged), "-c", "SELECT count(*) FROM hot.log"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert asked.stdout == f"{len(log)}\n"

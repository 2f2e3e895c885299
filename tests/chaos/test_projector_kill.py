"""The projector is killed with -9 again and again, its disk fills up, and anybody reads its tables meanwhile."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.chaos.fleet import Desk, Fleet
from tests.chaos.story import LIMIT_S
from tests.chaos.writes import writes

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

#: The DuckDB command line of this installation: another release than the library that writes.
DUCKDB = str(Path(sys.executable).parent / "duckdb")

FLEET = """
[daemons]
restart = { exits = 100, period = "5m" }

[projector]
publish = "100ms"

[projects.shop.roles.coder]
handler = { kind = "function", target = "handlers:work" }
concurrency = 16
"""
HANDLERS = """
async def work(input):
    return input
"""
STREAMS = ("INVOCATIONS", "CONTROL", "DEAD_LETTERS", "ADVISORIES")


async def stored(desk: Desk) -> list[tuple[str, int, str]]:
    """Every message of the streams, read plainly from the server: stream, sequence, subject."""
    found: list[tuple[str, int, str]] = []
    for stream in STREAMS:
        found.extend([(stream, m.seq, m.subject) async for m in desk.bus.store.messages(stream, ">")])
    return sorted(found)


async def ask(fleet: Fleet, sql: str, file: Path | None = None) -> list[str]:
    """What the real command line answers over the published file: its lines."""
    ended = await fleet.run(DUCKDB, "-readonly", "-noheader", "-list", str(file or fleet.home.tables), "-c", sql)
    assert ended.status == 0, ended.err
    return ended.out.splitlines()


async def published(fleet: Fleet, wanted: list[tuple[str, int, str]]) -> None:
    """Wait until the published tables hold exactly these messages, each once, by the real command line."""
    expected = [f"{stream}|{seq}|{subject}" for stream, seq, subject in wanted]
    last = {stream: seq for stream, seq, _ in wanted}
    upto = " OR ".join(f"(stream = '{stream}' AND seq <= {seq})" for stream, seq in last.items())
    got: list[str] = []
    try:
        async with asyncio.timeout(LIMIT_S):
            while got != expected:
                if fleet.home.tables.exists():
                    got = await ask(fleet, f"SELECT stream, seq, subject FROM hot.log WHERE {upto} ORDER BY ALL")  # noqa: S608
                await asyncio.sleep(0.1)
    except TimeoutError:
        missing, more = set(expected) - set(got), len(got) - len(set(got))
        raise AssertionError(
            f"{len(missing)} messages are missing, such as {sorted(missing)[:3]}; {more} are doubled"
        ) from None


class Victim:
    """A projector process of the test's own: the launcher would wait longer and longer between its starts."""

    def __init__(self, fleet: Fleet) -> None:
        home = fleet.home
        self._files = [home.projections / f"primary{part}.duckdb" for part in ("", ".next")]
        self._files.append(home.tables.with_name(f".{home.tables.name}.draft"))
        self._log = (fleet.home.logs / "projector.log").open("ab")
        where = ("--home", str(fleet.home.path), "--fleet", str(fleet.file), "--instance", "projector")
        command = (sys.executable, "-m", "services.app", "projector", *where, "--publish-s", "0.1")
        self.process = subprocess.Popen(command, env=fleet.environ, stdout=self._log, stderr=self._log)

    async def writes(self, times: int, load: asyncio.Future[Any]) -> None:
        """Wait until it is at work, wherever in it: see :func:`writes`."""
        await writes(self.process, self._files, times, load, "logs/projector.log")

    def kill(self) -> None:
        """SIGKILL, and wait for its end."""
        self.process.kill()
        self.process.wait()
        self._log.close()


@pytest.mark.parametrize("times", [3, pytest.param(20, marks=pytest.mark.soak)])
async def test_projector_that_is_killed_misses_and_doubles_nothing(fleet: Fleet, times: int) -> None:
    """Killed during a load, at whatever it was doing, the projector ends with each stored message in its tables once."""
    fleet.write(FLEET.replace('publish = "100ms"', "enabled = false"), HANDLERS)
    await fleet.up()
    async with fleet.bus() as desk:
        ids: list[str] = []
        for n in range(times):
            # As many for each of them, so that the work does not grow with the time that a start takes here.
            asking = asyncio.create_task(desk.ask_many("shop/coder", 60, at_once=4))
            victim = Victim(fleet)
            try:
                # At its first write, at its second, at its third: in a checkpoint, in a copy, and with rows in its memory alone.
                await victim.writes(1 + n % 3, asking)
            finally:
                victim.kill()
            ids += await asking
        await desk.all_ended(ids)
        everything = await stored(desk)
        last = Victim(fleet)
        try:
            await published(fleet, everything)
            # The tables that are folded from it agree: each invocation once, and ended.
            counts = await ask(fleet, "SELECT state, count(*) FROM hot.invocations GROUP BY ALL ORDER BY ALL")
            assert counts == [f"completed|{len(ids)}"]
        finally:
            last.kill()


async def test_duckdb_command_line_answers_while_the_fleet_works(fleet: Fleet) -> None:
    """The real command line opens the published file again and again during a load, and each answer is whole and newer."""
    fleet.write(FLEET, HANDLERS)
    await fleet.up()
    async with fleet.bus() as desk:
        await published(fleet, await stored(desk))
        held = fleet.home.path / "held.duckdb"
        os.link(fleet.home.tables, held)
        # A reader that opened the first copy and keeps it open through all that follows.
        reader = subprocess.Popen(  # noqa: ASYNC220 (a fork of milliseconds, in a test)
            [DUCKDB, "-readonly", "-noheader", "-list", str(held)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert reader.stdin is not None
        assert reader.stdout is not None

        def old() -> str:
            assert reader.stdin is not None
            assert reader.stdout is not None
            reader.stdin.write("SELECT number, (SELECT count(*) FROM hot.log) FROM snapshot;\n")
            reader.stdin.flush()
            return reader.stdout.readline()

        try:
            first = await asyncio.to_thread(old)
            asking = asyncio.create_task(desk.ask_many("shop/coder", 3000, at_once=32))
            seen: list[tuple[int, int]] = []
            while not asking.done() or len(seen) < 5:
                # All of it from one copy: what the log holds is what the lag table says, and nothing is in it twice.
                row = await ask(
                    fleet,
                    "SELECT number, (SELECT count(*) FROM hot.log), (SELECT count(DISTINCT (stream, seq)) FROM hot.log), "
                    "(SELECT sum(seq) FROM projection_lag) FROM snapshot",
                )
                number, rows, distinct, reach = map(int, row[0].split("|"))
                assert rows == distinct == reach
                seen.append((number, rows))
            assert seen == sorted(seen)
            assert len({number for number, _ in seen}) > 1
            await desk.all_ended(await asking)
            await published(fleet, await stored(desk))
            assert await asyncio.to_thread(old) == first
        finally:
            reader.stdin.close()
            reader.wait()
            reader.stdout.close()


async def test_full_disk_stops_the_tables_and_not_the_fleet(fleet: Fleet) -> None:
    """With no room for its files the projector says so and keeps its position; when there is room again it goes on by itself."""
    fleet.write(FLEET, HANDLERS)
    fleet.home.prepare()
    mounted = subprocess.run(  # noqa: ASYNC221 (a mount, in a test)
        ["mount", "-t", "tmpfs", "-o", "size=8m,mode=0700", "tmpfs", str(fleet.home.projections)],
        check=False,
        capture_output=True,
        text=True,
    )
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be made here: {mounted.stderr.strip()}")
    try:
        await fleet.up()
        async with fleet.bus() as desk:
            await desk.all_ended(await desk.ask_many("shop/coder", 50))
            before = await stored(desk)
            await published(fleet, before)
            filler = fleet.home.projections / "filler"
            fill(filler)
            ids = await desk.ask_many("shop/coder", 300)
            stalled = await desk.control.subject(lambda record: record.subject.endswith(".stalled"))
            assert "room" in stalled.data.why
            # The fleet works on without its tables, and the panel says what is in the way.
            await desk.all_ended(ids)
            status = await fleet.systems("status")
            assert status.status == 1
            assert "the tables stand still: expected room on the disk" in status.out
            with duckdb.connect(str(fleet.home.tables), read_only=True) as copy:
                assert copy.execute("SELECT count(*) FROM hot.log").fetchall()[0][0] >= len(before)
            filler.unlink()
            await desk.control.subject(lambda record: record.subject.endswith(".resumed"))
            await published(fleet, await stored(desk))
    finally:
        await fleet.down()
        subprocess.run(["umount", str(fleet.home.projections)], check=True)  # noqa: ASYNC221


def fill(filler: Path) -> None:
    """Take all the room that there is."""
    with filler.open("wb", buffering=0) as out:
        size = 1024 * 1024
        while size >= 512:
            try:
                out.write(b"x" * size)
            except OSError:
                size //= 2

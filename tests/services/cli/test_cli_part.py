"""``systems part`` from the shell: what it refuses, and one whole that is run, stopped, merged and opened."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog

from bus.server import EmbeddedServer
from services.cli.exits import Exit
from services.cli.main import main
from services.cli.part import WAITING, Look
from tests.projections.stand import open_stand
from tests.services.cli.conftest import LIMIT_S, Cli

DUCKDB = str(Path(sys.executable).parent / "duckdb")


@pytest.fixture
def speaking() -> Iterator[None]:
    """A command that runs in this process has the log written to its stderr, which is closed when the test ends."""
    yield
    structlog.reset_defaults()


@pytest.mark.usefixtures("speaking")
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["run", "5/4", "--into", "here"],
            "expected a part as NUMBER/OF, counted from 0, such as 0/4 to 3/4, got: '5/4'",
        ),
        (["run", "0/4", "--into", "here", "--every", "0s"], "expected --every to be longer than 0, got: '0s'"),
        (["run", "0/4", "--into", "here", "--memory-mb", "1"], "expected --memory-mb to be at least"),
        (["run", "0/4", "--into", "here", "--archive", "nowhere"], "expected the folder of an archive at nowhere"),
        (
            ["merge", "--into", "all.duckdb"],
            "expected the published copies of all parts, or folders with them, got: none",
        ),
        (["merge", "no.duckdb", "--into", "all.duckdb"], "of a part at no.duckdb, got: no such file"),
        (
            ["merge", ".", "--into", "all.duckdb"],
            "expected published copies of parts (part-0-of-4.duckdb, ...) in ., got: none",
        ),
        (["merge", "note", "--into", "note"], "which is a part"),
        (["merge", "note", "--into", "home/fleet.duckdb"], "which the fleet's own projector replaces"),
        (["merge", "note", "--into", "all.duckdb"], "expected published tables in note, got:"),
        (["merge", "note", "--into", "nowhere/all.duckdb"], "expected a folder that can be written at nowhere"),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_sentence(
    words: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A part that there is not, and files that are no parts, end with the status of a usage error and say what was expected."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "note").write_text("no tables")
    assert main(["part", *words, "--home", "home"]) == Exit.USAGE
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "all.duckdb").exists()


def test_line_of_a_part_says_lag_as_events_and_seconds() -> None:
    """A line has the lag, what was kept and the copy; while the server is away it has the reason and no number."""
    now = Look(part="1/4", state="building", behind=12_412, seconds=3.14, kept=3120)
    assert str(now) == "part 1/4 building | 12,412 events behind, 3.1 s | 3,120 kept | no copy yet"
    done = msgspec.structs.replace(now, state="following", behind=0, copy=7, bytes=4_400_000)
    assert str(done) == "part 1/4 following | caught up | 3,120 kept | copy 7, 4.4 MB"
    away = msgspec.structs.replace(done, state=WAITING, problem="no answer")
    assert str(away) == "part 1/4 waiting | no answer"


async def said(process: Process, **wanted: Any) -> dict[str, Any]:
    """The first line of a part with these facts."""
    assert process.stdout is not None
    async with asyncio.timeout(LIMIT_S):
        while line := await process.stdout.readline():
            now: dict[str, Any] = msgspec.json.decode(line)
            if now | wanted == now:
                return now
    raise AssertionError(f"it ended without {wanted}")


@asynccontextmanager
async def started(cli: Cli, *arguments: str) -> AsyncIterator[Process]:
    """A command that goes on, and is not left when the block ends."""
    process = await cli.start(*arguments, "--output", "json")
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def stopped(process: Process) -> int:
    """SIGTERM, and its exit status."""
    process.terminate()
    return await asyncio.wait_for(process.wait(), LIMIT_S)


@pytest.mark.slow
async def test_parts_run_stop_and_merge(cli: Cli, server: EmbeddedServer, tmp_path: Path) -> None:
    """Two parts catch up, a third one of the same part is refused, both end with a last copy, and duckdb opens their union."""
    folder, merged = tmp_path / "parts", tmp_path / "all.duckdb"
    more = ("--into", str(folder), "--server", server.url, "--every", "50ms")
    async with open_stand(server, tmp_path) as stand:
        await stand.invocations(4)
        async with (
            started(cli, "part", "run", "0/2", *more) as first,
            started(cli, "part", "run", "1/2", *more) as second,
        ):
            for part in (first, second):
                assert await said(part, state="following", behind=0) != {}
            twin = await cli("part", "run", "1/2", *more)
            assert (twin.status, f"process {second.pid} has it open" in twin.err) == (Exit.FAILED, True), twin.err
            assert f"open {folder / 'part-1-of-2.duckdb'} instead" in twin.err
            for part in (first, second):
                part.terminate()
            last = [await said(part, state="stopped") for part in (first, second)]
            assert sum(each["kept"] for each in last) == 13
            assert [await asyncio.wait_for(part.wait(), LIMIT_S) for part in (first, second)] == [Exit.DONE] * 2
    lacking = await cli("part", "merge", str(folder / "part-0-of-2.duckdb"), "--into", str(merged))
    assert (lacking.status, "got: none of 1/2" in lacking.err) == (Exit.USAGE, True)
    whole = await cli("part", "merge", str(folder), "--into", str(merged), "--output", "json")
    assert (whole.status, len(whole.json["parts"])) == (Exit.DONE, 2), whole.err
    sql = "SELECT (SELECT count(*) FROM invocations WHERE state = 'completed'), (SELECT count(*) FROM events)"
    asked = await asyncio.create_subprocess_exec(
        DUCKDB, "-readonly", "-noheader", "-list", str(merged), "-c", sql, stdout=asyncio.subprocess.PIPE
    )
    assert (await asked.communicate())[0] == b"4|13\n"


@pytest.mark.soak
async def test_merge_goes_on_when_a_part_changes(cli: Cli, server: EmbeddedServer, tmp_path: Path) -> None:
    """With --every a merge waits for parts, follows what they publish, says once what is in the way, and ends with SIGTERM as done."""
    merged, copy = tmp_path / "all.duckdb", tmp_path / "part-0-of-1.duckdb"
    run = (
        "part",
        "run",
        "0/1",
        "--into",
        str(tmp_path),
        "--server",
        server.url,
        "--publish",
        "50ms",
        "--every",
        "50ms",
    )
    follow = ("part", "merge", str(tmp_path), "--into", str(merged), "--every", "50ms")
    async with open_stand(server, tmp_path) as stand, started(cli, *follow) as merging:
        assert merging.stderr is not None
        told = await asyncio.wait_for(merging.stderr.readline(), LIMIT_S)
        assert told.endswith(b"got: none; looks again every 50ms\n")
        await stand.invocations(1)
        async with started(cli, *run) as part:
            first = await said(merging)
            await said(part, state="following", behind=0)
            await stand.invocations(1)
            second = await said(merging)
            assert second["parts"][0]["published_at"] > first["parts"][0]["published_at"]
            assert await stopped(part) == Exit.DONE
        copy.unlink()
        told = await asyncio.wait_for(merging.stderr.readline(), LIMIT_S)
        assert told.endswith(b"looks again every 50ms\n")
        assert await stopped(merging) == Exit.DONE
    assert merged.exists()

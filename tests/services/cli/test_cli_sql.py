"""``systems sql``, ``query``, ``explain`` and ``--at`` against a fleet of processes, and without one."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
import re
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import nats
import pyarrow as pa
import pytest
import pytest_asyncio
from nats import errors as driver

from bus.context import SERVER_FILE, Context
from services.home import Home
from services.projector import subjects
from tests.services.cli.conftest import LIMIT_S, Cli

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

ENDLESS = "WITH RECURSIVE a AS (SELECT 1 AS x UNION ALL SELECT x + 1 FROM a) SELECT * FROM a WHERE x < 0"


async def rows(cli: Cli, sql: str, *more: str) -> list[dict[str, Any]]:
    """A statement's rows."""
    done = await cli("sql", sql, "--output", "json", *more)
    assert done.status == 0, done.err
    found: list[dict[str, Any]] = done.json["rows"]
    return found


class Tables:
    """The projector, and three invocations that it has in its tables: role -> id."""

    def __init__(self, cli: Cli) -> None:
        self._cli = cli
        self._process: Process | None = None
        self.ids: dict[str, str] = {}

    async def start(self) -> None:
        """Start a projector, as a process, and wait until it has everything."""
        with (self._cli.home / "projector.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "services.app", "projector", "--home", str(self._cli.home),
                "--fleet", str(self._cli.home.parent / "fleet.toml"), "--instance", "projector", "--publish-s", "0.2",
                stdout=log, stderr=log, env=self._cli.environment,
            )  # fmt: skip
        sql = "FROM invocations WHERE role IN ('echo', 'parent', 'hopeless') AND ended_at IS NOT NULL"
        async with asyncio.timeout(LIMIT_S):
            # Until it answers itself a statement has no answer: no file is there yet, or it is an old one.
            while (found := await self._cli("sql", sql, "--output", "json")).err or len(found.json["rows"]) < 5:
                pass

    async def stop(self) -> None:
        """End it."""
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            await asyncio.wait_for(self._process.wait(), 30)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tables(fleet: Cli) -> AsyncIterator[Tables]:
    """A fleet's work in its tables."""
    found = Tables(fleet)
    for role, status in (("shop/echo", "completed"), ("shop/parent", "completed"), ("shop/hopeless", "dead_lettered")):
        asked = await fleet("invoke", role, "--input", '{"x": 1}', "--output", "json")
        found.ids[role] = asked.json["id"]
        await fleet.ended(found.ids[role], status)
    await found.start()
    yield found
    await found.stop()


@pytest.fixture
def ids(tables: Tables) -> dict[str, str]:
    """Ids of the three, by role."""
    return tables.ids


async def test_sql_in_every_format(fleet: Cli, ids: dict[str, str]) -> None:
    """The same answer as a table, as JSON, as CSV and as an Arrow stream, and from stdin."""
    sql = "SELECT id, state, attempts FROM invocations WHERE role = 'hopeless'"
    table = await fleet("sql", sql)
    assert table.out.splitlines()[0].split() == ["id", "state", "attempts"]
    assert table.out.splitlines()[1].split() == [ids["shop/hopeless"], "dead_lettered", "1"]
    wanted = {"id": ids["shop/hopeless"], "state": "dead_lettered", "attempts": 1}
    assert await rows(fleet, sql) == [wanted]
    text = (await fleet("sql", "-", "--output", "csv", stdin=sql.encode())).out
    assert list(csv.DictReader(io.StringIO(text))) == [{k: str(v) for k, v in wanted.items()}]
    process = await fleet.start("sql", sql, "--output", "arrow")
    out, _ = await asyncio.wait_for(process.communicate(), LIMIT_S)
    assert pa.ipc.open_stream(io.BytesIO(out)).read_all().to_pylist() == [wanted]


async def test_sql_alone_lists_the_tables(fleet: Cli, ids: dict[str, str]) -> None:
    """Without a statement the tables are listed, each with what is in it."""
    assert ids
    out = (await fleet("sql")).out
    assert "One row for each invocation: the fold of its events" in out
    assert "v_failure_bill" in out


async def test_limits_are_told(fleet: Cli, ids: dict[str, str]) -> None:
    """What was cut is told on stderr; what takes too long ends with 75; Ctrl-C calls it off at the projector."""
    assert ids
    cut = await fleet("sql", "FROM range(100)", "--limit", "3")
    assert (cut.status, cut.out) == (0, "range\n    0\n    1\n    2\n")
    assert "only the first 3 rows are shown" in cut.err
    late = await fleet("sql", ENDLESS, "--timeout", "300ms")
    assert (late.status, "within 0.3 s" in late.err) == (75, True)
    large = await fleet("sql", "SELECT range AS n, repeat('x', 1000) AS x FROM range(5000)", "--output", "csv")
    assert (large.status, len(large.out.splitlines())) == (0, 5001)


async def test_ctrl_c_calls_off(fleet: Cli, ids: dict[str, str]) -> None:
    """Ctrl-C ends the command with 130, and the statement at the projector too: the next four are answered at once."""
    assert ids
    processes = [await fleet.start("sql", ENDLESS, "--timeout", "50s") for _ in range(4)]
    client = await nats.connect(msgspec.json.decode((fleet.home / SERVER_FILE).read_bytes(), type=Context).url)
    async with asyncio.timeout(LIMIT_S):
        # All four of its threads are taken: a fifth statement is not answered, for longer than a busy machine needs for it.
        with contextlib.suppress(driver.TimeoutError):
            while True:
                await client.request(subjects.SQL, b"SELECT 1", timeout=3)
    for process in processes:
        process.send_signal(signal.SIGINT)
    assert [await asyncio.wait_for(process.wait(), LIMIT_S) for process in processes] == [130] * 4
    assert (await client.request(subjects.SQL, b"SELECT 1 AS n", timeout=20)).data == b"n\n1\n"
    await client.close()


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("sql", "DELETE FROM invocations"), 1, "got: DELETE"),
        (("sql", "SELECT * FROM invocation"), 64, "unknown table 'invocation', did you mean 'invocations'"),
        (("sql", "SELECT stat FROM invocations"), 64, "unknown column 'stat' in invocations"),
        (("sql", "SELECT 1", "--limit", "0"), 64, "expected a limit from 1"),
        (("sql", "SELECT 1", "--file", "/nowhere.duckdb"), 64, "/nowhere.duckdb, which is not there"),
        (("sql", "SELECT 1", "--at", "2999-01-01"), 64, "expected --at to lie in the past"),
        (("sql", "SELECT 1", "--at", "2020-01-01"), 64, "expected a moment within the history, which begins 20"),
        (("sql", "SELECT 1", "--at", "soon"), 64, "expected --at to be a moment such as"),
        (("query", "last_eror"), 64, "unknown query 'last_eror', did you mean 'last_errors'?"),
        (("query", "last_errors", "--param", "since"), 64, "expected --param NAME=VALUE, got: 'since'"),
        (("query", "last_errors", "--param", "sinse=1h"), 64, "did you mean 'since'?"),
        (("explain", "invocations"), 64, "expected a key behind invocations"),
        (("explain", "invocation", "nope"), 64, "expected a row of invocations with nope, got none"),
        (("explain", "invocatons", "x"), 64, "unknown table 'invocatons', did you mean 'invocations'?"),
        (("explain", "CONTROL", "x"), 64, "expected a sequence of the stream, got: 'x'"),
        (("status", "--file", "x"), 64, "expected --at with --file"),
    ],
)
async def test_mistakes(fleet: Cli, ids: dict[str, str], arguments: tuple[str, ...], status: int, said: str) -> None:
    """A mistake is one sentence on stderr, and a status of its kind."""
    assert ids
    async with asyncio.timeout(LIMIT_S):
        while not Home(fleet.home).tables.exists():
            await asyncio.sleep(0.05)
    done = await fleet(*arguments)
    assert (done.status, said in done.err) == (status, True), done.err


async def test_named_queries(fleet: Cli, ids: dict[str, str]) -> None:
    """All named queries are listed with what they answer, also those of the home; one runs with its parameters."""
    folder = Home(fleet.home).queries
    folder.mkdir(exist_ok=True)
    (folder / "mine.sql").write_text("-- name: my own\nSELECT 7 AS seven")
    listed = (await fleet("query")).out
    assert re.search(r"^last_errors +the last attempts that failed or were swept", listed, re.MULTILINE)
    assert re.search(r"^mine +my own", listed, re.MULTILINE)
    found = await fleet(
        "query", "last_errors", "--param", "since=1h", "--param", "role=shop/hopeless", "--output", "json"
    )
    assert [row["id"] for row in found.json["rows"]] == [ids["shop/hopeless"]]
    assert (await fleet("query", "mine")).out == "seven\n    7\n"


async def test_explain(fleet: Cli, ids: dict[str, str]) -> None:
    """An invocation, a row of a view and a sequence are opened to the events that made them, each with what it says."""
    id_ = ids["shop/hopeless"]
    told = (await fleet("explain", "invocation", id_, "--output", "json")).json["rows"]
    assert [row["type"].rpartition(".")[2] for row in told] == ["requested", "claimed", "failed", "dead_lettered"]
    assert all(row["stream"] == "INVOCATIONS" for row in told)
    assert "nobody can do" in told[2]["what"]
    seq = str(told[2]["seq"])
    assert [row["seq"] for row in (await fleet("explain", "INVOCATIONS", seq, "--output", "json")).json["rows"]] == [
        int(seq)
    ]
    bill = (await fleet("explain", "v_failure_bill", id_, "--output", "json")).json["rows"]
    assert [row["seq"] for row in bill] == [row["seq"] for row in told]
    letter = (await fleet("explain", "dead_letters", id_, "--output", "json")).json["rows"]
    assert [row["stream"] for row in letter] == ["INVOCATIONS", "DEAD_LETTERS"]
    tree = (await fleet("explain", "v_cost_by_tree", ids["shop/parent"], "--output", "json")).json["rows"]
    assert len({row["about"] for row in tree}) == 3
    daemons = (await fleet("explain", "daemons", "warden", "--output", "json")).json["rows"]
    assert {row["type"] for row in daemons} == {"systems.daemon.started"}
    assert "dead_lettered" in (await fleet("explain", "invocation", id_)).out


async def test_as_of(fleet: Cli, ids: dict[str, str]) -> None:
    """The tables and the panel of a past moment: before the dead letter there is none, now there is."""
    assert ids
    died = (await rows(fleet, "SELECT died_at FROM dead_letters"))[0]["died_at"]
    sql = "SELECT (SELECT count(*) FROM dead_letters) AS dead, (SELECT count(*) FROM invocations) AS asked"
    async with asyncio.timeout(LIMIT_S):
        while (await rows(fleet, "SELECT count(*) AS n FROM dead_letters", "--file", str(Home(fleet.home).tables)))[0][
            "n"
        ] < 1:
            pass
    before = (
        await fleet(
            "sql",
            "SELECT (stored_at - INTERVAL 1 MILLISECOND) AS t FROM events WHERE event = 'dead_lettered'",
            "--output",
            "json",
        )
    ).json["rows"][0]["t"]
    assert (await rows(fleet, sql, "--at", before))[0]["dead"] == 0
    assert (await rows(fleet, sql, "--at", died))[0]["dead"] == 1
    then = await fleet("status", "--at", before, "--output", "json")
    assert (then.json["dead_letters"], then.json["unrecorded"] != []) == (0, True)
    late = await fleet("status", "--at", died)
    assert "1 dead letter waits for a person" in late.out
    assert "not in the log of that moment: heartbeats" in late.out
    assert "systems: as of 20" in late.err
    assert "all of it was folded" not in late.err
    # Whether nobody to run what waits had become an incident by then is the monitor's business.
    assert late.status in (1, 2)
    named = await fleet("query", "dead_letters", "--at", died, "--output", "json")
    assert named.json["rows"][0]["deaths"] == 1


async def test_status_without_a_server(fleet: Cli, ids: dict[str, str]) -> None:
    """While no server answers the panel is that of the published tables, the last line says why, and the exit status too."""
    assert ids
    elsewhere = Cli(fleet.home.parent / "gone")
    elsewhere.home.mkdir()
    nothing = await elsewhere("status")
    assert (nothing.status, nothing.out) == (69, "")
    Home(elsewhere.home).tables.write_bytes(Home(fleet.home).tables.read_bytes())
    shown = await elsewhere("status")
    assert shown.status == 69
    assert "shop/hopeless" in shown.out
    assert "not in the log of that moment" in shown.out
    first, last = shown.err.strip().splitlines()
    assert first.startswith("systems: as of 20")
    assert last.startswith("systems: no NATS server answers at ")


async def test_without_the_projector(fleet: Cli, ids: dict[str, str]) -> None:
    """When the projector is away the published file is asked, its age is told, and its answer is the same."""
    sql = "SELECT id FROM invocations WHERE role = 'hopeless'"
    file = Home(fleet.home).tables
    elsewhere = Cli(fleet.home.parent / "elsewhere")
    elsewhere.home.mkdir()
    Home(elsewhere.home).tables.write_bytes(file.read_bytes())
    found = await elsewhere("sql", sql, "--output", "json")
    assert found.json["rows"] == [{"id": ids["shop/hopeless"]}]
    assert re.search(r"no NATS server answers; this is from .*fleet.duckdb, published .* ago \(20", found.err)
    told = await elsewhere("explain", "invocation", ids["shop/hopeless"], "--output", "json")
    assert len(told.json["rows"]) == 4
    nowhere = Cli(fleet.home.parent / "nowhere")
    gone = await nowhere("sql", sql)
    assert (gone.status, "and there is no" in gone.err) == (69, True)


@pytest.mark.soak
async def test_a_stopped_projector_is_told(fleet: Cli, tables: Tables) -> None:
    """With the server up and no projector the answer comes from the published file, and it says so with its age."""
    sql = "SELECT count(*) AS n FROM invocations"
    before = await rows(fleet, sql)
    await tables.stop()
    found = await fleet("sql", sql, "--output", "json")
    assert found.json["rows"] == before
    assert re.search(r"the projector does not answer; this is from .*fleet.duckdb, published .* ago \(20", found.err)
    assert (await fleet("query", "backlog")).status == 0
    await tables.start()
    assert not (await fleet("sql", sql)).err

"""SQL over NATS, asked of a projector that follows a real server."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from nats import errors as driver
from nats.aio.msg import Msg

from bus.driver import Driver
from bus.server import EmbeddedServer, Options
from projections.formats import Format
from projections.standing import SUBJECT
from services import credentials
from services.app.projector import start_projector
from services.home import Home
from services.micro import No
from services.projector import subjects
from services.projector.answers import Question
from services.runner.handler import Permanent
from tests.services.rig import Rig

ENDLESS = "WITH RECURSIVE a AS (SELECT 1 AS x UNION ALL SELECT x + 1 FROM a) SELECT * FROM a WHERE x < 0"


async def echo(value: Any, _ctx: Any) -> Any:
    """Gives back what it gets."""
    return value


async def hopeless(_input: Any, _ctx: Any) -> None:
    """Never works."""
    raise Permanent("nobody can do this")


@pytest.fixture
async def asked(rig: Rig) -> Rig:
    """A fleet that has done something, and a projector that has it in its tables."""
    (rig.home / "queries").mkdir()
    (rig.home / "queries" / "mine.sql").write_text(
        "-- name: how many\n-- param n: int = 1: added\nSELECT count(*) + $n AS n FROM invocations"
    )
    await rig.warden()
    await rig.role("shop/echo", echo)
    await rig.role("shop/broken", hopeless)
    await rig.runner()
    for role in ("shop/echo", "shop/echo", "shop/broken"):
        accepted = await rig.ask(role, {"x": 1})
        await rig.story.ended(accepted.id)
    running = await rig._daemon("projector", "projector")
    await start_projector(running, memory_mb=128, publish_s=0.5)
    ended = "SELECT count(*) AS n FROM invocations WHERE ended_at IS NOT NULL"
    await until(rig, ended, [{"n": 3}])
    # New tables take the place of none, and whoever asks just then is told to ask again.
    async with asyncio.timeout(60):
        while b'"state":"following"' not in (await rig.connection.nc.request(SUBJECT, b"", timeout=5)).data:
            await asyncio.sleep(0.02)
    return rig


async def until(rig: Rig, sql: str, rows: list[dict[str, Any]]) -> None:
    """Wait until a statement has these rows; a projector that still opens its file refuses meanwhile."""
    async with asyncio.timeout(60):
        while isinstance(found := await ask(rig, sql, "json"), No) or found["rows"] != rows:
            await asyncio.sleep(0.05)


async def ask(rig: Rig, sql: str, format_: str = "table", **more: Any) -> Any:
    """An answer to SQL, decoded; of a refusal the refusal."""
    question = msgspec.json.encode({"sql": sql, "format": format_} | more)
    answer = await rig.connection.nc.request(subjects.SQL, question, timeout=20)
    return decoded(answer, format_)


def decoded(answer: Msg, format_: str) -> Any:
    """A message as what it holds."""
    if "Nats-Service-Error-Code" in (answer.headers or {}):
        return msgspec.json.decode(answer.data, type=No)
    match format_:
        case "json":
            return msgspec.json.decode(answer.data)
        case "arrow":
            return pa.ipc.open_stream(io.BytesIO(answer.data)).read_all().to_pylist()
        case _:
            return answer.data.decode()


@pytest.mark.slow
async def test_answers(asked: Rig, nats_cli: str) -> None:
    """Plain SQL, JSON, Arrow, CSV, parameters, named queries, lists, limits and refusals: the same answers over plain NATS."""
    nc = asked.connection.nc
    plain = await nc.request(
        subjects.SQL, b"SELECT state, count(*) AS n FROM invocations GROUP BY state ORDER BY state", timeout=20
    )
    assert plain.data.decode() == "state          n\ncompleted      2\ndead_lettered  1\n"
    assert plain.headers is not None
    assert plain.headers[subjects.ROWS] == "2"
    assert int(plain.headers[subjects.LAG_EVENTS]) >= 0
    as_csv = await nc.request(subjects.SQL, b"SELECT 1 AS a, 'x,y' AS b", timeout=20, headers={subjects.FORMAT: "csv"})
    assert as_csv.data == b'a,b\n1,"x,y"\n'
    sql = "SELECT role, attempts FROM invocations WHERE state = $state"
    assert await ask(asked, sql, "arrow", parameters={"state": "dead_lettered"}) == [{"role": "broken", "attempts": 1}]
    cut = await ask(asked, "FROM range(10)", "json", limit=2)
    assert (cut["rows"], cut["cut"]) == ([{"range": 0}, {"range": 1}], "rows")
    assert "only the first 2 rows" in await ask(asked, "FROM range(10)", limit=2)
    named = await nc.request(
        f"{subjects.QUERY}.last_errors", b'{"parameters": {"since": "1h"}, "format": "json"}', timeout=20
    )
    assert [row["message"] for row in decoded(named, "json")["rows"]] == ["nobody can do this"]
    own = await nc.request(f"{subjects.QUERY}.mine", b'{"parameters": {"n": 4}}', timeout=20)
    assert decoded(own, "json")["rows"] == [{"n": 7}]
    known = decoded(await nc.request(subjects.QUERIES, b"", timeout=20), "table")
    assert "mine" in known
    assert "the last attempts that failed or were swept" in known
    tables = decoded(await nc.request(subjects.TABLES, b"", timeout=20), "table")
    assert "One row for each invocation" in tables
    for body, kind, said in (
        (b"DELETE FROM invocations", "QueryRefused", "got: DELETE"),
        (b"SELECT * FROM invocation", "QueryMistake", "did you mean 'invocations'"),
        (b"FROM read_csv('/etc/passwd')", "QueryRefused", "the file /etc/passwd"),
        (b'{"sqll": "SELECT 1"}', "BadQuestion", "expected JSON with some of sql, parameters"),
        (b'{"sql": "SELECT 1", "limit": -1}', "QueryMistake", "expected a limit from 1"),
        (b'{"sql": "SELECT 1", "format": "xml"}', "BadQuestion", "format"),
    ):
        no = decoded(await nc.request(subjects.SQL, body, timeout=20), "json")
        assert isinstance(no, No)
        assert no.refused == kind
        assert said in no.reason
    gone = decoded(await nc.request(f"{subjects.QUERY}.last_eror", b"", timeout=20), "json")
    assert "unknown query 'last_eror', did you mean 'last_errors'?" in gone.reason
    process = await asyncio.create_subprocess_exec(
        nats_cli, "--server", asked.url, "req", "projections.sql", "SELECT 40 + 2 AS n", "--raw",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await asyncio.wait_for(process.communicate(), 30)
    assert out.decode().split() == ["n", "42"]


@pytest.mark.slow
async def test_large_and_endless(asked: Rig) -> None:
    """A large answer is one cut message, or all of it in parts; an endless statement ends by its time or by being called off."""
    nc = asked.connection.nc
    sql = "SELECT range AS n, repeat('x', 1000) AS x FROM range(5000)"
    cut = await ask(asked, sql, "json")
    assert cut["cut"] == "size"
    assert 100 < len(cut["rows"]) < 5000
    inbox = nc.new_inbox()
    replies = await nc.subscribe(inbox)
    question = msgspec.json.encode(Question(sql=sql, parts=True, format=Format.ARROW))
    await nc.publish(subjects.SQL, question, reply=inbox)
    data = b""
    while True:
        part = await replies.next_msg(timeout=20)
        assert len(part.data) < nc.max_payload
        data += part.data
        number, _, count = (part.headers or {})[subjects.PART].partition("/")
        if number == count:
            break
    assert int(count) > 5
    assert pa.ipc.open_stream(io.BytesIO(data)).read_all().num_rows == 5000
    late = await ask(asked, ENDLESS, timeout_s=0.3)
    assert (late.refused, "within 0.3 s" in late.reason) == ("QueryTooLong", True)
    running = asyncio.create_task(ask(asked, ENDLESS, timeout_s=50, id="mine"))
    async with asyncio.timeout(30):
        while not msgspec.json.decode((await nc.request(f"{subjects.CANCEL}.mine", b"")).data)["cancelled"]:
            await asyncio.sleep(0.01)
    assert (await running).refused == "QueryCancelled"
    huge = await ask(asked, "SELECT list(i) AS l FROM range(2_000_000_000) r(i)", timeout_s=50)
    assert huge.refused == "QueryTooLarge"
    accepted = await asked.ask("shop/echo", {"x": 2})
    await until(asked, f"SELECT state FROM invocations WHERE id = '{accepted.id}'", [{"state": "completed"}])  # noqa: S608


async def test_agents_may_not_ask(tmp_path: Path) -> None:
    """The login that handlers' children get cannot ask the tables; a person's can."""
    home = Home(tmp_path / "home")
    home.prepare()
    logins = credentials.make(home)
    options = Options(store_dir=home.nats, config=credentials.authorization(logins))
    async with EmbeddedServer(options) as server:

        async def connected(user: str) -> Driver:
            client = Driver()
            await client.connect(server.url, user=logins[user].user, password=logins[user].password)
            return client

        service, agent, person = [
            await connected(user) for user in ("projector", credentials.AGENTS, credentials.OPERATOR)
        ]

        async def answer(message: Msg) -> None:
            await message.respond(b"yes")

        await service.subscribe("projections.>", cb=answer)
        await service.flush()
        assert (await person.request(subjects.SQL, b"SELECT 1")).data == b"yes"
        with pytest.raises((driver.TimeoutError, driver.Error)):
            await agent.request(subjects.SQL, b"SELECT 1", timeout=0.5)
        for client in (service, agent, person):
            await client.close()

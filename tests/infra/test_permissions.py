"""The users of the embedded server, and what the server lets them do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from bus import errors, flags, plan
from bus.author import Author
from bus.connection import Connection, connect
from bus.context import Context
from bus.publisher import Publisher
from bus.server import EmbeddedServer, Options
from bus.topology import Topology, role_consumer, streams
from projections.partition import Partition
from services import credentials
from services.app.part import Place, open_part
from services.daemon import Bus, open_bus
from services.home import Home


@pytest.fixture
async def home(tmp_path: Path) -> Home:
    """A home with its directories."""
    made = Home(tmp_path / "home")
    made.prepare()
    return made


@pytest.fixture
async def guarded(home: Home) -> AsyncIterator[dict[str, Context]]:
    """A server with the generated users, the bus's streams and one role's consumer: the logins."""
    logins = credentials.make(home)
    options = Options(store_dir=home.nats, config=credentials.authorization(logins))
    async with EmbeddedServer(options) as server:
        found = {name: msgspec.structs.replace(login, url=server.url) for name, login in logins.items()}
        bus = await open_bus(found["operator"], "test", Author("/test", actor="tester"))
        shape = Topology(
            streams=streams(),
            consumers=(role_consumer("shop", "coder", ack_wait_s=30, max_deliver=7, max_ack_pending=100),),
        )
        await plan.apply(bus.connection, shape, await plan.plan(bus.connection, shape))
        await bus.close()
        yield found


async def of(guarded: dict[str, Context], user: str) -> Bus:
    """A connection as a user."""
    return await open_bus(guarded[user], f"test-{user}", Author(f"/test/{user}", actor=user))


async def may_publish(publisher: Publisher, subject: str) -> bool:
    """Whether the server lets the user publish there."""
    try:
        await publisher.publish(subject, b"frozen" if "flags" in subject else b"{}")
    except errors.PermissionDenied:
        return False
    except errors.ServerError:
        return True  # let through, and refused for what it is: a counter takes no plain message
    return True


async def may_ask(connection: Connection, request: str) -> bool:
    """Whether the server answers a JetStream API request of the user, with whatever."""
    try:
        await connection.api(request, {}, timeout=0.7)
    except errors.Unanswered:
        return False
    except errors.ServerError:
        return True
    return True


HARD, SOFT = "$KV.flags.kill_switch_hard", "$KV.flags.kill_switch"
PUBLISH = {
    "operator": {"inv.shop.coder.x.requested": True, "ctl.a.b.c": True, SOFT: True},
    "launcher": {HARD: False, SOFT: False, "$KV.registry.x": True, "ctl.a.b.c": True},
    "warden": {
        HARD: False,
        SOFT: True,
        "inv.shop.coder.x.requested": True,
        "$KV.trips.x": True,
        "spend.x.tokens.y": True,
    },
    "agent_runner": {
        HARD: False,
        SOFT: False,
        "$KV.registry.x": False,
        "inv.shop.coder.x.requested": True,
        "ctl.a.b.c": True,
        "$KV.trips.x": True,
        "$KV.liveness.x": True,
    },
    "agents": {
        HARD: False,
        SOFT: False,
        "$KV.registry.x": False,
        "$KV.trips.x": False,
        "inv.shop.coder.x.requested": False,
        "ctl.a.b.c": False,
        "dlq.a.b.c": False,
        "spend.x.tokens.y": False,
    },
    "drill": {
        HARD: False,
        SOFT: False,
        "$KV.flags.kill_switch_drill": True,
        "$KV.registry.roles.drill.x": True,
        "inv.drill.x.y.requested": True,
        "ctl.drill.loop.passed": True,
        "drill.write": True,
    },
    "slack_mirror": {HARD: False, "inv.shop.coder.x.requested": False, "ctl.a.b.c": True},
    "slack_desk": {
        HARD: False,
        "inv.shop.coder.x.redriven": True,
        "$KV.registry.a.b": True,
        SOFT: True,
        "ctl.a.b.c": True,
    },
    "slack_hard": {
        HARD: True,
        SOFT: True,
        "inv.shop.coder.x.redriven": False,
        "$KV.registry.a.b": False,
        "ctl.a.b.c": False,
    },
    "projector": {HARD: False, SOFT: False, "inv.shop.coder.x.requested": False, "$KV.trips.x": False},
}
API = {
    "warden": {"STREAM.UPDATE.INVOCATIONS": True, "STREAM.UPDATE.KV_flags": False, "STREAM.PURGE.KV_flags": False},
    "launcher": {"STREAM.UPDATE.INVOCATIONS": True, "STREAM.UPDATE.KV_flags": False, "STREAM.DELETE.KV_flags": False},
    "agent_runner": {
        "STREAM.UPDATE.INVOCATIONS": False,
        "STREAM.MSG.DELETE.KV_flags": False,
        "STREAM.PURGE.KV_flags": False,
        "STREAM.INFO.INVOCATIONS": True,
        "CONSUMER.PAUSE.INVOCATIONS.shop_coder": False,
    },
    "drill": {"STREAM.UPDATE.INVOCATIONS": False, "STREAM.PURGE.KV_flags": False, "STREAM.PURGE.DRILL": True},
    "agents": {
        "STREAM.UPDATE.INVOCATIONS": False,
        "STREAM.PURGE.INVOCATIONS": False,
        "STREAM.DELETE.KV_flags": False,
        "CONSUMER.PAUSE.INVOCATIONS.shop_coder": False,
        "STREAM.INFO.INVOCATIONS": True,
    },
}


@pytest.mark.slow
async def test_invocations_are_trimmed_by_the_projector_and_people_only(guarded: dict[str, Context]) -> None:
    """Of all users the operator and the projector may purge INVOCATIONS, and the projector may purge no other stream."""
    users = {user: await connect(login, f"test-{user}") for user, login in guarded.items()}
    try:
        may = await asyncio.gather(*(may_ask(user, "STREAM.PURGE.INVOCATIONS") for user in users.values()))
        assert {user for user, allowed in zip(users, may, strict=True) if allowed} == {"operator", "projector"}
        others = [stream.name for stream in streams() if stream.name != "INVOCATIONS"]
        assert not any(await asyncio.gather(*(may_ask(users["projector"], f"STREAM.PURGE.{name}") for name in others)))
    finally:
        for user in users.values():
            await user.close()


@pytest.mark.slow
async def test_part_reads_the_event_streams_and_writes_nothing(guarded: dict[str, Context], tmp_path: Path) -> None:
    """With the login of a part its projector catches up, and the server takes nothing from it: no event, flag, request or purge."""
    place = Place(partition=Partition(0, 2), folder=tmp_path / "parts", memory_mb=192, publish_s=0.05)
    async with open_part(guarded["part"], place) as part:
        running = asyncio.create_task(part.run())
        async with asyncio.timeout(30):
            while not part.projector.primary.ready:
                assert not running.done()
                await asyncio.sleep(0.005)
            await part.projector.caught_up()
        await part.projector.finish()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert place.files.published.exists()
    connection = await connect(guarded["part"], "test-part")
    publisher = Publisher(connection)
    await publisher.open()
    try:
        subjects = (
            "inv.shop.coder.x.requested",
            "ctl.a.b.c",
            "dlq.a.b.c",
            SOFT,
            "$KV.registry.x",
            "requests.shop.coder",
        )
        assert not [subject for subject in subjects if await may_publish(publisher, subject)]
        requests = (
            "STREAM.PURGE.CONTROL",
            "STREAM.UPDATE.CONTROL",
            "STREAM.INFO.KV_registry",
            "CONSUMER.CREATE.KV_flags.x",
        )
        assert not any(await asyncio.gather(*(may_ask(connection, request) for request in requests)))
    finally:
        await publisher.close()
        await connection.close()


@pytest.mark.parametrize("user", PUBLISH)
async def test_user_publishes_what_it_may_and_nothing_else(guarded: dict[str, Context], user: str) -> None:
    """Of each user's subjects the server takes exactly those that its table allows, and says at once which it does not."""
    bus = await of(guarded, user)
    bus.publisher.gate = None  # the flags that this test puts are to be refused by nobody but the server
    try:
        assert {subject: await may_publish(bus.publisher, subject) for subject in PUBLISH[user]} == PUBLISH[user]
    finally:
        await bus.close()


@pytest.mark.parametrize("user", API)
async def test_user_changes_only_the_streams_that_it_may(guarded: dict[str, Context], user: str) -> None:
    """Streams are changed by people, launcher and warden, and the flags' stream by people alone."""
    bus = await of(guarded, user)
    try:
        assert {request: await may_ask(bus.connection, request) for request in API[user]} == API[user]
    finally:
        await bus.close()


async def test_hard_freeze_is_put_and_cleared_for_people_only(guarded: dict[str, Context]) -> None:
    """A hard flag that the operator has put is still there after every login but the two of people has tried to clear it."""
    operator = await of(guarded, "operator")
    try:
        await operator.bucket("flags").put("kill_switch_hard", b"frozen")
        for user in PUBLISH.keys() - {"operator", "slack_hard"}:
            bus = await of(guarded, user)
            try:
                with pytest.raises(errors.PermissionDenied):
                    await bus.bucket("flags").put("kill_switch_hard", b"clear")
                with pytest.raises(errors.PermissionDenied):
                    await bus.bucket("flags").delete("kill_switch_hard")
            finally:
                await bus.close()
        entry = await operator.bucket("flags").get("kill_switch_hard")
        assert entry is not None
        assert entry.value == b"frozen"
        await operator.bucket("flags").put("kill_switch_hard", b"clear")
    finally:
        await operator.close()


async def test_logins_are_made_once_and_for_this_user_alone(home: Home) -> None:
    """Two starts of a home use the same passwords; another home's differ; nobody else can read the files."""
    first, second = credentials.make(home), credentials.make(home)
    assert first == second
    other = Home(home.path.parent / "other")
    other.prepare()
    assert {login.password for login in credentials.make(other).values()}.isdisjoint(
        login.password for login in first.values()
    )
    assert {file.stat().st_mode & 0o777 for file in home.credentials.glob("*.json")} == {0o600}


async def test_damaged_login_is_made_anew(home: Home) -> None:
    """A login file with rubbish in it gets another password, and the others keep theirs."""
    before = credentials.make(home)
    credentials.file(home, "warden").write_text("{")
    after = credentials.make(home)
    assert after["warden"].password != before["warden"].password
    assert after["agents"] == before["agents"]


async def test_answer_of_the_server_is_no_flag(guarded: dict[str, Context]) -> None:
    """Who has the server answer onto the hard flag's subject, which no permission forbids, clears nothing and is reported."""
    operator = await of(guarded, "operator")
    agent = await of(guarded, "agents")
    try:
        await operator.bucket("flags").put("kill_switch", b"clear")
        await operator.bucket("flags").put("kill_switch_hard", b"frozen")
        source = "$JS.API.DIRECT.GET.KV_flags.$KV.flags.kill_switch"
        await agent.connection.nc.publish(source, b"", reply="$KV.flags.kill_switch_hard")
        await agent.connection.nc.flush()
        async with asyncio.timeout(30):
            while (entry := await operator.bucket("flags").latest("kill_switch_hard")) is None or not entry.relayed:
                await asyncio.sleep(0.01)
        assert entry.value == b"clear"
        switch = await flags.kill_switch(operator.bucket("flags"))
        assert switch.mode is flags.Mode.HARD
        assert "an answer of the server" in switch.problem
    finally:
        await agent.close()
        await operator.close()

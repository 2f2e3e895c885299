"""The kill switch on a fleet of processes, thrown and cleared with the real nats command: nothing is written, nothing is lost."""

from __future__ import annotations

import os
import shlex
import signal
from collections import Counter
from typing import Any

import msgspec
import pytest

from bus.events import freeze as ev
from bus.events.invocation import Released, ReleaseReason
from bus.store import INVOCATIONS, Recorded
from bus.subjects import parse_event
from tests.chaos.fleet import Desk, Ended, Fleet
from tests.chaos.story import TERMINAL

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

FLEET = """
[daemons]
agent_runner = { instances = 2 }
restart = { exits = 50, period = "5m" }

[projects.shop.roles.coder]
handler = { kind = "function", target = "handlers:work" }
concurrency = 16
max_attempts = 1
max_crashes = 1
grace = "1s"
"""
#: Some work is long: it ends when the door is open, so that whoever is killed in the freeze is in the middle of it.
HANDLERS = """
import asyncio
from pathlib import Path

DOOR = Path(__file__).with_name("door")

async def work(input):
    await asyncio.sleep(0.1)
    while input % 40 == 39 and not DOOR.exists():
        await asyncio.sleep(0.05)
    return input
"""
#: Some work is longer than a freeze is here.
STEADY = """
import asyncio

async def work(input):
    await asyncio.sleep(4 if input % 40 == 39 else 0.1)
    return input
"""


class Nats:
    """The real nats command, as the operator of a fleet."""

    def __init__(self, fleet: Fleet, path: str) -> None:
        self._fleet = fleet
        self._path = path

    async def __call__(self, *arguments: str) -> Ended:
        """Run it with what `systems env` prints right now."""
        printed = await self._fleet.systems("env")
        assert printed.status == 0, printed.err
        exports = [line.removeprefix("export ") for line in printed.out.splitlines() if line.startswith("export ")]
        login = dict(shlex.split(line)[0].split("=", 1) for line in exports)
        return await self._fleet.run(self._path, *arguments, environ=login)

    async def put(self, key: str, value: str) -> None:
        """Put a flag."""
        ended = await self("kv", "put", "flags", key, value)
        assert ended.status == 0, ended.err


async def frozen(desk: Desk, *, count: int = 1) -> Recorded:
    """The `count`-th event of the server layer being up, and a receipt of every daemon that owes one."""
    stands = await desk.control.until(
        lambda: found[count - 1] if len(found := of_freeze(desk, "frozen")) >= count else None
    )
    id_ = stands.subject.split(".")[2]
    owe = set(stands.data.owe)
    await desk.control.until(
        lambda: owe <= {r.data.instance for r in of_freeze(desk, "receipt", id_) if r.data.stage is ev.Stage.FREEZE}
    )
    return stands


def of_freeze(desk: Desk, name: str, id_: str = "") -> list[Recorded]:
    """Events of one name about freezes."""
    return [
        record
        for record in desk.control.records
        if (tokens := record.subject.split("."))[1] == "freeze"
        and tokens[3] == name
        and tokens[2].startswith("r")
        and id_ in ("", tokens[2])
    ]


async def stream(desk: Desk) -> dict[str, Any]:
    """What the server says of INVOCATIONS."""
    info: dict[str, Any] = await desk.bus.connection.api(f"STREAM.INFO.{INVOCATIONS}")
    return info


async def check_frozen(desk: Desk, seq: int) -> None:
    """Nothing was written since, and the server refuses a publish that asks nobody."""
    info = await stream(desk)
    assert info["state"]["last_seq"] == seq
    answer = await desk.bus.connection.nc.request("inv.shop.coder.raw.requested", b"{}", timeout=10)
    assert msgspec.json.decode(answer.data)["error"]["err_code"] == 10077


async def check_unspent(desk: Desk, ids: list[str], *released: ReleaseReason) -> Counter[str]:
    """Each was completed once, and no attempt or crash was counted against any; what was put back was so for a freeze or `released`."""
    ends: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    async for record in desk.bus.store.read(INVOCATIONS, "inv.>"):
        ref, name = parse_event(record.subject)
        counts[name] += 1
        if name in TERMINAL:
            assert name == "completed", record.data
            ends[ref.id] += 1
        if isinstance(record.data, Released):
            assert record.data.reason in {ReleaseReason.FREEZE, *released}
    assert ends == Counter(ids)
    assert (counts["swept"], counts["failed"], counts["dead_lettered"]) == (0, 0, 0)
    return counts


@pytest.mark.soak
async def test_freeze_outlives_kill_9_of_every_process(fleet: Fleet, nats_cli: str) -> None:
    """Thrown under load, it stands while each process is killed; thawed, all is completed once and no attempt is spent."""
    fleet.write(FLEET, HANDLERS)
    nats = Nats(fleet, nats_cli)
    await fleet.up()
    async with fleet.bus() as desk:
        ids = await desk.ask_many("shop/coder", 600)
        await desk.completed(110)
        await nats.put("kill_switch", "frozen")
        stands = await frozen(desk)
        seq = stands.data.seq
        assert set(stands.data.owe) == {"launcher", "warden", "projector", "agent_runner-1", "agent_runner-2"}
        held = sum(r.data.held for r in of_freeze(desk, "receipt"))
        assert held > 0, "nobody held anything"
        await check_frozen(desk, seq)
        assert (await nats("pub", "inv.shop.coder.raw.requested", "{}")).status == 0
        await check_frozen(desk, seq)
        refused = await fleet.systems("invoke", "shop/coder", "--input", "1")
        assert (refused.status, "frozen" in refused.err) == (75, True), refused.err

        for name in ("agent_runner-1", "warden", "agent_runner-2", "nats-server"):
            pid = await fleet.kill(name)
            await fleet.pid(name, other_than=pid)
            await desk.bus.connection.ready()
            await check_frozen(desk, seq)
        assert fleet.launcher is not None
        fleet.launcher.send_signal(signal.SIGKILL)
        fleet.launcher.wait()
        await fleet.gone()
        await fleet.up()
        await desk.bus.connection.ready()
        await check_frozen(desk, seq)
        panel = (await fleet.systems("status", "--output", "json")).json()
        assert panel["kill_switch"]["mode"] == "soft"

        (fleet.folder / "door").touch()
        await nats.put("kill_switch", "clear")
        await desk.control.until(lambda: of_freeze(desk, "thawed"))
        await desk.all_ended(ids, limit_s=60)
        # A runner may also have died with a delivery in its hand that the freeze had kept it from claiming.
        counts = await check_unspent(desk, ids, ReleaseReason.LOST_DELIVERY)
        assert counts["released"] > 0, "no dead holder's claim was put back"
        thawed = of_freeze(desk, "thawed")[0].data
        assert (thawed.written, len(of_freeze(desk, "frozen"))) == (0, 1)
    os.sync()


async def test_freeze_outlives_down_and_up(fleet: Fleet, nats_cli: str) -> None:
    """`systems down` and `up` leave a hard freeze as it is; the soft flag's clear does not end it, the hard flag's does."""
    fleet.write(FLEET, HANDLERS)
    nats = Nats(fleet, nats_cli)
    await fleet.up()
    async with fleet.bus() as desk:
        ids = await desk.ask_many("shop/coder", 100)
        await nats.put("kill_switch_hard", "frozen")
        stands = await frozen(desk)
        assert stands.data.mode == "hard"
    down = await fleet.systems("down", limit_s=60)
    assert down.status == 0, down.err
    await fleet.gone()
    up = await fleet.systems("up", "--detach", "--fleet", str(fleet.file), limit_s=60)
    assert up.status == 0, up.err
    try:
        async with fleet.bus() as desk:
            await check_frozen(desk, stands.data.seq)
            await nats.put("kill_switch", "clear")
            assert (await fleet.systems("status", "--output", "json")).json()["kill_switch"]["mode"] == "hard"
            await check_frozen(desk, stands.data.seq)
            (fleet.folder / "door").touch()
            await nats.put("kill_switch_hard", "clear")
            await desk.control.until(lambda: of_freeze(desk, "thawed"))
            await desk.all_ended(ids)
            # A runner goes down with deliveries in its hand that the freeze had kept it from claiming.
            await check_unspent(desk, ids, ReleaseReason.LOST_DELIVERY)
    finally:
        await fleet.systems("down", limit_s=60)


async def test_freezes_lose_nothing_under_load(fleet: Fleet, nats_cli: str) -> None:
    """Frozen and thawed five times while requests are worked on: each is completed once, and each freeze is answered by all."""
    fleet.write(FLEET, STEADY)
    nats = Nats(fleet, nats_cli)
    await fleet.up()
    async with fleet.bus() as desk:
        ids = await desk.ask_many("shop/coder", 500)
        for cycle in range(1, 6):
            await desk.completed(40 * cycle)
            await nats.put("kill_switch", '{"mode": "frozen", "reason": "again"}')
            stands = await frozen(desk, count=cycle)
            await check_frozen(desk, stands.data.seq)
            await nats.put("kill_switch", "clear")
            await desk.control.until(lambda n=cycle: len(of_freeze(desk, "thawed")) >= n)  # type: ignore[misc]
        await desk.all_ended(ids)
        counts = await check_unspent(desk, ids)
        assert (counts["claimed"], counts["released"]) == (500, 0), "a claim was given up by a living runner"
        assert not of_freeze(desk, "missing")

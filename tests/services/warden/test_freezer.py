"""The kill switch's server layer, with a warden and a runner on a real server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from bus import errors, flags
from bus.events import daemon
from bus.events import freeze as ev
from bus.store import CONTROL
from services import freezes
from tests.services.rig import Rig, until


async def echo(input: Any) -> Any:
    """Give the input back."""
    return input


async def last(rig: Rig, event: str) -> Any:
    """The last event of that name about a freeze; None if there is none."""
    found = await rig.bus.store.last(CONTROL, f"ctl.freeze.*.{event}")
    return None if found is None else found.data


async def eventually(rig: Rig, event: str, id_: str = "*") -> Any:
    """The event of that name, as soon as it is there."""
    async with asyncio.timeout(30):
        while (found := await rig.bus.store.last(CONTROL, f"ctl.freeze.{id_}.{event}")) is None:
            await asyncio.sleep(0.01)
    return found.data


async def thrown(rig: Rig, value: bytes = b"frozen", key: str = "kill_switch") -> str:
    """Throw the switch, and wait for the server layer: the freeze's id."""
    revision = await rig.bucket("flags").put(key, value)
    await eventually(rig, "frozen", f"r{revision}")
    return f"r{revision}"


async def test_server_refuses_what_passes_by_the_clients(rig: Rig) -> None:
    """In a freeze a raw publish that knows nothing of our gate is refused by the server, and at the thaw taken again."""
    await rig.warden()
    id_ = await thrown(rig)
    ack = await rig.connection.nc.request("inv.shop.coder.x.requested", b"{}", timeout=5)
    assert b"10077" in ack.data
    await rig.bucket("flags").put("kill_switch", b"clear")
    thawed = await eventually(rig, "thawed", id_)
    assert thawed.written == 0
    ack = await rig.connection.nc.request("inv.shop.coder.x.rubbish", b"{}", timeout=5)
    assert b'"seq"' in ack.data


async def test_every_daemon_gives_a_receipt(rig: Rig) -> None:
    """Warden and runner answer the freeze and the thaw, each once, and nobody is missing."""
    await rig.role("shop/echo", echo)
    await rig.warden()
    await rig.runner()
    id_ = await thrown(rig)
    await rig.bucket("flags").put("kill_switch", b"clear")
    await eventually(rig, "thawed", id_)
    receipts = [r.data async for r in rig.bus.store.read(CONTROL, f"ctl.freeze.{id_}.receipt")]
    assert sorted((r.instance, r.stage) for r in receipts) == [
        ("agent_runner-1", ev.Stage.FREEZE),
        ("agent_runner-1", ev.Stage.THAW),
        ("warden", ev.Stage.FREEZE),
        ("warden", ev.Stage.THAW),
    ]
    assert await last(rig, "missing") is None


async def test_thaw_waits_for_no_runner_that_began_in_it(rig: Rig) -> None:
    """A runner that starts between clear and thaw never saw the freeze, and answers its thaw all the same: the thaw hears it."""
    running, _ = await rig.warden()
    id_ = await thrown(rig)
    await rig.end(running)
    await rig.bucket("flags").put("kill_switch", b"clear")
    await rig.runner()
    await rig.warden()
    await rig.control.subject(lambda r: r.subject == f"ctl.freeze.{id_}.thawed")
    assert ("agent_runner-1", ev.Stage.THAW) in before_thawed(rig, id_)


async def test_thaw_waits_for_no_runner_that_missed_the_freeze(rig: Rig) -> None:
    """A freeze that is cleared before a runner could read it, and that the warden has on record, is answered at its thaw."""
    await rig.runner()
    puts = [await rig.bucket("flags").put("kill_switch", value) for value in (b"frozen", b"clear")]
    info = await rig.connection.api("STREAM.INFO.INVOCATIONS")
    id_ = f"r{puts[0]}"
    stood = ev.Frozen(mode="soft", seq=info["state"]["last_seq"], owe=("agent_runner-1",))
    await rig.bus.store.append(rig.bus.author.control(id_, stood))
    await rig.warden()
    await rig.control.subject(lambda r: r.subject == f"ctl.freeze.{id_}.thawed")
    assert ("agent_runner-1", ev.Stage.THAW) in before_thawed(rig, id_)


def before_thawed(rig: Rig, id_: str) -> list[tuple[str, ev.Stage]]:
    """The receipts of a freeze that came before its thaw was over."""
    of_it = [record for record in rig.control.records if record.subject.split(".")[2] == id_]
    thawed = next(record.seq for record in of_it if isinstance(record.data, ev.Thawed))
    return [
        (record.data.instance, record.data.stage)
        for record in of_it
        if isinstance(record.data, ev.Receipt) and record.seq < thawed
    ]


async def test_work_waits_and_goes_on(rig: Rig) -> None:
    """What was asked before the freeze waits unharmed: it is completed after the thaw, at its first attempt."""
    await rig.role("shop/echo", echo)
    await rig.warden()
    id_ = await thrown(rig)
    with pytest.raises(errors.BusError, match="kill switch"):
        await rig.ask("shop/echo", 1)
    await rig.bucket("flags").put("kill_switch", b"clear")
    await eventually(rig, "thawed", id_)
    await rig.bus.gate.opened()
    accepted = [await rig.ask("shop/echo", n) for n in range(5)]
    await rig.runner()
    for one in accepted:
        await rig.story.event(one.id, "completed")


async def test_a_warden_that_comes_later_finishes_what_was_begun(rig: Rig) -> None:
    """A flag put while no warden was alive is carried out by the next one; one cleared meanwhile is thawed."""
    revision = await rig.bucket("flags").put("kill_switch", b"frozen")
    warden, _ = await rig.warden()
    await eventually(rig, "frozen", f"r{revision}")
    await rig.end(warden)
    await rig.bucket("flags").put("kill_switch", b"clear")
    await rig.warden()
    await eventually(rig, "thawed", f"r{revision}")


async def test_soft_freeze_ends_when_its_time_is_over(rig: Rig) -> None:
    """A soft freeze with an end is cleared by the warden; the clear says so."""
    await rig.warden()
    until_ = rig.bus.author.now()
    id_ = await thrown(rig, flags.frozen(reason="a moment", by="ann", until=until_))
    await eventually(rig, "thawed", id_)
    assert (await flags.kill_switch(rig.bucket("flags"))).by == "its time being over"


async def test_hard_freeze_never_ends_by_itself(rig: Rig) -> None:
    """An end in a hard flag is not heeded: only a person's clear ends it."""
    await rig.warden()
    id_ = await thrown(rig, flags.frozen(reason="leak", by="ann", until=rig.bus.author.now()), "kill_switch_hard")
    await rig.bucket("flags").put("kill_switch", b"clear")
    await until(lambda: rig.bus.gate.switch.mode is flags.Mode.HARD)
    assert (await rig.connection.api("STREAM.INFO.INVOCATIONS"))["config"]["max_bytes"] == 1
    await rig.bucket("flags").put("kill_switch_hard", b"clear")
    await eventually(rig, "thawed", id_)


async def test_deleted_flag_changes_nothing_and_is_told(rig: Rig) -> None:
    """Deleting the flag leaves the freeze, and CONTROL says that it was deleted."""
    await rig.warden()
    await thrown(rig)
    await rig.bucket("flags").delete("kill_switch")
    changed = await eventually(rig, "changed")
    assert "deleted" in changed.why
    assert (await rig.connection.api("STREAM.INFO.INVOCATIONS"))["config"]["max_bytes"] == 1


async def test_drill_switch_leaves_real_work_alone(rig: Rig) -> None:
    """The drill's switch freezes the drill's stream through the same code; INVOCATIONS takes writes meanwhile."""
    await rig.role("shop/echo", echo)
    await rig.warden()
    await rig.runner()
    revision = await rig.bucket("flags").put("kill_switch_drill", b"frozen")
    await eventually(rig, "frozen", f"d{revision}")
    ack = await rig.connection.nc.request("drill.x", b"{}", timeout=5)
    assert b"10077" in ack.data
    await rig.story.event((await rig.ask("shop/echo", 1)).id, "completed")
    await rig.bucket("flags").put("kill_switch_drill", b"clear")
    await eventually(rig, "thawed", f"d{revision}")


async def test_daemon_that_fell_silent_is_missed(rig: Rig) -> None:
    """Who was started, beats no more and gave no receipt is counted as missing, until it is known to have ended."""
    await rig.warden()
    ghost = daemon.Started(daemon="agent_runner", boot_id="ghost", host="there", pid=1)
    await rig.bus.store.append(rig.bus.author.control("agent_runner-7_there", ghost))
    id_ = await thrown(rig)
    assert (await last(rig, "frozen")).owe == ("agent_runner-7", "warden")
    await rig.control.subject(lambda r: r.subject == f"ctl.freeze.{id_}.receipt")
    stands = await freezes.read(rig.bus)
    assert (stands.receipts, stands.owed, stands.missing) == (1, 2, ("agent_runner-7",))
    ended = daemon.Exited(daemon="agent_runner", boot_id="ghost", host="there", pid=1, status=-9)
    await rig.bus.store.append(rig.bus.author.control("agent_runner-7_there", ended))
    stands = await freezes.read(rig.bus)
    assert (stands.receipts, stands.owed, stands.missing) == (1, 1, ())

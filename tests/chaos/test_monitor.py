"""A real fleet whose daemons are killed, stopped, deafened and slowed: what the monitor says, at once, and when it is over."""

from __future__ import annotations

import asyncio
import os
import signal

import msgspec
import pytest

from bus.events import card as cards
from bus.events import finding as ev
from bus.events.finding import Kind
from bus.events.sweep import Finished, Trigger
from services.monitor.status import Status
from tests.chaos.findings import clear, closed, events
from tests.chaos.fleet import Desk, Fleet
from tests.chaos.story import LIMIT_S

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

FLEET = """
[monitor]
every = "2s"
grace = "2s"
look = "500ms"

[daemons]
agent_runner = { instances = 1 }
restart = { exits = 3, period = "5m" }
watchdog = { silent = "25s", busy = "25s" }

[projects.shop.roles.coder]
handler = { kind = "function", target = "handlers:work" }
grace = "1s"
"""
HANDLERS = """
async def work(input, ctx):
    if input == "help":
        await ctx.raise_concern("the shop is on fire", severity="ultra", detail="third floor")
    return input
"""


async def begun(desk: Desk) -> None:
    """Wait for the first sweep: the fleet is up, and whoever is away from now on is missed."""
    await desk.control.until(
        lambda: any(isinstance(r.data, Finished) and r.data.trigger is Trigger.START for r in desk.control.records)
    )


@pytest.mark.soak
async def test_daemons_that_die_stop_go_deaf_and_slow_are_told_apart(fleet: Fleet) -> None:
    """A runner that is killed is down, one that is stopped late, one that nothing reaches deaf, a blocked one slow; each is over in the end."""
    fleet.write(FLEET, HANDLERS)
    await fleet.up()
    async with fleet.bus() as desk:
        await begun(desk)
        # Killed: down at once, by the launcher's word, and restarted.
        pid = await fleet.kill("agent_runner-1")
        await desk.control.until(
            lambda: events(desk, Kind.DAEMON_DOWN, ev.Opened) or events(desk, Kind.DAEMON_ENDED, ev.Opened)
        )
        dead = (events(desk, Kind.DAEMON_DOWN, ev.Opened) or events(desk, Kind.DAEMON_ENDED, ev.Opened))[0].data
        assert dead.subject.startswith("agent_runner-1@")
        await desk.control.until(lambda: events(desk, Kind.DAEMON_ENDED, ev.Opened))
        ended = events(desk, Kind.DAEMON_ENDED, ev.Opened)[0].data
        exited = next(r for r in desk.control.records if r.subject.endswith(".exited"))
        # First the exit; its restart, where the sweep came after it, is the other half.
        assert ended.evidence[0] == ev.Evidence("CONTROL", exited.seq)
        pid = await fleet.pid("agent_runner-1", other_than=pid)
        # Blocked for a while: it works, and is slow. How its loop turns is looked at from its first beat on.
        async with asyncio.timeout(LIMIT_S):
            while pid not in {beat.pid for beat in await desk.bus.liveness.all()}:
                await asyncio.sleep(0.05)
        # Every daemon may have been slow for a moment in its start.
        await clear(desk, Kind.DAEMON_LATE, subject="agent_runner-1@")
        before = desk.control.records[-1].seq
        os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(3.5)
        os.kill(pid, signal.SIGCONT)
        slow = await desk.control.subject(
            lambda r: r.seq > before and r in events(desk, Kind.DAEMON_LATE, ev.Opened, "agent_runner-1@")
        )
        assert "agent_runner-1 is slow: its event loop was late by " in slow.data.title
        assert slow.data.value >= 3
        await closed(desk, slow)
        # Deaf: its consumer is gone, and it beats on.
        await desk.bus.connection.api("CONSUMER.DELETE.INVOCATIONS.shop_coder")
        await desk.control.until(lambda: events(desk, Kind.DAEMON_DEAF, ev.Opened, "agent_runner-1@"))
        deaf = events(desk, Kind.DAEMON_DEAF, ev.Opened, "agent_runner-1@")[0]
        # It may be so young that nothing has ever reached it.
        assert deaf.data.title.startswith("agent_runner-1 is deaf: it beats, and nothing has ")
        assert any("shop_coder" in r.data.subject for r in events(desk, Kind.DRIFT, ev.Opened))
        # Its loop turns, so nobody kills it: a restart may not help, and a person is handed the case until it hears again.
        handed = await desk.control.subject(lambda r: isinstance(r.data, cards.Opened), limit_s=90)
        assert (handed.data.pid, handed.data.reason) == (pid, "deaf")
        assert f"systems restart agent_runner-1 --reason deaf --home {fleet.home.path}" in handed.data.command
        applied = await fleet.systems("apply")
        assert applied.status == 0, applied.err
        await closed(desk, deaf)
        heard = await desk.control.subject(lambda r: isinstance(r.data, cards.Closed))
        assert (heard.data.reason, heard.data.boot_id) == ("heard", handed.data.boot_id)
        # Stopped: late when its beat is, and none of it when it goes on.
        await clear(desk, Kind.DAEMON_LATE, subject="agent_runner-1@")
        os.kill(pid, signal.SIGSTOP)
        try:
            # Late is told before the watchdog would act.
            late = await desk.control.subject(
                lambda r: (
                    isinstance(r.data, ev.Opened)
                    and r.data.kind is Kind.DAEMON_LATE
                    and "agent_runner-1 is late: its last beat is 1" in r.data.title
                )
            )
        finally:
            os.kill(pid, signal.SIGCONT)
        await closed(desk, late)


@pytest.mark.soak
async def test_warden_that_is_stopped_is_found_by_its_neighbours(fleet: Fleet) -> None:
    """A stopped warden sweeps no more: launcher and runner say so, and take it back when it goes on."""
    fleet.write(FLEET, HANDLERS)
    await fleet.up()
    async with fleet.bus() as desk:
        await begun(desk)
        pid = await fleet.pid("warden")
        os.kill(pid, signal.SIGSTOP)
        try:
            await desk.control.until(lambda: events(desk, Kind.SWEEP_LATE, ev.Opened))
            assert events(desk, Kind.SWEEP_LATE, ev.Opened)[0].data.by == "launcher"
            shown = await fleet.systems("status", "--output", "json")
            assert shown.status in (1, 2)
            assert any("findings (the warden does not answer" in what for what in shown.json()["unseen"])
            await desk.control.until(lambda: events(desk, Kind.DAEMON_SILENT, ev.Opened, "warden"))
            assert events(desk, Kind.DAEMON_SILENT, ev.Opened, "warden")[0].data.by == "agent_runner-1"
        finally:
            os.kill(pid, signal.SIGCONT)
        await desk.control.until(lambda: events(desk, Kind.SWEEP_LATE, ev.Closed))
        await desk.control.until(lambda: events(desk, Kind.DAEMON_SILENT, ev.Closed, "warden"))


@pytest.mark.soak
async def test_warden_that_is_given_up_on_is_an_ultra_of_the_launcher(fleet: Fleet) -> None:
    """A warden that keeps dying stays down, and the launcher says so with the command to run; back again, the finding is closed."""
    fleet.write(FLEET.replace("exits = 3", "exits = 1"), HANDLERS)
    await fleet.up()
    async with fleet.bus() as desk:
        pid = await fleet.kill("warden")
        pid = await fleet.pid("warden", other_than=pid)
        os.kill(pid, signal.SIGKILL)
        await desk.control.until(lambda: events(desk, Kind.DAEMON_SILENT, ev.Opened, "warden"))
        found = events(desk, Kind.DAEMON_SILENT, ev.Opened, "warden")[0].data
        # The runner, its neighbour in the ring, may have been quicker; the card has the command in any case.
        assert found.by in {"launcher", "agent_runner-1"}
        assert found.severity is ev.Severity.ULTRA
        handed = await desk.control.subject(lambda r: isinstance(r.data, cards.Opened))
        assert "systems start warden" in handed.data.command
        raised = await fleet.systems("raise", "concern", "--title", "nobody is there")
        assert (raised.status, "the warden is away, and will find it" in raised.out) == (0, True)
        started = await fleet.systems("start", "warden")
        assert started.status == 0, started.err
        await desk.control.until(lambda: events(desk, Kind.DAEMON_SILENT, ev.Closed, "warden"))
        await desk.control.until(lambda: events(desk, Kind.RAISED, ev.Opened))


async def test_people_ask_for_sweeps_and_manage_findings(fleet: Fleet, nats_cli: str) -> None:
    """With `nats` and `systems` alone: a sweep, what is open, a concern raised by hand and by a handler, a silence, a close."""
    fleet.write(FLEET.replace('"2s"\ngrace', '"2h"\ngrace'), HANDLERS)
    await fleet.up()
    async with fleet.bus() as desk:
        await begun(desk)
        exports = dict(
            line.removeprefix("export ").split("=", 1)
            for line in (await fleet.systems("env")).out.splitlines()
            if line.startswith("export ")
        )
        environ = {name: value.strip("'\"") for name, value in exports.items()}
        asked = await fleet.run(nats_cli, "req", "--raw", "monitor.sweep", "", environ=environ)
        status = msgspec.json.decode(asked.out, type=Status)
        assert status.last is not None
        assert status.last.finished.trigger is Trigger.DEMAND
        body = '{"severity": "concern", "title": "by hand"}'
        by_hand = (await fleet.run(nats_cli, "req", "--raw", "monitor.raise", body, environ=environ)).out
        print_ = msgspec.json.decode(by_hand)["fingerprint"]
        await desk.ask("shop/coder", "help")
        await desk.control.until(lambda: len(events(desk, Kind.RAISED, ev.Opened)) >= 2)
        fire = next(r.data for r in events(desk, Kind.RAISED, ev.Opened) if r.data.title == "the shop is on fire")
        assert (fire.by, fire.severity, fire.detail) == ("shop/coder", ev.Severity.ULTRA, "third floor")
        listed = await fleet.systems("findings")
        assert listed.status == 2
        assert "by hand" in listed.out
        silenced = await fleet.systems("silence", print_, "--for", "1h", "--reason", "known")
        assert silenced.status == 0, silenced.err
        assert "by hand" not in (await fleet.systems("findings")).out
        assert "by hand" in (await fleet.systems("findings", "--all")).out
        wrong = await fleet.systems("silence", "nonsense", "--for", "1h", "--reason", "x")
        assert (wrong.status, "unknown open finding 'nonsense'" in wrong.err) == (64, True)
        closed = await fleet.systems("findings", "close", print_, "--reason", "looked")
        assert closed.status == 0, closed.err
        (unsilenced,) = await desk.control.until(lambda: events(desk, Kind.RAISED, ev.Closed))
        assert unsilenced.data.why == "looked"
        panel = await fleet.systems("status")
        assert panel.status == 2
        assert "the shop is on fire" in panel.out
        assert "next in" in panel.out
        swept = await fleet.systems("sweep", "--output", "json")
        assert swept.status == 2
        assert {f["title"] for f in swept.json()["findings"]} >= {"the shop is on fire"}

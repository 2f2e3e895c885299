"""A real fleet whose daemon dies for good: people are called until one has it, everybody affected is told, and the story is kept."""

from __future__ import annotations

import pytest

from bus.events import daemon
from bus.events import incident as ev
from tests.chaos.fleet import Fleet
from tests.chaos.incident import begun, first, keep_ways, of, story_is_told
from tests.chaos.webhook import Webhook

pytestmark = [pytest.mark.chaos, pytest.mark.slow, pytest.mark.soak]

FLEET = """
[monitor]
look = "500ms"

[daemons]
restart = { exits = 1, period = "5m" }

[incidents]
escalation = "night"
update_every = "3s"
retry = "200ms"

[people.ann]
ways = { phone = "ANN_PHONE", pager = "ANN_PAGER" }
[people.bob]
ways = { phone = "BOB_PHONE" }

[[escalation.night.steps]]
whom = ["ann"]
repeat = "1s"

[[escalation.night.steps]]
whom = ["bob"]
after = "1s"

[projects.shop.roles.coder]
handler = { kind = "function", target = "handlers:work" }

[projects.ledger.roles.bookkeeper]
handler = { kind = "function", target = "handlers:work" }
"""
HANDLERS = "async def work(input, ctx):\n    return input\n"


def ways(fleet: Fleet, hook: Webhook) -> None:
    """Ann's and Bob's addresses; one of them leads nowhere."""
    keep_ways(
        fleet,
        f"ANN_PHONE={hook.address('ann-secret')}\nBOB_PHONE={hook.address('bob-secret')}\n"
        "ANN_PAGER=json://127.0.0.1:1/pager-secret\n",
    )


async def test_incident_of_a_daemon_that_is_given_up_on(fleet: Fleet) -> None:
    """It is declared, calls until somebody has it and nobody after, tells on the clock, and its story is right."""
    fleet.write(FLEET, HANDLERS)
    async with Webhook().served() as hook:
        ways(fleet, hook)
        await fleet.up()
        async with fleet.bus() as desk:
            await begun(desk)
            pid = await fleet.kill("agent_runner-1")
            await fleet.pid("agent_runner-1", other_than=pid)
            await fleet.kill("agent_runner-1")
            gave_up = await desk.control.subject(lambda r: isinstance(r.data, daemon.GaveUp))
            declared, said = await first(desk, ev.Declared)
            assert declared.seq > gave_up.seq
            assert {impact.project for impact in said.affected} == {"shop", "ledger"}, said

            # People are called: at once, again, and the next one; a way that fails is tried again and shown without its secret.
            await hook.until(lambda: sum(path == "ann-secret" for path, _ in hook.calls) >= 2)
            await hook.until(lambda: any(path == "bob-secret" for path, _ in hook.calls))
            assert hook.calls[0][1]["title"].startswith("[ultra] incident 1: ")
            await desk.control.until(lambda: [p for _, p in of(desk, ev.Paged) if p.way == "pager" and p.attempt >= 2])
            errors = {paged.error for _, paged in of(desk, ev.Paged) if not paged.ok}
            assert errors
            assert not any("secret" in error for error in errors)
            assert not of(desk, ev.PagingFailed), "one way works"

            # Somebody has it: nothing is called any more, whatever the policy repeats.
            acked = await fleet.systems("incident", "ack", "1")
            assert acked.status == 0, acked.err
            at, _ = await first(desk, ev.Acknowledged)
            calls = len(hook.calls)
            tick = await desk.control.until(
                lambda: next((told for record, told in of(desk, ev.Updated) if record.seq > at.seq), None)
            )
            assert tick.automatic
            assert tick.nags == "tester"
            assert tick.text.startswith("no news yet, next at")
            assert len(hook.calls) <= calls + 1, "at most the call that was under way"
            assert not [record for record, _ in of(desk, ev.PageDue) if record.seq > at.seq]
            stands = (await fleet.systems("incident", "ls", "--output", "json")).json()["incidents"][0]
            assert (stands["status"], stands["owner"]) == ("acknowledged", "tester")

            # It is mended, and stays open until a person closes it.
            assert (await fleet.systems("start", "agent_runner-1")).status == 0
            await first(desk, ev.Recovered)
            closed = await fleet.systems(
                "incident", "close", "1", "--cause", "somebody killed it", "--action", "ann=ask who", limit_s=20
            )
            assert closed.status == 0, closed.err
            again = await fleet.systems("incident", "close", "1", "--cause", "me too")
            assert again.status == 1
            assert "tester closed it at" in again.err
            await first(desk, ev.Drafted)
            drafted = story_is_told(desk)
            assert "- [ ] ask who (ann)" in drafted.markdown
            assert "somebody killed it" in drafted.markdown


async def test_incident_of_the_warden_itself(fleet: Fleet) -> None:
    """A warden that is given up on is an incident too: the launcher calls people in its place, and leaves it to the next one."""
    fleet.write(FLEET, HANDLERS)
    async with Webhook().served() as hook:
        ways(fleet, hook)
        await fleet.up()
        async with fleet.bus() as desk:
            pid = await fleet.kill("warden")
            await fleet.pid("warden", other_than=pid)
            await fleet.kill("warden")
            await desk.control.subject(lambda r: isinstance(r.data, daemon.GaveUp))
            _, said = await first(desk, ev.Declared)
            assert said.subject == "warden"
            await hook.until(lambda: len(hook.calls) >= 2)
            assert (await fleet.systems("incident", "ack", "1")).status == 0
            acked, _ = await first(desk, ev.Acknowledged)
            assert (await fleet.systems("start", "warden")).status == 0
            await first(desk, ev.Recovered)
            assert (await fleet.systems("incident", "close", "1", "--cause", "a test")).status == 0
            await first(desk, ev.Drafted)
            assert not [record for record, _ in of(desk, ev.PageDue) if record.seq > acked.seq]
            assert len([r for r in desk.control.records if isinstance(r.data, ev.Declared)]) == 1

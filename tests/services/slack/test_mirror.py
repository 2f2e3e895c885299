"""What happens on the bus, shown in Slack: once, in its place, in order."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import msgspec
import pytest
import structlog

from bus.events import finding, incident, invocation
from bus.events.finding import CloseReason, Severity
from bus.events.invocation import DeathReason
from bus.server import EmbeddedServer
from services.app.slack_mirror import start_mirror
from services.fleet.entries import SLACK_KEY
from services.fleet.registry import Registry
from services.fleet.slack import Rule, Slack
from services.slack.channel import WAITING
from services.slack.mirror import Mirror
from services.slack.screen import Console
from tests.services.rig import Rig
from tests.services.slack.stand import Stand
from tests.slack.fake import Script, spoken


async def test_finding_is_one_message(stand: Stand) -> None:
    """A finding is shown in its project's channel, and its closing changes that message instead of adding one."""
    shop = stand.slack.workspace.channel("shop")
    await stand.settings({"shop": shop})
    async with stand.mirror() as mirror:
        await stand.opened("shop/coder", "12 work items wait for shop/coder")
        message = await stand.slack.said(shop.id, "12 work items wait")
        (print_,) = mirror.board.findings
        await stand.control(print_, finding.Closed(reason=CloseReason.GONE, open_s=5))
        await stand.slack.until(lambda: "✅" in message["text"])
        await stand.recorded("updated")
    assert len(shop.messages) == 1
    assert stand.fleet.messages == []
    posted, updated = [record.data for record in await stand.records()]
    assert (posted.ts, posted.seqs, updated.ts) == (message["ts"], posted.seqs, message["ts"])


async def test_nothing_twice_after_a_crash(stand: Stand) -> None:
    """A mirror that ends between Slack's answer and the record finds the message by its metadata, and posts it no second time."""
    await stand.settings({})
    stand.slack.answering.clear()
    async with stand.mirror():
        await stand.opened("bus", "the bus is slow")
        await stand.slack.said(stand.fleet.id, "the bus is slow")
    assert await stand.records() == []
    stand.slack.answering.set()
    async with stand.mirror():
        await stand.opened("bus", "the bus is slower")
        await stand.slack.said(stand.fleet.id, "the bus is slower")
        await stand.recorded("posted", 2)
    assert stand.titles(stand.fleet) == ["🟠 the bus is slow", "🟠 the bus is slower"]
    assert len(stand.slack.of("chat.postMessage")) == 2


async def test_unanswered_post(stand: Stand) -> None:
    """A post whose answer is lost on the way is looked up, and stands once."""
    await stand.settings({})
    stand.slack.scripts.append(Script("cut", after=True))
    async with stand.mirror():
        await stand.opened("bus", "the bus is slow")
        await stand.recorded("posted")
    assert stand.titles(stand.fleet) == ["🟠 the bus is slow"]


async def test_incident_thread(stand: Stand) -> None:
    """Each affected project's channel gets the opening in its own words, each news below it, and a head that says how it stands."""
    shop, ledger = (stand.slack.workspace.channel(name) for name in ("shop", "ledger"))
    await stand.settings({"shop": shop, "ledger": ledger, "blog": stand.slack.workspace.channel("blog")})
    async with stand.mirror():
        hit = (
            incident.Impact(project="shop", reason="shop/coder is paused"),
            incident.Impact(project="ledger", reason="ledger/booker asks shop/coder"),
        )
        now = datetime.now(UTC)
        await stand.control(
            "7", incident.Declared(title="No runner", severity=Severity.ULTRA, by="monitor", since=now, affected=hit)
        )
        await stand.control("7", incident.Acknowledged(by="ann"))
        words = (incident.Words(project="ledger", text="bookings wait, none is lost"),)
        await stand.control("7", incident.Updated(text="we look at it", by="ann", projects=words))
        await stand.control("7", incident.Closed(by="ann", cause="a full disk", open_s=60))
        for channel in (shop, ledger, stand.fleet):
            await stand.slack.said(channel.id, "Closed by ann")
    assert "ledger/booker" not in spoken(shop.messages[0])
    assert "Hits shop" in spoken(shop.messages[0])
    thread = stand.slack.thread(ledger.id, ledger.messages[0]["ts"])
    assert [m["blocks"][0]["text"]["text"] for m in thread] == [
        "✅ Incident 7: No runner",
        "✅ ann has it",
        "🔵 Update by ann",
        "✅ Closed by ann after 60 s",
    ]
    assert "bookings wait, none is lost" in spoken(thread[2])
    assert "we look at it" in spoken(shop.messages[2])


async def test_ultra_overtakes_and_bursts_collapse(stand: Stand) -> None:
    """Behind hundreds of messages that wait an incident goes out next, and what waits is shown as one."""
    shop = stand.slack.workspace.channel("shop")
    await stand.settings({"shop": shop}, per_second=1000.0, burst=20)
    stand.slack.answering.clear()
    async with stand.mirror() as mirror:
        dead = invocation.DeadLettered(reason=DeathReason.PERMANENT_ERROR)
        await stand.invocation("shop/coder", dead)
        await stand.slack.until(lambda: len(shop.messages) == 1)
        for _ in range(312):
            await stand.invocation("shop/coder", dead)
        while mirror.sources["INVOCATIONS"].settled + len(mirror.sources["INVOCATIONS"].open) < 313:
            await asyncio.sleep(0.01)
        hit = (incident.Impact(project="shop", reason="shop/coder is paused"),)
        await stand.control(
            "1",
            incident.Declared(title="Fire", severity=Severity.ULTRA, by="ann", since=datetime.now(UTC), affected=hit),
        )
        while not mirror.channels.get(shop.id) or not mirror.channels[shop.id].lane.urgent:
            await asyncio.sleep(0.01)
        stand.slack.answering.set()
        await stand.slack.said(shop.id, "312 like this")
    assert [title[:12] for title in stand.titles(shop)][1:] == ["🔴 Incident 1", "💀 312 like "] or stand.titles(shop)[
        1
    ].startswith("🔴 Incident 1")
    assert len(shop.messages) == 3


async def test_refused_channel(stand: Stand) -> None:
    """An archived channel is an event with its remedy, holds up no other channel, and gets what waited when it is back."""
    shop, ledger = (stand.slack.workspace.channel(name) for name in ("shop", "ledger"))
    await stand.settings({"shop": shop, "ledger": ledger})
    shop.archived = True
    async with stand.mirror():
        await stand.opened("shop/coder", "shop is slow")
        await stand.opened("ledger/booker", "ledger is slow")
        await stand.slack.said(ledger.id, "ledger is slow")
        (refusing,) = await stand.recorded("refusing")
        assert (refusing.data.channel, refusing.data.error) == (shop.id, "is_archived")
        assert "unarchive" in refusing.data.remedy
        shop.archived = False
        await stand.slack.said(shop.id, "shop is slow")
        await stand.recorded("recovered")


async def test_rate_limit_is_honoured(stand: Stand) -> None:
    """After a 429 nothing is sent to the channel for as long as Slack has said, and nothing is lost."""
    await stand.settings({})
    stand.slack.scripts.append(Script("ratelimited", retry_after=1))
    async with stand.mirror():
        await stand.opened("bus", "slow")
        await stand.slack.said(stand.fleet.id, "slow")
    first, second = stand.slack.of("chat.postMessage")
    assert first.answer == "ratelimited"
    assert second.at - first.at >= 1


async def test_agents_words_page_nobody(stand: Stand) -> None:
    """What an agent says is shown as it is and read by Slack as nothing: no mention, no link, no markup."""
    shop = stand.slack.workspace.channel("shop")
    await stand.settings({"shop": shop})
    evil = "<!channel> *fire* <@U1|ann> <https://evil.example|click> &"
    error = invocation.Error(kind="Evil", message=evil, fingerprint="f", detail="```" + evil)
    async with stand.mirror():
        dead = invocation.DeadLettered(reason=DeathReason.PERMANENT_ERROR, error=error)
        await stand.invocation("shop/coder", dead)
        message = await stand.slack.said(shop.id, "dead lettered")
    said = repr(message)
    assert "<!" not in said
    assert "<@" not in said
    assert "<https" not in said
    assert "mrkdwn" not in said
    assert "*fire*" in said


async def declared(stand: Stand) -> None:
    """Incident 1 is open."""
    event = incident.Declared(title="Fire", severity=Severity.ULTRA, by="ann", since=datetime.now(UTC))
    await stand.control("1", event)


async def paged(stand: Stand, person: str, target: str, attempt: int = 1) -> incident.Paged:
    """Order a call, and wait for its answer."""
    order = incident.PageDue(
        page=f"p-{person}-{attempt}",
        person=person,
        way="slack",
        carrier=incident.Carrier.SLACK,
        target=target,
        attempt=attempt,
    )
    await stand.control("1", order)
    answer = await stand.rig.control.subject(lambda r: isinstance(r.data, incident.Paged) and r.data.page == order.page)
    assert isinstance(answer.data, incident.Paged)
    return answer.data


async def test_call_is_answered(stand: Stand) -> None:
    """Who is called reads a direct message, and the order is answered; for somebody who has left the answer says so."""
    ann, bob = stand.slack.workspace.user("ann").id, stand.slack.workspace.user("bob", deleted=True).id
    await stand.settings({})
    async with stand.mirror():
        await declared(stand)
        assert (await paged(stand, "ann", ann)).ok
        left = await paged(stand, "bob", bob)
        assert (left.ok, "channel_not_found" in left.error or "user" in left.error) == (False, True)
        await stand.control("1", incident.Acknowledged(by="ann"))
        late = await paged(stand, "ann", ann, attempt=2)
        assert (late.ok, "nobody is called for it any more" in late.error) == (False, True)
    direct = stand.slack.workspace.direct(ann)
    assert [message["blocks"][0]["text"]["text"] for message in direct.messages] == ["📟 Incident 1 calls you: Fire"]


async def test_acknowledgement_that_is_read_later_stops_a_call(stand: Stand) -> None:
    """A mirror that starts behind the record reads an order long before its acknowledgement, and calls nobody for it."""
    ann = stand.slack.workspace.user("ann").id
    await stand.settings({})
    await declared(stand)
    order = incident.PageDue(page="p", person="ann", way="slack", carrier=incident.Carrier.SLACK, target=ann)
    await stand.control("1", order)
    for number in range(120):
        await stand.opened("bus", f"number {number}")
    await stand.control("1", incident.Acknowledged(by="ann"))
    async with stand.mirror():
        answer = await stand.rig.control.subject(lambda r: isinstance(r.data, incident.Paged))
    assert (answer.data.ok, "nobody is called for it any more" in answer.data.error) == (False, True)
    assert not stand.slack.workspace.direct(ann).messages


async def test_call_of_a_round_that_is_over_is_not_sent(stand: Stand) -> None:
    """An order from before an acknowledgement that has run out is not carried out: the new round has orders of its own."""
    ann = stand.slack.workspace.user("ann").id
    await stand.settings({})
    await declared(stand)
    order = incident.PageDue(page="p", person="ann", way="slack", carrier=incident.Carrier.SLACK, target=ann)
    await stand.control("1", order)
    await stand.control("1", incident.Acknowledged(by="ann"))
    await stand.control("1", incident.AcknowledgementExpired(by="ann"))
    async with stand.mirror():
        answer = await stand.rig.control.subject(lambda r: isinstance(r.data, incident.Paged))
    assert (answer.data.ok, "another call has taken its place" in answer.data.error) == (False, True)


async def test_call_does_not_wait_for_patience(stand: Stand) -> None:
    """While Slack is away the pauses grow; an order that comes within one is tried at once, and reaches its person."""
    ann = stand.slack.workspace.user("ann").id
    await stand.settings({})
    async with stand.mirror() as mirror:
        await declared(stand)
        assert (await paged(stand, "ann", ann)).ok
        channel = mirror.channels[ann]
        channel._pause = 3600.0  # as after an hour without Slack
        stand.slack.scripts.append(Script("http_500"))
        lost = incident.PageDue(
            page="p-lost", person="ann", way="slack", carrier=incident.Carrier.SLACK, target=ann, attempt=2
        )
        await stand.control("1", lost)
        await stand.slack.until(lambda: [call for call in stand.slack.calls if call.answer == "http_500"])
        while not channel._patient:
            await asyncio.sleep(0.01)
        assert (await paged(stand, "ann", ann, attempt=3)).ok


async def test_reminder_that_nobody_gets(stand: Stand) -> None:
    """Whoever owes an update has left: that is on the record, and holds up nothing."""
    bob = stand.slack.workspace.user("bob", deleted=True).id
    await stand.settings({})
    async with stand.mirror():
        await declared(stand)
        nag = incident.Updated(text="no news yet", by="clock", automatic=True, nags=f"slack:{bob} (bob)")
        await stand.control("1", nag)
        (withheld,) = await stand.recorded("withheld")
    assert (withheld.data.channel, withheld.data.kinds) == (bob, {"incident.updated": 1})


async def test_deleted_head(stand: Stand) -> None:
    """When somebody has deleted the message that is to be changed, it is shown anew."""
    await stand.settings({})
    async with stand.mirror():
        await stand.opened("bus", "slow")
        message = await stand.slack.said(stand.fleet.id, "slow")
        (print_,) = (await stand.recorded("posted"))[0].data.key.split(":")[1:2]
        stand.fleet.messages.remove(message)
        await stand.control(print_, finding.Closed(reason=CloseReason.GONE))
        await stand.slack.said(stand.fleet.id, "slow")
    assert stand.titles(stand.fleet) == ["✅ slow"]


async def test_message_that_slack_does_not_take(stand: Stand) -> None:
    """A message whose blocks are refused is sent without them, and one that is refused in any form holds up nothing."""
    await stand.settings({})
    stand.slack.scripts += [Script("invalid_blocks", times=1)]
    async with stand.mirror():
        await stand.opened("bus", "first")
        await stand.slack.until(lambda: len(stand.fleet.messages) == 1)
        assert "blocks" not in stand.fleet.messages[0]
        stand.slack.scripts += [Script("msg_too_long", times=2)]
        await stand.opened("bus", "second")
        await stand.opened("bus", "third")
        await stand.slack.said(stand.fleet.id, "third")
        (withheld,) = await stand.recorded("withheld")
        assert withheld.data.kinds == {"finding.opened": 1}


async def test_rules_take_effect_at_once(stand: Stand) -> None:
    """A rule that is added while the mirror runs shows the next event, also of a kind that was not read until then."""
    await stand.settings({})
    log = stand.slack.workspace.channel("log")
    async with stand.mirror() as mirror:
        await stand.opened("bus", "slow")
        await stand.slack.said(stand.fleet.id, "slow")
        await stand.settings({}, rules=(Rule(channel=log.id, events=("invocation.cancelled",)),))
        while not mirror.fleet.slack.rules:
            await asyncio.sleep(0.01)
        await stand.invocation("shop/coder", invocation.Cancelled(reason="not needed"))
        await stand.slack.said(log.id, "not needed")
    assert len(stand.fleet.messages) == 1


@pytest.mark.slow
@pytest.mark.chaos
async def test_server_is_killed(stand: Stand, server: EmbeddedServer) -> None:
    """Over a SIGKILL of the bus and its restart everything is shown once, in order."""
    await stand.settings({})
    async with stand.mirror():
        await stand.opened("bus", "number 1")
        await stand.slack.said(stand.fleet.id, "number 1")
        server.kill()
        await server.wait()
        await server.start()
        for number in (2, 3):
            await stand.opened("bus", f"number {number}")
        await stand.slack.said(stand.fleet.id, "number 3")
        await stand.recorded("posted", 3)
    assert stand.titles(stand.fleet) == [f"🟠 number {number}" for number in (1, 2, 3)]


@pytest.mark.slow
async def test_too_much_waits_for_a_refused_channel(stand: Stand) -> None:
    """Beyond a bound what waits for an archived channel is withheld, by an event that names it, and told when it is back."""
    shop = stand.slack.workspace.channel("shop", archived=True)
    await stand.settings({"shop": shop}, burst=1000)
    dead = invocation.DeadLettered(reason=DeathReason.PERMANENT_ERROR)
    async with stand.mirror() as mirror:
        await asyncio.gather(*(stand.invocation("shop/coder", dead) for _ in range(WAITING + 50)))
        await stand.recorded("withheld")
        while mirror.sources["INVOCATIONS"].open:
            await asyncio.sleep(0.01)
        total = sum(record.data.kinds["invocation.dead_lettered"] for record in await stand.records("withheld"))
        assert total == WAITING + 50
        shop.archived = False
        await stand.opened("shop/coder", "slow")
        told = await stand.slack.said(shop.id, "events could not be shown here")
        assert f"{total} events" in spoken(told)


async def test_second_mirror_stands_by(rig: Rig, stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two daemons on one bus the first one shows what happens, and the second goes on where it ended."""
    await stand.settings({})
    for name, token in (("BOT_TOKEN", stand.slack.bot_token), ("APP_TOKEN", stand.slack.app_token)):
        monkeypatch.setenv(f"SYSTEMS_SLACK_{name}", token)
    first = await rig._daemon("slack_mirror", "slack_mirror")
    await start_mirror(first)
    await stand.opened("bus", "number 1")
    await stand.slack.said(stand.fleet.id, "number 1")
    second = await rig._daemon("slack_mirror", "slack_mirror-2")
    await start_mirror(second)
    await stand.opened("bus", "number 2")
    await stand.slack.said(stand.fleet.id, "number 2")
    assert second.evidence().handled == 0
    await rig.end(first)
    await stand.opened("bus", "number 3")
    await stand.slack.said(stand.fleet.id, "number 3")
    assert second.evidence().handled > 0
    assert stand.titles(stand.fleet) == [f"🟠 number {number}" for number in (1, 2, 3)]


async def test_console_mode_writes_into_the_log(rig: Rig) -> None:
    """Without Slack each message is a line of the log, nothing of it is recorded, and the event is done with."""
    await rig.bucket("registry").put(SLACK_KEY, msgspec.json.encode(Slack(channel="#fleet")))
    registry = Registry(rig.bucket("registry"))
    await registry.open()
    mirror = Mirror(rig.bus, registry, Console())
    # A test of a fleet in the same process leaves the command line's way of logging behind: nothing less than warnings.
    structlog.reset_defaults()
    with structlog.testing.capture_logs() as lines:
        task = asyncio.create_task(mirror.run())
        event = incident.Declared(title="Fire", severity=Severity.ULTRA, by="ann", since=datetime.now(UTC))
        await rig.bus.store.append(rig.bus.author.control("1", event))
        while not mirror.sources["CONTROL"].settled:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await registry.close()
    (line,) = [line for line in lines if line["event"] == "slack_message"]
    assert line["channel"] == "#fleet"
    assert line["text"].startswith("🔴 Incident 1: Fire")
    assert [record async for record in rig.bus.store.read("CONTROL", "ctl.slack.>")] == []


async def test_storm_that_is_over(stand: Stand) -> None:
    """Hundreds of findings that were told in few messages are closed in few messages."""
    await stand.settings({}, burst=5)
    stand.slack.answering.clear()
    async with stand.mirror() as mirror:
        await stand.opened("bus", "number 0")
        await stand.slack.until(lambda: stand.fleet.messages)
        await asyncio.gather(*(stand.opened("bus", f"number {n}") for n in range(1, 301)))
        while len(mirror.board.findings) < 301:
            await asyncio.sleep(0.01)
        stand.slack.answering.set()
        while mirror.sources["CONTROL"].open:
            await asyncio.sleep(0.01)
        shown = len(stand.fleet.messages)
        stand.slack.answering.clear()
        prints = list(mirror.board.findings)
        closed = finding.Closed(reason=CloseReason.GONE)
        await asyncio.gather(*(stand.control(print_, closed) for print_ in prints))
        while mirror.board.findings:
            await asyncio.sleep(0.01)
        stand.slack.answering.set()
        while mirror.sources["CONTROL"].open:
            await asyncio.sleep(0.01)
    assert shown <= 4
    assert len(stand.fleet.messages) - shown <= 6
    counted = sum(message["metadata"]["event_payload"]["count"] for message in stand.fleet.messages)
    assert counted + sum(record.data.count for record in await stand.records("updated")) == 602

"""The handler in a warden on a real server, with a real webhook: calls, lapses, failures, restarts, freezes, and the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from bus import errors
from bus.events import finding as fe
from bus.events import incident as ev
from bus.events.finding import Kind, Severity
from bus.store import Recorded
from bus.subjects import Ref
from services.app.warden import start_warden
from services.fleet.duty import Escalation, Incidents, Person, Step
from services.fleet.entries import ESCALATION_KEY, INCIDENTS_KEY, PEOPLE_KEY, project_key
from services.fleet.spec import Project
from services.incident import commands as ask
from services.incident.decision import IncidentRefused
from services.incident.desk import Desk
from services.incident.standby import Standby
from services.incident.ways import Apprise, Page
from services.monitor.finding import fingerprint
from services.requests.requests import Asker
from tests.chaos.webhook import Webhook
from tests.services.rig import Rig

pytestmark = pytest.mark.slow

T = TypeVar("T")

#: Said by the watch ring, and so neither found nor closed by a sweep.
SUBJECT = "agent_runner"
PRINT = fingerprint(Kind.DAEMON_SILENT, SUBJECT)
#: Calls come within milliseconds, acknowledgements and updates do not run out by themselves.
QUICK = Incidents(escalation="night", retry=0.05, retry_longest=0.2)


@pytest.fixture
async def hook() -> AsyncIterator[Webhook]:
    """Where people are called."""
    async with Webhook().served() as served:
        yield served


async def settle(rig: Rig, hook: Webhook, limits: Incidents = QUICK, *steps: Step, slack: str = "") -> Desk:
    """Put the settings, and the addresses: the desk of ann."""
    people = {"ann": Person(slack=slack, ways={"phone": "ANN_PHONE"})}
    policy = {"night": Escalation(steps=steps or (Step(whom=("ann",), repeat=0.3),))}
    for key, value in ((PEOPLE_KEY, people), (ESCALATION_KEY, policy), (INCIDENTS_KEY, limits)):
        await rig.bucket("registry").put(key, msgspec.json.encode(value))
    await rig.registry.load()
    file = rig.home / "ways.env"
    file.write_text(f"ANN_PHONE={hook.address('ann')}\n")
    file.chmod(0o600)
    await rig.role("shop/coder", len)
    return Desk(rig.bus, rig.registry, "ann")


async def wrong(rig: Rig) -> None:
    """Something is wrong that is ultra."""
    opened = fe.Opened(
        kind=Kind.DAEMON_SILENT,
        severity=Severity.ULTRA,
        title="no agent_runner beats",
        subject=SUBJECT,
        since=rig.bus.author.now(),
        by="test",
    )
    await rig.bus.store.append(rig.bus.author.control(PRINT, opened))


async def right(rig: Rig) -> None:
    """It is not wrong any more."""
    await rig.bus.store.append(rig.bus.author.control(PRINT, fe.Closed(reason=fe.CloseReason.GONE)))


async def said(rig: Rig, event: type[T], count: int = 1) -> tuple[Recorded, T]:
    """The `count`-th event of this kind of incident 1."""

    def found() -> Any:
        mine = [r for r in rig.control.records if r.subject.startswith("ctl.incident.1.") and isinstance(r.data, event)]
        return mine[count - 1] if len(mine) >= count else None

    record = await rig.control.until(found)
    return record, record.data


async def test_handler_calls_until_acknowledged_and_after_a_lapse(rig: Rig, hook: Webhook) -> None:
    """Calls repeat until somebody has it, none is ordered after, they begin anew when that lapses, and end with the close."""
    desk = await settle(rig, hook)
    await rig.warden()
    await wrong(rig)
    _, declared = await said(rig, ev.Declared)
    assert [impact.project for impact in declared.affected] == ["shop"]
    await hook.until(lambda: len(hook.calls) >= 2)
    assert "incident 1: no agent_runner beats" in hook.calls[0][1]["title"]
    assert hook.calls[0][1]["type"] == "failure"
    await desk.acknowledge("1", for_s=1.0)
    acked, _ = await said(rig, ev.Acknowledged)
    lapsed, _ = await said(rig, ev.AcknowledgementExpired)
    orders = [r.seq for r in rig.control.records if isinstance(r.data, ev.PageDue)]
    assert not [seq for seq in orders if acked.seq < seq < lapsed.seq]
    before = len(hook.calls)
    await hook.until(lambda: len(hook.calls) > before)
    await right(rig)
    await said(rig, ev.Recovered)
    await desk.close("1", "a test", [ev.Action(text="think", owner="ann")])
    closed, _ = await said(rig, ev.Closed)
    _, drafted = await said(rig, ev.Drafted)
    assert "# Incident 1: no agent_runner beats" in drafted.markdown
    assert not [r for r in rig.control.records if isinstance(r.data, ev.PageDue) and r.seq > closed.seq]
    with pytest.raises(IncidentRefused, match="ann closed it at"):
        await Desk(rig.bus, rig.registry, "bob").close("1", "me too")


async def test_handler_says_everywhere_that_nobody_can_be_called(rig: Rig, hook: Webhook) -> None:
    """When every way fails that is an event, it is tried again for ever, and the end of it is an event as well."""
    desk = await settle(rig, hook)
    hook.status = 500
    await rig.warden()
    await wrong(rig)
    _, failed = await said(rig, ev.PagingFailed)
    assert failed.ways[0].startswith("ann by phone: ")
    assert (await desk.find("1")).paging_failed_at is not None
    await hook.until(lambda: hook.refused >= 4)
    hook.status = 200
    _, recovered = await said(rig, ev.PagingRecovered)
    assert (recovered.person, recovered.way) == ("ann", "phone")
    assert (await desk.find("1")).paging_failed_at is None


async def test_handler_tells_on_the_clock_and_nags(rig: Rig, hook: Webhook) -> None:
    """Without news at the time the clock says so, again and again, names who owes them, and a person's update counts anew."""
    desk = await settle(rig, hook, msgspec.structs.replace(QUICK, update_every=0.5))
    await rig.warden()
    await wrong(rig)
    await said(rig, ev.Declared)
    await desk.acknowledge("1")
    await desk.assign("1", "bob")
    await said(rig, ev.Updated, 3)
    ticks = [r.data for r in rig.control.records if isinstance(r.data, ev.Updated)]
    assert all(tick.automatic and tick.text.startswith("no news yet, next at") for tick in ticks)
    assert ticks[-1].nags == "bob"
    one = await desk.find("1")
    assert one.overdue(rig.bus.author.now())
    after = await desk.update("1", "it is being looked at", words=[ev.Words(project="shop", text="your work waits")])
    assert not after.overdue(rig.bus.author.now())
    with pytest.raises(IncidentRefused, match="did you mean 'shop'"):
        await desk.update("1", "x", words=[ev.Words(project="shp", text="y")])


async def test_handler_that_is_new_carries_out_what_the_old_one_ordered(rig: Rig, hook: Webhook) -> None:
    """An order that a warden took to its end is carried out by the next one, and counts for the same incident."""
    await settle(rig, hook)
    await wrong(rig)
    # What a warden that died between order and call leaves behind.
    desk = Desk(rig.bus, rig.registry, "ann")
    declared = ev.Declared(
        title="no agent_runner beats",
        severity=Severity.ULTRA,
        by="monitor",
        since=rig.bus.author.now(),
        finding=PRINT,
        kind=Kind.DAEMON_SILENT,
        subject=SUBJECT,
    )
    await desk.ledger.declare(declared)
    order = ev.PageDue(page="p1", person="ann", way="phone", carrier=ev.Carrier.APPRISE, policy="night")
    await rig.bus.store.append(rig.bus.author.control("1", order))
    await rig.warden()
    await hook.until(lambda: len(hook.calls) >= 1)
    record, paged = await said(rig, ev.Paged)
    assert (paged.page, paged.ok) == ("p1", True)
    assert record.subject == "ctl.incident.1.paged"
    assert len([r for r in rig.control.records if isinstance(r.data, ev.Declared)]) == 1


async def test_handler_of_the_first_of_two_wardens_calls(rig: Rig, hook: Webhook) -> None:
    """With a warden on each of two machines nobody is called twice for one order."""
    await settle(rig, hook)
    await rig.warden()
    await start_warden(await rig._daemon("warden", "warden-2"))
    await wrong(rig)
    await said(rig, ev.Paged, 4)
    await Desk(rig.bus, rig.registry, "ann").acknowledge("1")
    await said(rig, ev.Acknowledged)
    assert len(hook.calls) <= len([r for r in rig.control.records if isinstance(r.data, ev.PageDue)])


async def test_handler_of_the_first_of_two_stand_ins_calls(rig: Rig, hook: Webhook) -> None:
    """With a launcher on each of two machines, and no warden, nobody is called twice for one order."""
    await settle(rig, hook)
    for instance in ("launcher", "launcher-2"):
        running = await rig._daemon("launcher", instance)
        await running.announce()
        standby = Standby(running.bus, running.home, {}, running.goes_first, away_s=0)
        running.accompany("incidents", standby.run())
    await wrong(rig)
    await said(rig, ev.Paged, 3)
    await Desk(rig.bus, rig.registry, "ann").acknowledge("1")
    await said(rig, ev.Acknowledged)
    assert len(hook.calls) <= len([r for r in rig.control.records if isinstance(r.data, ev.PageDue)])


async def test_handler_does_what_the_first_warden_could_not(rig: Rig, hook: Webhook, tmp_path: Path) -> None:
    """Where only the second machine has the addresses, it is the one that calls."""
    await settle(rig, hook)
    home = tmp_path / "second"
    home.mkdir()
    (rig.home / "ways.env").rename(home / "ways.env")
    await rig.warden()
    second = await rig._daemon("warden", "warden-2")
    second.home = home
    await start_warden(second)
    await wrong(rig)
    await hook.until(lambda: hook.calls)

    def known() -> list[bool]:
        answers = [r.data.ok for r in rig.control.records if isinstance(r.data, ev.Paged)]
        return answers if True in answers else []

    assert False in await rig.control.until(known)


async def test_handler_counts_an_order_that_nobody_carries_out_as_failed(rig: Rig, hook: Webhook) -> None:
    """A call by Slack that slack_mirror does not answer in time has failed, is ordered again, and its late answer counts."""
    limits = msgspec.structs.replace(QUICK, answer_within=0.3)
    desk = await settle(rig, hook, limits, Step(whom=("ann",), how=("slack",)), slack="U1")
    await rig.warden()
    await wrong(rig)
    _, order = await said(rig, ev.PageDue)
    assert (order.carrier, order.target) == (ev.Carrier.SLACK, "U1")
    _, paged = await said(rig, ev.Paged)
    assert paged.error == "slack_mirror did not answer within 0.3 s"
    await said(rig, ev.PagingFailed)
    _, again = await said(rig, ev.PageDue, 2)
    assert again.attempt == 2
    answer = ev.Paged(page=again.page, person="ann", way="slack", level=1, attempt=2, ok=True)
    await desk.ledger.act(1, ask.Answer(answer))
    await said(rig, ev.PagingRecovered)


async def test_handler_works_in_a_freeze(rig: Rig, hook: Webhook) -> None:
    """While the kill switch is thrown incidents are declared, called for, acknowledged and closed: the record is never frozen."""
    desk = await settle(rig, hook)
    await rig.warden()
    await rig.bucket("flags").put("kill_switch", b"frozen")
    await rig.bus.gate.open()
    async with asyncio.timeout(30):
        while not rig.bus.gate.closed:
            await rig.bus.gate.changed(1)
    one = await desk.declare("the shop is on fire", severity=Severity.ULTRA, projects=["shop"])
    await hook.until(lambda: [body for _, body in hook.calls if f"incident {one.number}:" in body["title"]])
    await desk.acknowledge(str(one.number))
    closed = await desk.close(str(one.number), "it was a drill")
    assert not closed.open


async def test_handler_tells_each_project_in_its_words(rig: Rig, hook: Webhook) -> None:
    """A project's own address gets the opening, each update in its words, and the closing; what fails is on the record."""
    desk = await settle(rig, hook)
    project = Project(tell=("SHOP_NEWS", "NOWHERE"))
    await rig.bucket("registry").put(project_key("shop"), msgspec.json.encode(project))
    with (rig.home / "ways.env").open("a") as file:
        file.write(f"SHOP_NEWS={hook.address('shop-news')}\n")
    await rig.warden()
    await wrong(rig)
    await said(rig, ev.Declared)
    await desk.acknowledge("1")
    await desk.update("1", "we look at it", words=[ev.Words(project="shop", text="your work waits")])
    await desk.close("1", "a test")
    await hook.until(
        lambda: [body for path, body in hook.calls if path == "shop-news" and "is over" in body["message"]]
    )
    texts = [body["message"] for path, body in hook.calls if path == "shop-news"]
    assert "What is hit: shop: a runner is away: work may wait" in texts[0]
    assert "What still works: requests are accepted and wait; other runners go on" in texts[0]
    assert texts[1].startswith("Incident 1: your work waits")
    assert "Cause: a test" in texts[2]
    assert len(texts) == 3
    _, untold = await said(rig, ev.Told, 6)
    told = [r.data for r in rig.control.records if isinstance(r.data, ev.Told)]
    assert sorted({(one.way, one.ok) for one in told}) == [("NOWHERE", False), ("SHOP_NEWS", True)]
    assert "expected the address of shop by its tell in NOWHERE" in next(one.error for one in told if not one.ok)
    assert untold.about < (await desk.find("1")).last_seq


async def test_handler_tells_nobody_twice_and_lets_nobody_wait_for_another(rig: Rig, hook: Webhook) -> None:
    """What an earlier warden has told is not told again, an address without an answer holds up no other, and who is spared hears it."""
    desk = await settle(rig, hook, msgspec.structs.replace(QUICK, call_timeout=60.0))
    await rig.bucket("registry").put(project_key("shop"), msgspec.json.encode(Project(tell=("DEAF", "SHOP_NEWS"))))
    await rig.registry.load()
    # It takes connections, and never answers.
    taken: list[asyncio.StreamWriter] = []
    deaf = await asyncio.start_server(lambda _, writer: taken.append(writer), "127.0.0.1", 0)
    with (rig.home / "ways.env").open("a") as file:
        port = deaf.sockets[0].getsockname()[1]
        file.write(f"SHOP_NEWS={hook.address('shop-news')}\nDEAF=json://127.0.0.1:{port}/x\n")
    one = await desk.declare("the shop is slow", severity=Severity.CONCERN, projects=["shop"])
    for way in ("DEAF", "SHOP_NEWS"):
        await desk.ledger.act(1, ask.Tell(ev.Told(project="shop", way=way, about=one.last_seq, ok=True)))
    await desk.affect("1", remove=["shop"])
    async with deaf:
        await rig.warden()
        await hook.until(lambda: hook.calls)
        texts = [body["message"] for path, body in hook.calls if path == "shop-news"]
        for writer in taken:
            writer.close()
    assert texts == ["Incident 1 does not hit shop after all, says ann: the shop is slow"]


def _breaks(input: Any) -> Any:
    raise ValueError(input)


async def test_handler_follows_causes_to_other_projects(rig: Rig, hook: Webhook) -> None:
    """Who had asked for work that has died is hit, and a finding about the same run tree is the same incident."""
    await settle(rig, hook)
    await rig.role("ledger/bookkeeper", repr, asks=("shop/*",))
    await rig.role("shop/writer", _breaks, max_attempts=1)
    await rig.warden()
    await rig.runner()
    root = await rig.ask("ledger/bookkeeper", "books")
    asker = Asker(ref=Ref("ledger", "bookkeeper", root.id), root=root.id, depth=0)
    dead = await rig.ask("shop/writer", "page", asker=asker)
    letter = await rig.dead.subject(lambda r: r.subject.endswith(f".{dead.id}"))
    asked = await rig.story.event(root.id, "requested")
    for subject, stream, seq in (("shop/writer", "DEAD_LETTERS", letter.seq), ("books", "INVOCATIONS", asked.seq)):
        opened = fe.Opened(
            kind=Kind.SWEEP_LATE,
            severity=Severity.ULTRA,
            title=f"{subject} is wrong",
            subject=subject,
            since=rig.bus.author.now(),
            evidence=(fe.Evidence(stream, seq),),
        )
        await rig.bus.store.append(rig.bus.author.control(fingerprint(Kind.SWEEP_LATE, subject), opened))
    _, declared = await said(rig, ev.Declared)
    assert {impact.project: impact.reason for impact in declared.affected} == {
        "shop": "shop/writer is wrong",
        "ledger": "ledger/bookkeeper has asked shop/writer (shop/writer is wrong)",
    }
    _, joined = await said(rig, ev.Joined)
    assert (joined.subject, joined.reason) == ("books", ev.JoinReason.TREE)


async def test_handler_two_who_declare_at_once_get_two_numbers_and_two_who_close_get_one_close(rig: Rig) -> None:
    """Numbers have no gap and no double; of two who close at once one wins and the other is told."""
    people = [Desk(rig.bus, rig.registry, name) for name in ("ann", "bob")]
    opened = await asyncio.gather(*(desk.declare("it smells", severity=Severity.CONCERN) for desk in people * 3))
    assert sorted(one.number for one in opened) == [1, 2, 3, 4, 5, 6]
    ends = await asyncio.gather(*(desk.close("3", "gas") for desk in people), return_exceptions=True)
    assert sorted(type(end).__name__ for end in ends) == ["Incident", "IncidentRefused"]
    with pytest.raises(errors.UnknownName, match="unknown incident '9'"):
        await people[0].find("9")


@pytest.mark.parametrize("who", ["shop/coder", "monitor", ""])
async def test_handler_agents_and_machines_close_nothing(rig: Rig, who: str) -> None:
    """Only a person declares, acknowledges, mitigates or closes."""
    await Desk(rig.bus, rig.registry, "ann").declare("it smells", severity=Severity.ULTRA)
    desk = Desk(rig.bus, rig.registry, who)
    for attempt in (desk.close("1", "x"), desk.acknowledge("1"), desk.mitigate("1")):
        with pytest.raises(IncidentRefused, match="expected a person"):
            await attempt
    with pytest.raises(IncidentRefused, match="expected a person"):
        await desk.declare("x", severity=Severity.CONCERN)


async def test_way_tells_why_it_failed_and_keeps_its_secret(hook: Webhook) -> None:
    """A refusal, a dead host and an address that is none are errors in words without the secret part."""
    page = Page(title="t", body="b")
    assert await Apprise(hook.address("topsecret"), 5).send(page) == ""
    hook.status = 403
    dead = "json://user:topsecret@127.0.0.1:1/topsecret?token=topsecret"
    for url in (hook.address("topsecret"), dead, "nonsense://topsecret"):
        error = await Apprise(url, 5).send(page)
        assert error
        assert "topsecret" not in error

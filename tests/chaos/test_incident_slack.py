"""A real fleet, a Slack, and an incident from its first sign to its post-mortem: everything that people do is done in Slack."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bus.events import daemon, finding
from bus.events import incident as ev
from bus.events.slack import Posted
from bus.store import Recorded
from tests.chaos.fleet import Desk, Fleet
from tests.chaos.incident import begun, first, keep_ways, of, story_is_told
from tests.chaos.webhook import Webhook
from tests.services.slack.desk.office import button
from tests.slack.fake import FakeSlack, fake_slack, spoken
from tests.slack.people import Person

pytestmark = [pytest.mark.chaos, pytest.mark.slow, pytest.mark.soak]

#: Seconds after which Bob is called.
BOB_AFTER_S = 2
FLEET = """
[monitor]
look = "500ms"

[daemons]
restart = {{ exits = 1, period = "5m" }}

[projector]
enabled = false

[slack]
enabled = true
channel = "#fleet"
api_url = "{api}"
per_second = 20

[slack.permissions]
incident = ["{ann}", "{bob}"]

[incidents]
escalation = "night"
update_every = "3s"

[people.ann]
slack = "{ann}"
[people.bob]
ways = {{ phone = "BOB_PHONE" }}

[[escalation.night.steps]]
whom = ["ann"]
repeat = "1s"

[[escalation.night.steps]]
whom = ["bob"]
after = "{after}s"

[projects.shop]
slack_channel = "#shop"

[projects.shop.roles.coder]
handler = {{ kind = "function", target = "handlers:code" }}

[projects.ledger]
slack_channel = "#ledger"

[projects.ledger.roles.bookkeeper]
handler = {{ kind = "function", target = "handlers:book" }}
asks = ["shop/coder"]
"""
HANDLERS = """
import asyncio
from pathlib import Path

async def code(input, ctx):
    while not Path(input).exists():
        await asyncio.sleep(0.05)

async def book(input, ctx):
    await ctx.request("shop/coder", input)
"""


class Story:
    """The fleet, and what people see of it."""

    def __init__(self, fleet: Fleet, slack: FakeSlack) -> None:
        self.fleet, self.slack = fleet, slack
        self.channels = {name: slack.workspace.channel(name).id for name in ("fleet", "shop", "ledger")}
        self.ann, self.bob = (Person(slack, slack.workspace.user(name).id) for name in ("ann", "bob"))
        #: What lets the coder finish its work.
        self.file = fleet.folder / "there"

    async def up(self, hook: Webhook) -> None:
        """Start, and wait for the socket."""
        toml = FLEET.format(api=self.slack.api, ann=self.ann.user, bob=self.bob.user, after=BOB_AFTER_S)
        self.fleet.write(toml, HANDLERS)
        self.fleet.more = {
            "SYSTEMS_SLACK_BOT_TOKEN": self.slack.bot_token,
            "SYSTEMS_SLACK_APP_TOKEN": self.slack.app_token,
        }
        keep_ways(self.fleet, f"BOB_PHONE={hook.address('bob')}\n")
        await self.fleet.up()
        await self.slack.until(lambda: self.slack.sockets.connected)

    def name(self, person: Person) -> str:
        """Who somebody is in events."""
        return f"slack:{person.user} ({self.slack.workspace.users[person.user].name})"

    async def head(self, channel: str, words: str = "") -> dict[str, Any]:
        """The incident's message of a channel, once it says these words."""

        def found() -> dict[str, Any] | None:
            for message in self.slack.messages(self.channels[channel]):
                if message["metadata"]["event_payload"]["key"] == "incident:1" and words in spoken(message):
                    return message
            return None

        head: dict[str, Any] = await self.slack.until(found)
        return head

    async def below(self, channel: str, matches: Callable[[str], bool]) -> str:
        """What a reply in the incident's thread says, waited for."""
        ts = (await self.head(channel))["ts"]

        def found() -> str | None:
            replies = self.slack.thread(self.channels[channel], ts)[1:]
            return next((said for reply in replies if matches(said := spoken(reply))), None)

        said: str = await self.slack.until(found)
        return said

    async def everywhere(self, *words: str) -> dict[str, str]:
        """The replies with all of these words, one in the thread of each affected project."""
        return {name: await self.below(name, lambda said: all(w in said for w in words)) for name in ("shop", "ledger")}

    async def direct(self, person: Person, words: str) -> tuple[str, dict[str, Any]]:
        """A direct message to somebody, and its channel."""
        channel = self.slack.workspace.direct(person.user).id
        return channel, await self.slack.said(channel, words)


async def test_incident_is_handled_from_slack_alone(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Affected projects are told, people are called until one has it, the clock nags, one of two closes, the post-mortem is right."""
    async with fake_slack() as slack, Webhook().served() as hook:
        story = Story(Fleet(tmp_path), slack)
        try:
            await story.up(hook)
            async with story.fleet.bus() as desk:
                coder, gave_up = await _given_up(story, desk)
                request.node.add_report_section("call", "openings", await _told(story, desk, gave_up))
                pressed = await _called(story, desk, hook)
                await _acknowledged(story, desk, hook, pressed)
                await _broadcast(story, desk)
                await _paused(story)
                await _updated(story)
                await _mended(story, desk, coder)
                closer = await _closed(story, desk)
                drafted = await first(desk, ev.Drafted)
                assert f"Closed by | {story.name(closer)}" in drafted[1].markdown
                assert story_is_told(desk) == drafted[1]

                # The button from before says what has happened since.
                await story.ann.click(pressed[1], pressed[0], {"ts": "1.1"})
                assert f"{story.name(closer)} closed it at" in spoken(await story.ann.answered())
                assert len(of(desk, ev.Acknowledged)) == len(of(desk, ev.Closed)) == 1
                assert len([r for r in desk.control.records if isinstance(r.data, ev.Declared)]) == 1, "one cause"
        finally:
            await story.fleet.down()


async def _given_up(story: Story, desk: Desk) -> tuple[str, Recorded]:
    """Ledger's work has asked shop's, and the only runner dies for good: the id of the work that waits, and that event."""
    await begun(desk)
    asked = await desk.ask("ledger/bookkeeper", str(story.file))
    await desk.story.event(asked.id, "completed")
    child = await desk.story.subject(lambda r: ".shop.coder." in r.subject and r.subject.endswith(".claimed"))
    pid = await story.fleet.kill("agent_runner-1")
    await story.fleet.pid("agent_runner-1", other_than=pid)
    await story.fleet.kill("agent_runner-1")
    gave_up = await desk.control.subject(lambda r: isinstance(r.data, daemon.GaveUp))
    return child.subject.split(".")[3], gave_up


async def _told(story: Story, desk: Desk, gave_up: Recorded) -> str:
    """The opening is in the channel of each affected project, in its own words: how long that took, for `pytest -rP`."""
    took = []
    opened, declared = await first(desk, ev.Declared)
    found = await desk.control.subject(
        lambda r: isinstance(r.data, finding.Opened) and r.subject.split(".")[2] == declared.finding
    )
    assert {impact.project for impact in declared.affected} == {"shop", "ledger"}
    for name, other in (("shop", "ledger"), ("ledger", "shop")):
        head = await story.head(name)
        said = "".join(_texts(head["blocks"]))
        assert said.startswith("🔴 Incident 1: agent_runner-1 ")
        assert f"Hits {name}: a runner is away: work may wait" in said, said
        assert "Still works: requests are accepted and wait" in said, said
        assert "What to do: nothing, " in said, said
        assert f"Hits {other}" not in said, said
        posted = await _posted(desk, f"#{name}", head["ts"])
        # The finding itself may be older: a concern from the runner's first death on.
        assert gave_up.seq < opened.seq < posted.seq
        for what, since in (("it was given up", gave_up), ("the finding", found)):
            took.append(f"#{name}: {float(head['ts']) - since.stored_at.timestamp():.3f} s after {what}")
    return "\n".join(took)


async def _posted(desk: Desk, target: str, ts: str) -> Recorded:
    """The record of a message."""
    return await desk.control.subject(
        lambda r: isinstance(r.data, Posted) and (r.data.target, r.data.ts) == (target, ts)
    )


async def _called(story: Story, desk: Desk, hook: Webhook) -> tuple[str, dict[str, Any]]:
    """Ann is called at once and again, Bob when his time has come: the channel and the button of Ann's first call."""
    channel, call = await story.direct(story.ann, "Incident 1 calls you: ")
    pressed = copy.deepcopy(button(call, "incident_acknowledge"))
    await hook.until(lambda: hook.calls)
    assert hook.calls[0][0] == "bob"
    assert hook.calls[0][1]["title"].startswith("[ultra] incident 1: ")
    declared, _ = of(desk, ev.Declared)[0]
    await desk.control.until(lambda: [o for _, o in of(desk, ev.PageDue) if o.person == "bob"])
    orders = [(record, order) for record, order in of(desk, ev.PageDue) if order.person == "bob"]
    assert len(orders) == 1, "his step has no repeat, and the webhook took the first call"
    assert (orders[0][0].stored_at - declared.stored_at).total_seconds() >= BOB_AFTER_S
    await desk.control.until(lambda: [o for _, o in of(desk, ev.PageDue) if o.person == "ann" and o.turn >= 2])
    return channel, pressed


async def _acknowledged(story: Story, desk: Desk, hook: Webhook, pressed: tuple[str, dict[str, Any]]) -> None:
    """Ann's press stops every call: her name is on the record, and no order and no call comes after it."""
    ann = story.name(story.ann)
    await story.ann.click(pressed[1], pressed[0], {"ts": "1.1"})
    assert f"{ann} has incident 1 until" in spoken(await story.ann.answered())
    _, event = await first(desk, ev.Acknowledged)
    assert event.by == ann
    for name in story.channels:
        await story.head(name, f"acknowledged by {ann}")
    assert len(hook.calls) == 1


def _nobody_is_called_after(desk: Desk, slack: FakeSlack, direct: str) -> None:
    """Fold the log: nothing is ordered after the acknowledgement, and what is answered after it was on its way."""
    acked = of(desk, ev.Acknowledged)[0][0].seq
    orders = {order.page: record.seq for record, order in of(desk, ev.PageDue)}
    assert max(orders.values()) < acked
    assert {paged.page for record, paged in of(desk, ev.Paged) if record.seq > acked} <= orders.keys()
    assert {paged.page for _, paged in of(desk, ev.Paged)} == orders.keys(), "every order is answered"
    taken = [paged for _, paged in of(desk, ev.Paged) if paged.way == "slack" and paged.ok]
    assert len(taken) == sum("Incident 1 calls you: " in spoken(message) for message in slack.messages(direct))


async def _broadcast(story: Story, desk: Desk) -> None:
    """Bob takes command and says nothing: both projects read that there is no news, and he is reminded."""
    bob = story.name(story.bob)
    await story.bob.click(button(await story.head("fleet"), "incident_command"), story.channels["fleet"], {"ts": "1.1"})
    await story.bob.answered()
    assigned, _ = await first(desk, ev.Assigned)

    def told() -> ev.Updated | None:
        return next((its for record, its in of(desk, ev.Updated) if record.seq > assigned.seq), None)

    tick = await desk.control.until(told)
    assert (tick.automatic, tick.nags) == (True, bob)
    assert tick.text.startswith("no news yet, next at ")
    await story.everywhere("No news yet", tick.text, "Owed by: ", bob)
    await story.direct(story.bob, "Incident 1 waits for your update: ")


async def _paused(story: Story) -> None:
    """A pause because of it hits the project whose role it is and the one that has asked this role, each in its own words."""
    paused = await story.fleet.systems("pause", "shop/coder", "--reason", "no more until it runs")
    assert paused.status == 0, paused.err
    own = await story.below("shop", lambda said: "shop/coder is paused" in said)
    asker = await story.below("ledger", lambda said: "ledger/bookkeeper has asked shop/coder" in said)
    assert "ledger" not in own
    assert "shop/coder is paused: no more until it runs" not in asker


async def _updated(story: Story) -> None:
    """What Ann writes into the form is in both threads, and in both heads."""
    await story.ann.click(button(await story.head("shop"), "incident_update"), story.channels["shop"], {"ts": "1.1"})
    view = await story.ann.view()
    await story.ann.submit(view, {"reason": {"value": {"value": "we start another runner"}}})
    await story.ann.shown(view, "incident 1: told ledger, shop")
    await story.everywhere(f"Update by {story.name(story.ann)}", "we start another runner")
    for name in story.channels:
        await story.head(name, "we start another runner")


async def _mended(story: Story, desk: Desk, coder: str) -> None:
    """The runner is back, and what waited is done."""
    for command in (("resume", "shop/coder"), ("start", "agent_runner-1")):
        ended = await story.fleet.systems(*command)
        assert ended.status == 0, ended.err
    story.file.touch()
    assert await desk.story.ended(coder) == "completed"
    _, declared = of(desk, ev.Declared)[0]
    await desk.control.until(lambda: [its for _, its in of(desk, ev.Recovered) if its.finding == declared.finding])
    await story.everywhere(f"Gone: {declared.title}")


async def _closed(story: Story, desk: Desk) -> Person:
    """Ann and Bob close at once: one wins, the other is told, and both projects read the end. Who has won."""
    close = button(await story.head("ledger"), "incident_close")
    people, views = (story.ann, story.bob), []
    for person in people:
        await person.click(close, story.channels["ledger"], {"ts": "1.1"})
        views.append(await person.view())
    await asyncio.gather(
        *(
            person.submit(view, {"reason": {"value": {"value": f"somebody killed it, says {person.user}"}}})
            for person, view in zip(people, views, strict=True)
        )
    )
    _, closed = await first(desk, ev.Closed)
    winner, loser = people if closed.by == story.name(story.ann) else people[::-1]
    at = people.index(winner)
    await winner.shown(views[at], f"incident 1 is closed: {closed.cause}")
    await loser.shown(views[1 - at], f"expected incident 1 to be open, got: {closed.by} closed it at")
    assert closed.cause == f"somebody killed it, says {winner.user}"
    await story.everywhere(f"Closed by {closed.by}", closed.cause)
    for name in story.channels:
        assert "Acknowledge" not in spoken(await story.head(name, closed.cause))
    _nobody_is_called_after(desk, story.slack, story.slack.workspace.direct(story.ann.user).id)
    return winner


def _texts(value: Any) -> list[str]:
    """Every text within blocks, in order."""
    if isinstance(value, dict):
        own = [value["text"]] if isinstance(value.get("text"), str) else []
        return own + [text for each in value.values() for text in _texts(each)]
    return [text for each in value for text in _texts(each)] if isinstance(value, list) else []

"""People look after a fleet from Slack: real bus, real warden and runner, a Slack over real sockets."""

from __future__ import annotations

import asyncio

import pytest

from bus.events import finding
from bus.events.finding import Severity
from bus.events.incident import Assigned
from services.fleet.slack import Mode
from services.monitor import raising
from services.ops.operation import Status
from services.ops.performing import operations
from services.requests.service import ACTOR
from tests.services.rig import Rig
from tests.services.slack.desk.office import button, office
from tests.slack.fake import spoken


@pytest.mark.slow
async def test_two_people_look_after_a_fleet_from_slack(rig: Rig) -> None:
    """Who may looks and acts in their own name, who may not is on the record, and what is stale says what has happened since."""
    fails = True

    async def code(_: object) -> str:
        if fails:
            raise ValueError("<!channel> no such key")
        return "done"

    await rig.role("shop/coder", code, max_attempts=1)
    await rig.warden()
    await rig.runner()
    async with office(rig) as made:
        ann, bob = made.ann, made.bob
        await made.permit(view=(bob.user,), operate=(ann.user,), freeze=(ann.user,), incident=(ann.user, bob.user))

        # Looking.
        assert "fleet health at" in spoken(await made.says(bob, "status"))
        assert "did you mean 'status'" in spoken(await made.says(bob, "sttus"))

        # Dead letters, and what an agent wrote in them.
        accepted = await rig.ask("shop/coder", {"a": 1})
        await rig.story.event(accepted.id, "dead_lettered")
        await rig.dead.until(lambda: rig.dead.records or None)
        shown = await made.says(bob, f"dlq show {accepted.id}")
        assert "&lt;!channel&gt; no such key" in spoken(shown)

        # Bob may not.
        await bob.click(button(shown, "dead_letter_redrive"), made.channel, {"ts": "1.1"})
        refusal = spoken(await made.answered(bob))
        assert f"slack:{bob.user} (bob) is refused (not permitted): redrive needs the permission 'operate'" in refusal
        (refused,) = await made.asked("refused")
        assert (refused.data.who, refused.data.command) == (f"slack:{bob.user} (bob)", "redrive")

        # Ann may; her second click says what her first one did.
        fails = False
        clicks = [await ann.click(button(shown, "dead_letter_redrive"), made.channel, {"ts": "1.1"})]
        assert "1 redriven" in spoken(await made.answered(ann))
        clicks.append(await ann.click(button(shown, "dead_letter_redrive"), made.channel, {"ts": "1.1"}))
        assert f"expected {accepted.id} to wait as a dead letter, got:" in spoken(await made.answered(ann))
        redriven = await rig.story.event(accepted.id, "redriven")
        assert redriven.event is not None
        assert redriven.event.actor == f"slack:{ann.user} (ann)"
        assert await rig.story.ended(accepted.id)

        # A freeze from a form, and its end by a command.
        await ann.open_home()
        home = await made.slack.until(lambda: made.slack.workspace.homes.get(ann.user))
        await ann.click_home(button(home, "freeze"))
        view = await made.view(ann)
        wrong = await ann.submit(
            view, {"reason": {"value": {"value": "it burns"}}, "confirm": {"value": {"value": "harrd"}}}
        )
        assert wrong.payload["errors"] == {"confirm": "expected hard, or nothing for a soft freeze, got: harrd"}
        await ann.submit(view, {"reason": {"value": {"value": "it burns"}}})
        assert "receipts, 0 writes after the freeze" in await made.shown(view, "frozen (soft)")
        assert "2 of 2 receipts" not in spoken(await made.says(bob, "thaw it is out"))  # refused: he may not
        thawed = spoken(await made.says(ann, "thaw it is out"))
        assert "clear" in thawed, thawed

        # A hard freeze, which no permission of theirs reaches.
        assert "needs the permission 'hard'" in spoken(await made.says(ann, "freeze hard now --confirm hard"))


@pytest.mark.slow
async def test_of_two_who_close_an_incident_one_wins(rig: Rig) -> None:
    """Two forms for one incident come back: it is closed once, and the other person reads by whom and why."""
    await rig.warden()
    async with office(rig) as made:
        await made.permit(incident=(made.ann.user, made.bob.user))
        opened = await made.says(made.ann, "incident declare concern the shop is slow")
        assert "incident 1 is open (concern): the shop is slow" in spoken(opened)
        listed = await made.says(made.ann, "incident ls")
        await made.ann.click(button(listed, "incident_acknowledge"), made.channel, {"ts": "1.1"})
        assert f"slack:{made.ann.user} (ann) has incident 1" in spoken(await made.answered(made.ann))
        await made.says(made.ann, f"incident assign 1 <@{made.bob.user}|whoever>")
        assigned = await rig.control.until(
            lambda: [one for one in rig.control.records if isinstance(one.data, Assigned)]
        )
        assert assigned[0].data.commander == f"slack:{made.bob.user} (bob)"
        views = []
        for person in (made.ann, made.bob):
            await person.click(button(listed, "incident_close"), made.channel, {"ts": "1.1"})
            views.append(await made.view(person))
        await asyncio.gather(
            *(
                person.submit(view, {"reason": {"value": {"value": f"fixed by {person.user}"}}})
                for person, view in zip((made.ann, made.bob), views, strict=True)
            )
        )
        said = [await made.shown(view, "closed") for view in views]
        assert sum("incident 1 is closed: fixed by" in one for one in said) == 1, said
        assert sum("closed" in one and "expected" in one for one in said) == 1, said

        # A button from before says what has happened since.
        await made.bob.click(button(listed, "incident_update"), made.channel, {"ts": "1.1"})
        assert "incident 1 was closed by slack:" in spoken(await made.view(made.bob))


@pytest.mark.slow
async def test_signed_requests_reach_the_same_desk(rig: Rig) -> None:
    """Over HTTP a delivery that comes twice acts once, and long rows come as a file."""
    await rig.role("shop/coder", lambda _: None)
    await rig.warden()
    async with office(rig, Mode.HTTP) as made:
        await made.permit(operate=(made.ann.user,))
        await made.ann.slash("pause shop/coder it loops", made.channel)
        again = dict(made.ann.last)
        assert "shop/coder is refused (paused): it loops" in spoken(await made.answered(made.ann))
        await made.ann._deliver("slash_commands", again, retry=1)
        assert "shop/coder goes on" in spoken(await made.says(made.ann, "resume shop/coder"))
        assert len(await made.asked("asked", 2)) == 2
        assert len(await made.asked("done", 2)) == 2


@pytest.mark.slow
async def test_a_proposal_of_a_triage_is_decided_once(rig: Rig) -> None:
    """What an agent proposes waits in the home tab; who rejects it is on the record, and who comes later is told."""
    await rig.warden()
    async with office(rig) as made:
        await made.permit(operate=(made.ann.user, made.bob.user))
        raised = await raising.ask(
            rig.connection, raising.Raise(severity=Severity.CONCERN, title="the shop is slow"), {ACTOR: "tester"}
        )
        print_ = raised.fingerprint
        opened = f"ctl.finding.{print_}.opened"
        await rig.control.until(lambda: [one for one in rig.control.records if one.subject == opened])
        proposal = finding.Proposal(action="restart", target="warden", why="<!channel> it is slow")
        proposed = finding.Proposed(invocation="i1", proposals=(proposal,))
        await rig.bus.store.append(rig.bus.author.control(print_, proposed))
        views = []
        for person in (made.ann, made.bob):
            await person.open_home()
            home = await made.slack.until(lambda user=person.user: made.slack.workspace.homes.get(user))  # type: ignore[misc]
            assert "&lt;!channel&gt; it is slow" in spoken(home)
            await person.click_home(button(home, "proposal_reject"))
            views.append(await made.view(person))
        await made.ann.submit(views[0], {"reason": {"value": {"value": "it is the database"}}})
        await made.shown(views[0], "restart of warden is rejected: it is the database")
        await made.bob.submit(views[1], {"reason": {"value": {"value": "no"}}})
        await made.shown(views[1], f"reject was asked for by slack:{made.ann.user} (ann) at")
        await made.bob.click_home(button(home, "proposal_approve"))
        channel = made.slack.workspace.direct(made.bob.user).id
        await made.slack.said(channel, f"reject was asked for by slack:{made.ann.user} (ann) at")
        (one,) = (await operations(rig.bus)).values()
        assert (one.who, one.status, one.reason) == (
            f"slack:{made.ann.user} (ann)",
            Status.REFUSED,
            f"rejected by slack:{made.ann.user} (ann): it is the database",
        )

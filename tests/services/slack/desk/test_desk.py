"""The desk itself: once, in whose name, with which login, and what a no leaves behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from bus import flags
from services.slack.desk import answer, words
from services.slack.desk.answer import Answer
from services.slack.desk.desk import DESK, HARD, Desk, Request, Session
from services.slack.desk.permission import Permission, Who
from tests.services.rig import Rig
from tests.services.slack.desk.office import Office, office
from tests.slack.fake import spoken


@pytest.fixture
async def made(rig: Rig) -> AsyncIterator[Office]:
    """An office without a warden."""
    async with office(rig) as opened:
        yield opened


def request(who: Who, needs: Permission = Permission.OPERATE, *, delivery: str = "d1") -> Request:
    """Somebody asks for something."""
    return Request(who, "redrive", needs, text="redrive x", channel="C1", delivery=delivery)


async def test_a_delivery_acts_once_over_restarts_and_beside_another_process(made: Office) -> None:
    """Of the same delivery to two desks that know nothing of one another one acts, and the record shows one."""
    await made.permit(operate=("U0ANN",))
    did: list[str] = []

    async def act(session: Session) -> Answer:
        did.append(session.actor)
        return answer.done("done", session.actor)

    desks = [Desk(made.parts, made.login), Desk(made.parts, made.login)]
    found = await asyncio.gather(*(desk.act(request(Who(id="U0ANN", name="ann")), act) for desk in desks))
    assert sorted(one is None for one in found) == [False, True]
    assert await desks[0].act(request(Who(id="U0ANN", name="ann")), act) is None
    assert did == ["slack:U0ANN (ann)"]
    (asked,) = await made.asked("asked")
    (done,) = await made.asked("done")
    assert (asked.data.who, done.data.said, done.data.ok) == ("slack:U0ANN (ann)", "done", True)


async def test_a_no_is_told_each_time_and_recorded_once_a_minute(made: Office) -> None:
    """Who presses a button again and again is refused again and again, and does not fill the log."""
    desk = Desk(made.parts, made.login)

    async def act(_: Session) -> Answer:
        raise AssertionError("nobody may")

    for number in range(5):
        found = await desk.act(request(Who(id="U0ANN"), delivery=str(number)), act)
        assert found is not None
        assert "is refused (not permitted)" in spoken({"blocks": found.whole})
    await desk.act(request(Who(id="U0BOB"), delivery="other"), act)
    refused = await made.asked("refused", 2)
    assert [one.data.who for one in refused] == ["slack:U0ANN", "slack:U0BOB"]


async def test_what_nobody_expected_is_told_and_logged(made: Office) -> None:
    """A fault of ours after the acknowledgement leaves nobody waiting."""
    await made.permit(operate=("U0ANN",))

    async def act(_: Session) -> Answer:
        raise ZeroDivisionError("<!here>")

    found = await Desk(made.parts, made.login).act(request(Who(id="U0ANN")), act)
    assert found is not None
    assert "unexpected ZeroDivisionError: &lt;!here&gt;; the trace is in" in spoken({"blocks": found.whole})
    (done,) = await made.asked("done")
    assert not done.data.ok


async def test_a_hard_freeze_has_a_login_of_its_own(made: Office) -> None:
    """Acts use the login of acts, a hard freeze the one that may write its flag, and a thaw without it says who can."""
    await made.permit(hard=(made.ann.user,))
    await made.rig.bucket(flags.BUCKET).put("kill_switch_hard", flags.frozen(reason="leak", by="bob"))
    said = spoken(await made.says(made.ann, "thaw all good"))
    assert (
        "got: a hard one (leak, by bob), which this login cannot clear; a person can: systems thaw --hard --reason TEXT"
        in said
    )
    assert "expected the typed word of a hard thaw, --confirm thaw, got: none" in spoken(
        await made.says(made.ann, "thaw hard all good")
    )
    assert made.logins == [DESK, HARD]
    await made.ann.slash("thaw hard all good --confirm thaw", made.channel)
    await made.answered(made.ann)
    assert made.logins == [DESK, HARD, HARD]
    switch = await flags.kill_switch(made.rig.bucket(flags.BUCKET), flags.REAL, made.rig.bus.gate.switch)
    assert (switch.mode, switch.by) == (flags.Mode.CLEAR, f"slack:{made.ann.user} (ann)")


def test_every_command_has_a_deed() -> None:
    """What can be typed can be done: each command of the list is looked up in one of the two tables."""
    from services.slack.desk.handlers import _ACTS, _LOOKS  # noqa: PLC0415 (the tables are its own)

    assert _LOOKS.keys() | _ACTS.keys() == words.COMMANDS.keys()
    assert not _LOOKS.keys() & _ACTS.keys()
    assert all(words.COMMANDS[name].acts == (name in _ACTS) for name in words.COMMANDS)


async def test_help_is_for_everybody_and_names_every_command(made: Office) -> None:
    """Who may nothing still learns what there is and what it needs."""
    said = spoken(await made.says(made.bob, "help"))
    assert all(f"/systems {name}" in said for name in words.COMMANDS)
    assert "/systems dlq show ID" in spoken(await made.says(made.bob, "help dlq"))
    assert "did you mean 'redrive'" in spoken(await made.says(made.bob, "help redrvie"))

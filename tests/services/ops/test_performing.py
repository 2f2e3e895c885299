"""Actions on a real server: each step an event before its consequence, and never two at once of what excludes itself."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from bus import errors
from bus.events.decision import Recorded
from services import decisions
from services.ops.operation import No, Status
from services.ops.performing import ActionFailed, ActionRefused, operations, perform
from tests.services.rig import Rig


class Work:
    """An action of the test."""

    name = "work"
    target = "it"
    limit_s = 60.0

    def __init__(
        self, *, lock: str = "", policy: str = "", no: No | None = None, error: Exception | None = None
    ) -> None:
        self.lock, self.policy = lock, policy
        self._no, self._error = no, error
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()

    async def check(self) -> No | None:
        """As the test says."""
        return self._no

    async def carry_out(self, id_: str) -> dict[str, Any]:
        """Wait for the test, then end as it says."""
        self.begun.set()
        await self.go_on.wait()
        if self._error is not None:
            raise self._error
        return {"id": id_}


def events(rig: Rig) -> list[tuple[str, str]]:
    """Id and name of each event of actions, in order."""
    subjects = [r.subject.split(".") for r in rig.control.records if r.subject.startswith("ctl.ops.")]
    return [(tokens[2], tokens[3]) for tokens in subjects]


async def test_action_is_asked_for_begun_and_done(rig: Rig) -> None:
    """Who, why, and evidence are on the record, each step before its consequence."""
    work = Work()
    task = asyncio.create_task(perform(rig.bus, work, who="ann", why="a test"))
    await work.begun.wait()
    (running,) = (await operations(rig.bus)).values()
    assert running.status is Status.RUNNING
    work.go_on.set()
    done = await task
    assert (done.status, done.who, done.why) == (Status.DONE, "ann", "a test")
    assert done.evidence is not None
    assert msgspec.json.decode(done.evidence) == {"id": done.id}
    await rig.control.until(lambda: len(events(rig)) == 3)
    assert events(rig) == [(done.id, "requested"), (done.id, "started"), (done.id, "finished")]


async def test_action_that_needs_a_thing_alone_begins_once(rig: Rig) -> None:
    """Of five that ask at once for the same lock one begins; the others are refused and name it."""
    works = [Work(lock="daemon warden") for _ in range(5)]
    tasks = [asyncio.create_task(perform(rig.bus, work, who="ann", why="")) for work in works]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    while len(done) < 4:
        more, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_EXCEPTION)
        done |= more
    for task in done:
        with pytest.raises(
            ActionRefused, match="expected nobody else at work on daemon warden, got: the work of it by ann"
        ):
            task.result()
    assert sum(work.begun.is_set() for work in works) == 1
    for work in works:
        work.go_on.set()
    (last,) = pending
    assert (await last).status is Status.DONE


async def test_action_that_fails_says_what_was_seen(rig: Rig) -> None:
    """A failure half-way is on the record with its error and its evidence, and goes on to whoever asked."""
    work = Work(error=ActionFailed("it broke", {"pid": 7}))
    work.go_on.set()
    with pytest.raises(ActionFailed, match="it broke"):
        await perform(rig.bus, work, who="ann", why="")
    (failed,) = (await operations(rig.bus)).values()
    assert failed.status is Status.FAILED
    assert failed.evidence is not None
    assert msgspec.json.decode(failed.evidence) == {"pid": 7, "error": "it broke"}


async def test_action_of_policy_rests_on_a_decision(rig: Rig) -> None:
    """Without a decision it is refused and nothing begins; with one that stands it is done, and carries its number."""
    work = Work(policy="loop.depth")
    work.go_on.set()
    for number in (0, 4):
        with pytest.raises(ActionRefused, match="decision"):
            await perform(rig.bus, work, who="ann", why="", decision=number)
    assert not work.begun.is_set()
    await decisions.record(rig.bus, Recorded(number=0, title="deeper", by="ann"))
    assert (await perform(rig.bus, work, who="ann", why="", decision=1)).decision == 1
    statuses = [one.status for one in (await operations(rig.bus)).values()]
    assert statuses == [Status.REFUSED, Status.REFUSED, Status.DONE]


async def test_action_whose_check_fails_is_refused_on_the_record(rig: Rig) -> None:
    """A no with its command, and an error of the check itself, both end as refused."""
    with pytest.raises(ActionRefused, match="not now; run: systems thaw"):
        await perform(rig.bus, Work(no=No("not now", "systems thaw")), who="ann", why="")

    class Broken(Work):
        async def check(self) -> No | None:
            raise errors.Conflict("cannot tell")

    with pytest.raises(errors.Conflict, match="cannot tell"):
        await perform(rig.bus, Broken(), who="ann", why="")
    found = list((await operations(rig.bus)).values())
    assert [(one.status, one.reason) for one in found] == [
        (Status.REFUSED, "not now"),
        (Status.REFUSED, "cannot tell"),
    ]

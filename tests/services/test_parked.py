"""Asking runners what they hold without a claim."""

from __future__ import annotations

from services import parked
from tests.services.rig import Rig


async def test_all_runners_are_asked_and_one_that_is_gone_is_not_waited_for_without_end(rig: Rig) -> None:
    """What any of them holds is found; rubbish on the subject changes nothing; an answer that never comes holds nothing."""
    first = await parked.answer(rig.connection, lambda seqs: [seq for seq in seqs if seq < 3])
    second = await parked.answer(rig.connection, lambda seqs: [seq for seq in seqs if seq == 7])
    rig.connection.nc.send(parked.SUBJECT, b"rubbish", reply=rig.connection.nc.new_inbox())
    assert await parked.held(rig.connection, [1, 2, 3, 7, 9], 2) == {1, 2, 7}
    await rig.connection.nc.unsink(second)
    assert await parked.held(rig.connection, [1, 7], 2) == {1}
    await rig.connection.nc.unsink(first)
    assert await parked.held(rig.connection, [1, 7], 0) == set()

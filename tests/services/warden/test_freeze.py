"""What is to be done about a kill switch: the decision alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from bus.flags import KillSwitch, Mode
from services.warden.freeze import RECEIPT_S, SETTLE_S, Record, Seen, Step, decide, late

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
LONG_AGO = NOW - timedelta(hours=1)
FROZEN = KillSwitch(mode=Mode.SOFT, id="r5", since=LONG_AGO)
CLEAR = KillSwitch(id="r6")
RECORDED = Record(id="r5", mode="soft", seq=7, frozen_at=LONG_AGO, stopped=frozenset({"w", "a"}))
THAWING = msgspec.structs.replace(RECORDED, thawing_at=NOW)
ALIVE = {"w": "warden", "a": "agent_runner-1"}


def seen(switch: KillSwitch, record: Record = RECORDED, *, stream_frozen: bool = False, **more: Any) -> Seen:
    """What a look has found."""
    return Seen(switch=switch, stream_frozen=stream_frozen, record=record, alive=ALIVE, **more)


@pytest.mark.parametrize(
    ("found", "step"),
    [
        (seen(FROZEN, Record()), Step.FREEZE),
        (seen(FROZEN, Record(), stream_frozen=True), Step.RECORD),
        (seen(FROZEN, stream_frozen=True), Step.NOTHING),
        (seen(FROZEN), Step.FREEZE),
        (seen(FROZEN, THAWING, stream_frozen=True), Step.RECORD),
        (seen(msgspec.structs.replace(FROZEN, mode=Mode.HARD), stream_frozen=True), Step.CHANGE),
        (seen(msgspec.structs.replace(FROZEN, problem="deleted"), stream_frozen=True), Step.CHANGE),
        (seen(msgspec.structs.replace(FROZEN, until=NOW), stream_frozen=True), Step.CLEAR),
        (seen(FROZEN, msgspec.structs.replace(RECORDED, stopped=frozenset({"w"})), stream_frozen=True), Step.MISS),
        (seen(CLEAR, stream_frozen=True), Step.THAW),
        (seen(CLEAR), Step.THAW),
        (seen(CLEAR, Record()), Step.NOTHING),
        (seen(CLEAR, THAWING, runners=frozenset({"a"})), Step.WAIT),
        (
            seen(CLEAR, msgspec.structs.replace(THAWING, settled=frozenset({"a"})), runners=frozenset({"a"})),
            Step.RELEASE,
        ),
        (seen(CLEAR, msgspec.structs.replace(THAWING, thawed=True)), Step.NOTHING),
    ],
)
def test_every_state_has_its_step(found: Seen, step: Step) -> None:
    """From the flag, the stream and the record follows one step, whoever looks and whatever was before."""
    assert decide(found, NOW) is step


def test_hard_freeze_has_no_end() -> None:
    """An end in a hard freeze is not heeded."""
    hard = msgspec.structs.replace(FROZEN, mode=Mode.HARD, until=NOW)
    assert decide(seen(hard, msgspec.structs.replace(RECORDED, mode="hard"), stream_frozen=True), NOW) is Step.NOTHING


def test_thaw_goes_on_without_a_runner_that_never_settles() -> None:
    """A runner that is alive and gives no receipt holds a thaw up for so long and no longer."""
    found = seen(CLEAR, THAWING, runners=frozenset({"a"}))
    assert decide(found, NOW + timedelta(seconds=SETTLE_S - 1)) is Step.WAIT
    assert decide(found, NOW + timedelta(seconds=SETTLE_S)) is Step.RELEASE


def test_receipts_are_late_after_their_time_only() -> None:
    """Who gave no receipt is late so long after the freeze, or after its own start in it."""
    record = msgspec.structs.replace(RECORDED, stopped=frozenset({"w"}), frozen_at=NOW)
    after = NOW + timedelta(seconds=RECEIPT_S)
    assert late(seen(FROZEN, record), after - timedelta(seconds=1)) == frozenset()
    assert late(seen(FROZEN, record), after) == {"agent_runner-1"}
    assert late(seen(FROZEN, record, since={"a": NOW + timedelta(seconds=5)}), after) == frozenset()


def test_who_fell_silent_owes_a_receipt_as_well() -> None:
    """A daemon without a heartbeat that nobody saw end is missed like a live one, unless it answered before."""
    record = msgspec.structs.replace(RECORDED, stopped=frozenset({"w", "a", "z1"}))
    found = seen(FROZEN, record, stream_frozen=True, silent={"z1": "agent_runner-2", "z2": "agent_runner-3"})
    assert late(found, NOW) == {"agent_runner-3"}
    assert decide(found, NOW) is Step.MISS


def test_a_miss_is_told_once() -> None:
    """Who was reported as missing is not reported again."""
    record = msgspec.structs.replace(RECORDED, stopped=frozenset({"w"}), missing=frozenset({"agent_runner-1"}))
    assert decide(seen(FROZEN, record, stream_frozen=True), NOW) is Step.NOTHING

"""When work counts as lost: only while runners wait for it and get none."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from bus.events.invocation import ReleaseReason
from bus.invocation import FallDue, Release, Status
from bus.subjects import Ref
from services.warden import stranded
from services.warden.stranded import LOST_AFTER_S, Consumer
from services.warden.work import Open

HUNGRY = Consumer(delivered_seq=10, waiting=1, ack_pending=1, max_ack_pending=1, pending=0)


def item(status: Status = Status.QUEUED, **more: Any) -> Open:
    """Work that was requested with sequence 7."""
    return Open(Ref("p", "r", "i"), status, 7, datetime(2026, 1, 1, tzinfo=UTC), **more)


def test_lost_delivery_is_put_back_while_runners_wait() -> None:
    """What was handed out and not claimed for a while is put back, also when it holds the role's only place."""
    now = 100 + LOST_AFTER_S
    assert stranded.decide(item(handed_at=100), HUNGRY, now) is None
    assert stranded.decide(item(handed_at=100), HUNGRY, now + 0.1) == Release(reason=ReleaseReason.LOST_DELIVERY)
    assert stranded.decide(item(), HUNGRY, now + 0.1) is None


@pytest.mark.parametrize("change", [{"waiting": 0}, {"paused": True}])
def test_lost_delivery_waits_while_nobody_is_hungry(change: dict[str, Any]) -> None:
    """Without waiting runners, or with a paused consumer, nothing is put back; nor without a consumer."""
    consumer = msgspec.structs.replace(HUNGRY, **change)
    assert stranded.decide(item(handed_at=100), consumer, 1000) is None
    assert stranded.decide(item(handed_at=100), None, 1000) is None


def test_work_is_handed_out_when_the_consumer_has_passed_it() -> None:
    """Only queued work at or before the consumer's last delivery is on its way."""
    assert stranded.handed_out(item(), HUNGRY)
    assert not stranded.handed_out(item(), msgspec.structs.replace(HUNGRY, delivered_seq=6))
    assert not stranded.handed_out(item(Status.RUNNING), HUNGRY)
    assert not stranded.handed_out(item(), None)


def test_lost_retry_is_put_back_after_its_time() -> None:
    """A retry that did not come is put back; one without a time is somebody else's."""
    waiting = item(Status.WAITING, due_at=100)
    assert stranded.decide(waiting, HUNGRY, 100 + LOST_AFTER_S) is None
    assert stranded.decide(waiting, HUNGRY, 100.1 + LOST_AFTER_S) == Release(reason=ReleaseReason.LOST_RETRY)
    assert stranded.decide(item(Status.WAITING), HUNGRY, 1000) is None


def test_delayed_request_falls_due_without_any_runner() -> None:
    """A delayed request past its time is requested, whether or not somebody waits for it."""
    scheduled = item(Status.SCHEDULED, due_at=100)
    assert stranded.decide(scheduled, None, 100 + LOST_AFTER_S) is None
    assert stranded.decide(scheduled, None, 100.1 + LOST_AFTER_S) == FallDue()


def test_running_work_is_nobodys_to_put_back() -> None:
    """A claim is the sweep's business."""
    assert stranded.decide(item(Status.RUNNING, holder="a", handed_at=1, due_at=1), HUNGRY, 1e6) is None

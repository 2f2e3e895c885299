"""Cards: one for a seat, handed once, closed by another boot id or by a sign of life, and told as it was."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from bus.events.card import Closed, End, Opened, Reason
from services.cards import evolve, is_urgent
from tests.services.rig import Rig

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CARD = Opened(
    instance="warden",
    host="h",
    reason=Reason.HUNG,
    why="it hangs",
    command="systems restart warden",
    since=NOW,
    pid=7,
    boot_id="b1",
    by="launcher",
)


def test_card_is_told_as_it_was() -> None:
    """A card names process, host and reason; its end adds when and by whom, and an end of nothing is nothing."""
    opened = evolve(None, "warden_h", CARD, 5, NOW)
    assert opened is not None
    assert opened.sentence == "warden on h (pid 7): it hangs"
    assert is_urgent(opened)
    ended = evolve(opened, "warden_h", Closed(reason=End.BACK, boot_id="b2"), 6, NOW)
    assert ended is not None
    assert (ended.closed_at, ended.end, ended.closed_by) == (NOW, "back", "b2")
    assert evolve(None, "warden_h", Closed(reason=End.BACK), 6, NOW) is None


async def test_card_is_handed_once_and_closed_by_another_boot(rig: Rig) -> None:
    """The same card twice is one; its own boot id does not close it, another one does, and history keeps both."""
    cards = rig.bus.cards
    assert await cards.hand("warden_h", CARD)
    assert not await cards.hand("warden_h", CARD)
    assert [card.sentence for card in await cards.waiting()] == ["warden on h (pid 7): it hangs"]
    assert not await cards.close("warden_h", End.BACK, "b1")
    assert not await cards.close("warden_h", End.HEARD, "b1", only=Reason.DEAF)
    assert await cards.close("warden_h", End.BACK, "b2")
    assert not await cards.close("warden_h", End.BACK, "b3")
    assert await cards.waiting() == ()
    assert await cards.hand("warden_h", msgspec.structs.replace(CARD, boot_id="b2", reason=Reason.GAVE_UP))
    assert [(card.reason, card.end, card.closed_by) for card in await cards.all()] == [
        (Reason.HUNG, "back", "b2"),
        (Reason.GAVE_UP, "", ""),
    ]


async def test_daemon_that_announces_itself_closes_the_card_of_its_seat(rig: Rig) -> None:
    """Whoever takes the seat under a new boot id closes the card; cards of other seats stay."""
    running, _ = await rig.runner()
    seat = running.seat
    await rig.end(running)
    await rig.bus.cards.hand(seat, CARD)
    await rig.bus.cards.hand("warden_h", CARD)
    again, _ = await rig.runner()
    assert again.boot_id != running.boot_id
    assert [card.seat for card in await rig.bus.cards.waiting()] == ["warden_h"]
    closed = await rig.control.subject(lambda r: isinstance(r.data, Closed))
    assert (closed.subject, closed.data.boot_id) == (f"ctl.card.{seat}.closed", again.boot_id)

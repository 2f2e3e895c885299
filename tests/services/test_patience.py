"""What is done however long the bus does not take it."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from bus import errors
from services.patience import insist


class Bus:
    """Takes something at the third try, and never what makes no sense."""

    def __init__(self) -> None:
        self.tries = 0

    async def take(self, what: str) -> str:
        """One try."""
        if what != "sense":
            raise ValueError(what)
        self.tries += 1
        if self.tries < 3:
            raise errors.Unanswered("a try", 1)
        return f"taken at try {self.tries}"


async def test_what_is_insisted_on_is_done_once_the_bus_takes_it() -> None:
    """Each try that the bus did not take is told with its facts and made again; what came of the last one comes back."""
    bus = Bus()
    with capture_logs() as told:
        assert await insist(lambda: bus.take("sense"), "bus_waits", again_s=0, root="r1") == "taken at try 3"
    assert [(one["event"], one["root"], one["log_level"]) for one in told] == [("bus_waits", "r1", "warning")] * 2
    assert "expected an answer to a try" in told[0]["error"]


async def test_what_makes_no_sense_is_not_insisted_on() -> None:
    """An error that is not the bus's ends it at once."""
    with pytest.raises(ValueError, match="nonsense"):
        await insist(lambda: Bus().take("nonsense"), "bus_waits", again_s=0)

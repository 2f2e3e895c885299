"""How long retries wait: within bounds, whatever the settings."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.fleet.spec import Backoff
from services.runner.backoff import delay

_settings = st.builds(
    Backoff,
    base=st.floats(0.001, 100),
    factor=st.floats(1, 10),
    cap=st.floats(100, 10_000),
    jitter=st.floats(0, 1),
)
_chances = st.floats(0, 1, exclude_max=True)


@given(_settings, st.integers(1, 10_000), _chances)
def test_backoff_stays_in_its_bounds(settings: Backoff, failures: int, chance: float) -> None:
    """A wait is never negative and never above the cap; without jitter it is the full exponential."""
    full = min(settings.cap, settings.base * settings.factor ** min(failures - 1, 64))
    found = delay(settings, failures, chance)
    assert full * (1 - settings.jitter) - 1e-9 <= found <= full <= settings.cap


@given(_settings, st.integers(1, 100), _chances)
def test_backoff_grows(settings: Backoff, failures: int, chance: float) -> None:
    """With the same luck a later retry never waits less."""
    assert delay(settings, failures, chance) <= delay(settings, failures + 1, chance)

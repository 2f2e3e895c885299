"""A fleet of processes that is brought down by its own pids after each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.chaos.fleet import Fleet


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    """A fleet that does not run yet. After the test nothing of it may be left."""
    made = Fleet(tmp_path)
    yield made
    await made.down()

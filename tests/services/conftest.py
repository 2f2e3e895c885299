"""A fleet inside the test's own process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bus.server import EmbeddedServer
from tests.services.rig import Rig, open_rig


@pytest.fixture
async def rig(server: EmbeddedServer, tmp_path: Path) -> AsyncIterator[Rig]:
    """A bus with its streams; the test starts whom it needs."""
    async with open_rig(server, tmp_path) as opened:
        yield opened

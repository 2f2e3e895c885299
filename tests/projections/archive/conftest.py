"""A log, its tables and its archive."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bus.server import EmbeddedServer
from tests.projections.archive.rig import Rig, open_rig


@pytest.fixture
async def rig(server: EmbeddedServer, tmp_path: Path) -> AsyncIterator[Rig]:
    """Everything but an archiver, which the test makes as it needs it."""
    async with open_rig(server.url, tmp_path / "home") as opened:
        yield opened

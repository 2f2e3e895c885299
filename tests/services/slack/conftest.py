"""A workspace, and a bus beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.services.rig import Rig
from tests.services.slack.stand import Stand
from tests.slack.fake import FakeSlack, fake_slack


@pytest.fixture
async def slack() -> AsyncIterator[FakeSlack]:
    """A workspace."""
    async with fake_slack() as running:
        yield running


@pytest.fixture
async def stand(rig: Rig, slack: FakeSlack) -> Stand:
    """A bus and a workspace, and no mirror yet."""
    return Stand(rig, slack)

"""A launcher under a service manager, which the test plays on a real socket: ready, watched, and ended when it stands still."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.chaos.deafen import deafened
from tests.chaos.fleet import Fleet
from tests.chaos.story import LIMIT_S

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

FLEET = """
[projects.shop.roles.coder]
handler = { kind = "function", target = "handlers:work" }
"""
HANDLERS = """
import os

def work(input):
    return [name for name in os.environ if name.startswith(("NOTIFY", "WATCHDOG"))]
"""


class Manager:
    """systemd's side: hears everything, in order, and at once: a socket holds no more than some messages."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)
        self._heard: asyncio.Queue[str] = asyncio.Queue()
        asyncio.get_running_loop().add_reader(self._socket, self._hear)

    def _hear(self) -> None:
        self._heard.put_nowait(self._socket.recv(4096).decode())

    async def until(self, condition: Callable[[str], object], *, limit_s: float = LIMIT_S) -> list[str]:
        """What was heard up to and with the first message that fulfils a condition."""
        heard: list[str] = []
        async with asyncio.timeout(limit_s):
            while not heard or not condition(heard[-1]):
                heard.append(await self._heard.get())
        return heard

    def close(self) -> None:
        """Hear nothing more."""
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()


def stands(text: str) -> int:
    """Seconds for which the launcher says that its loop has not turned; 0 where it says nothing of the kind."""
    found = re.match(r"STATUS=the launcher's event loop has not turned for (\d+)", text)
    return int(found[1]) if found else 0


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[Manager]:
    """A service manager that listens."""
    made = Manager(tmp_path / "notify")
    yield made
    made.close()


@pytest.mark.soak
async def test_service_manager_hears_of_a_launcher_that_stands_still(
    fleet: Fleet, manager: Manager, tmp_path: Path
) -> None:
    """It hears how the fleet stands and that it is ready, and is fed until the loop stands still; ended and started again, all is there."""
    fleet.write(FLEET, HANDLERS)
    fleet.more = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "3000000"}
    await fleet.up()
    assert fleet.launcher is not None
    heard = await manager.until(lambda text: text == "READY=1")
    assert any("STATUS=starting" in text for text in heard)
    await manager.until(lambda text: text == "WATCHDOG=1\nSTATUS=ready: 4 of 4 children run")
    pid = fleet.launcher.pid
    with ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(deafened(pid))
            with suppress(TimeoutError):
                await manager.until(stands, limit_s=5)
                break
            # It was stopped with the interpreter in its hand, and nobody can speak: that is another fault.
            stack.close()
        else:
            raise AssertionError(f"pid {pid} says nothing whenever its main thread stands")
        heard = await manager.until(lambda text: stands(text) >= 4)
        assert not any("WATCHDOG" in text for text in heard), heard
        # What systemd does after WatchdogSec; everything below ends with it.
        os.kill(pid, signal.SIGABRT)
    assert fleet.launcher.wait() == -signal.SIGABRT
    await fleet.up()
    await manager.until(lambda text: text == "READY=1")
    # None of it reaches the daemons, nor what they run.
    asked = await fleet.systems("invoke", "shop/coder", "--wait", "--output", "json")
    assert asked.json()["output"] == []
    assert (await fleet.systems("down", limit_s=60)).status == 0
    await manager.until(lambda text: text == "STOPPING=1")

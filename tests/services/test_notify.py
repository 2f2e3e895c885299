"""What the service manager hears, on a real datagram socket: readiness, a sentence, and a watchdog that only evidence feeds."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from services import notify


class Manager:
    """The service manager's end of the socket."""

    def __init__(self, path: Path, *, abstract: bool = False) -> None:
        self.address = f"@{path}" if abstract else str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + str(path) if abstract else str(path))
        self._socket.setblocking(False)

    async def next(self) -> dict[str, str]:
        """The next message."""
        async with asyncio.timeout(30):
            text = (await asyncio.get_running_loop().sock_recv(self._socket, 4096)).decode()
        return dict(line.split("=", 1) for line in text.splitlines())

    def waiting(self) -> list[str]:
        """What lies in the socket."""
        found = []
        while True:
            try:
                found.append(self._socket.recv(4096).decode())
            except BlockingIOError:
                return found

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    """A service manager that listens."""
    made = Manager(tmp_path / "notify")
    yield made
    made.close()


def notifier(environ: dict[str, str], status: str = "ready") -> notify.Notifier:
    """The notifier of an environment."""
    made = notify.of(environ, lambda: status)
    assert made is not None
    return made


async def test_manager_hears_of_ready_status_watchdog_and_end(manager: Manager) -> None:
    """The sentence is told once, the watchdog at least three times in its time, ready and stopping when they are said."""
    environ = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "300000", "WATCHDOG_PID": str(os.getpid())}
    async with notifier(environ, "starting:\n1 of 4") as told:
        assert await manager.next() == {"WATCHDOG": "1", "STATUS": "starting: 1 of 4"}
        assert await manager.next() == {"WATCHDOG": "1"}
        told.ready()
        told.stopping()
        seen = [await manager.next() for _ in range(4)]
        assert {"READY": "1"} in seen
        assert {"STOPPING": "1"} in seen
        assert {"WATCHDOG": "1"} in seen
    manager.waiting()
    assert manager.waiting() == []


async def test_loop_that_stands_still_feeds_no_watchdog(manager: Manager) -> None:
    """While the loop blocks the thread goes on, sends no watchdog message, and says for how long it has stood."""
    async with notifier({"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "600000"}):
        assert "WATCHDOG" in await manager.next()
        await manager.next()
        manager.waiting()
        time.sleep(1.2)  # noqa: ASYNC251 (that is the fault)
        stood = manager.waiting()
        assert stood
        # One that it had asked for before may have been on its way.
        assert all(said.startswith("STATUS=the launcher's event loop has not turned for") for said in stood[1:]), stood
        assert any(said.startswith("STATUS=the launcher's event loop has not turned for") for said in stood)
        again = await manager.next()
        while "WATCHDOG" not in again:
            again = await manager.next()


async def test_manager_without_watchdog_gets_none(manager: Manager) -> None:
    """Without a time, or with one that is meant for another process, there is a status and no watchdog message."""
    for more in ({}, {"WATCHDOG_USEC": "300000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "soon"}):
        async with notifier({"NOTIFY_SOCKET": manager.address} | more):
            assert await manager.next() == {"STATUS": "ready"}


async def test_abstract_socket_is_heard_and_a_missing_one_hurts_nobody(tmp_path: Path) -> None:
    """An address with @ is an abstract socket; one where nobody listens is logged, and the launcher goes on."""
    manager = Manager(tmp_path / "abstract", abstract=True)
    async with notifier({"NOTIFY_SOCKET": manager.address}):
        assert await manager.next() == {"STATUS": "ready"}
    manager.close()
    async with notifier({"NOTIFY_SOCKET": str(tmp_path / "nobody")}) as told:
        told.ready()


async def test_nobody_listens() -> None:
    """Without an address, or with one that is no socket's, there is no notifier."""
    assert notify.of({}, str) is None
    assert notify.of({"NOTIFY_SOCKET": "vsock:2:1"}, str) is None

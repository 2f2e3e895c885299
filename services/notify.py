"""What the launcher tells the service manager: the protocol of ``sd_notify(3)``, for units of ``Type=notify`` with a watchdog.

``READY=1`` when everything has been started once, ``STATUS=`` with a sentence for ``systemctl status``, ``STOPPING=1`` at the end.
``WATCHDOG=1`` is sent from evidence and not by a timer: a thread has the event loop say how the fleet stands, and only an answer is
passed on. A loop that stands still gives none, and the service manager ends and restarts the launcher. The state of a child is
no reason to withhold it: children are the launcher's own to restart, and a restart of all of them helps none.

Nothing is sent where no service manager listens. One that does not take a message (its socket is gone or full) is logged.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Self

import structlog

log = structlog.get_logger()

#: What tells a process that somebody listens; no child of ours may believe that it is meant.
VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
#: Seconds between two looks where no watchdog asks for more: how old a status may be.
_LOOK_S = 5.0
#: Bytes of a status; it is one line of `systemctl status`.
_STATUS_LIMIT = 500


class Notifier:
    """Tells one service manager; use as ``async with``, on the loop that it gives evidence of."""

    def __init__(self, address: str, watchdog_s: float, status: Callable[[], str]) -> None:
        """Make it.

        Args:
            address: path of the socket, with ``@`` in front for an abstract one.
            watchdog_s: seconds after which the service manager acts on silence; 0 if it does not.
            status: called on the loop: how everything stands, in one sentence.
        """
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._watchdog_s = watchdog_s
        #: A third: two may be lost.
        self._every_s = min(watchdog_s / 3, _LOOK_S) if watchdog_s else _LOOK_S
        self._status = status
        self._told = ""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._rounds, name="notify", daemon=True)
        self._loop = asyncio.get_running_loop()

    async def __aenter__(self) -> Self:
        """Begin to say how things stand; whether they are ready is said by :meth:`ready`."""
        self._thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._over.set()
        await asyncio.to_thread(self._thread.join)

    def ready(self) -> None:
        """Everything has been started once."""
        self._send("READY=1")

    def stopping(self) -> None:
        """The end has begun."""
        self._send("STOPPING=1")

    # ---- in the thread

    def _rounds(self) -> None:
        asked: _Question | None = None
        answered_at = time.monotonic()
        while not self._over.is_set():
            asked = asked or self._ask()
            if asked.answered.wait(self._every_s):
                answered_at = time.monotonic()
                self._say(asked.answer, alive=True)
                asked = None
                self._over.wait(self._every_s)
            elif not self._over.is_set():
                stuck_s = time.monotonic() - answered_at
                self._say(f"the launcher's event loop has not turned for {stuck_s:.0f} s", alive=False)

    def _ask(self) -> _Question:
        question = _Question()

        def answer() -> None:
            question.answer = self._status()
            question.answered.set()

        self._loop.call_soon_threadsafe(answer)
        return question

    def _say(self, status: str, *, alive: bool) -> None:
        status = " ".join(status.split())[:_STATUS_LIMIT]
        lines = ["WATCHDOG=1"] if alive and self._watchdog_s else []
        if status != self._told:
            lines.append(f"STATUS={status}")
        if lines and self._send("\n".join(lines)):
            self._told = status

    def _send(self, text: str) -> bool:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(1.0)
                sender.sendto(text.encode(), self._address)
        except OSError as exc:
            log.warning("service_manager_untold", told=text, address=self._address, error=str(exc))
            return False
        return True


class _Question:
    """How do things stand? Asked of the loop by the thread."""

    def __init__(self) -> None:
        self.answer = ""
        self.answered = threading.Event()


def of(environ: Mapping[str, str], status: Callable[[], str]) -> Notifier | None:
    """The notifier that the environment asks for; None where nobody listens. Must be called on the loop."""
    address = environ.get("NOTIFY_SOCKET", "")
    if not address:
        return None
    if address[0] not in "/@":
        log.warning("service_manager_unknown", address=address, expected="a path, or an abstract socket with @")
        return None
    mine = environ.get("WATCHDOG_PID", "") in {"", str(os.getpid())}
    micros = environ.get("WATCHDOG_USEC", "") if mine else ""
    if micros and not micros.isdecimal():
        log.warning("watchdog_time_unreadable", got=micros, expected="microseconds in WATCHDOG_USEC")
        micros = ""
    return Notifier(address, int(micros or 0) / 1e6, status)

"""Killing a daemon that hangs: what was seen of it is in the request, what became of it in the end. The launcher alone does it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from services.ops.operation import No
from services.ops.performing import ActionFailed

#: Seconds that a killed process and what it started may take to be gone.
_GONE_S = 20.0


class KillDaemon:
    """One process that hangs, ended; what supervises it starts another."""

    name = "kill"
    policy = ""
    limit_s = _GONE_S + 10

    def __init__(
        self, daemon: str, pid: int, saw: dict[str, Any], kill: Callable[[], bool], gone: Callable[[], Awaitable[int]]
    ) -> None:
        """Make it.

        Args:
            daemon: its instance name.
            pid: the process.
            saw: what was seen of it.
            kill: ends it; False if it is not that process any more.
            gone: waits until it is gone: its exit status.
        """
        self.target = daemon
        self._pid = pid
        self._saw = saw
        self._kill = kill
        self._gone = gone

    @property
    def lock(self) -> str:
        """Not while somebody restarts it."""
        return f"daemon {self.target}"

    async def check(self) -> No | None:
        """Nothing more: whoever asks has made sure."""
        return None

    async def carry_out(self, _id: str) -> dict[str, Any]:
        """Kill it, and see it gone."""
        evidence = {"pid": self._pid, "saw": self._saw}
        if not self._kill():
            raise ActionFailed(
                f"expected {self.target} to be pid {self._pid} still, got: it has ended meanwhile", evidence
            )
        try:
            async with asyncio.timeout(_GONE_S):
                evidence["status"] = await self._gone()
        except TimeoutError as exc:
            raise ActionFailed(
                f"expected pid {self._pid} to be gone within {_GONE_S:g} s of SIGKILL, got: it is still there; "
                "it may wait for a disk that does not answer",
                evidence,
            ) from exc
        return evidence

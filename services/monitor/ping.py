"""The outside dead man's switch, healthchecks-style: start, success or fail at every sweep.

It notices what nobody inside can: that all of this is gone. A call that fails is a finding of the next look and never an
exception; it is not repeated, because the next sweep calls again.
"""

from __future__ import annotations

from collections.abc import Callable

import httpx
import structlog

from bus.events.sweep import Verdict

log = structlog.get_logger()

#: Seconds that a call may take.
TIMEOUT_S = 3.0


class Pinger:
    """Calls ``[monitor] ping_url``."""

    def __init__(self, url: Callable[[], str]) -> None:
        self._url = url
        #: Why the last call failed; empty for nothing.
        self.problem = ""

    async def start(self) -> None:
        """A sweep begins."""
        await self._call("/start")

    async def finish(self, verdict: Verdict, said: str) -> None:
        """A sweep is over: `fail` for ultra, with `said` for people to read there."""
        await self._call("/fail" if verdict is Verdict.ULTRA else "", said)

    async def _call(self, end: str, said: str = "") -> None:
        url = self._url()
        if not url:
            self.problem = ""
            return
        try:
            async with httpx.AsyncClient(timeout=TIMEOUT_S) as client:
                answer = await client.post(url.rstrip("/") + end, content=said.encode())
            answer.raise_for_status()
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            self.problem = f"{end or '(success)'}: {str(exc) or type(exc).__name__}"
            log.warning("ping_failed", end=end, error=self.problem)
        else:
            self.problem = ""

"""The quota breaker: a role works until its tiny cap is reached."""

from __future__ import annotations

import asyncio

from services.drill.drill import Fired, NotProven
from services.drill.sandbox import LOOK_S, Sandbox
from services.fleet.spec import Cap, Role, TraceHandler, Window

#: Tokens: one piece of work fits under the cap, two do not.
_CAP, _EACH = 100, 60


def _role(cap: int) -> Role:
    # What it replays costs nothing, whatever prices and money caps the fleet has.
    return Role(handler=TraceHandler(speed=1000), caps=(Cap(cap=cap, window=Window.DAY),), max_usd=0)


class Quota:
    """A claim that does not fit trips the breaker, the server pauses the role, and a higher cap lets it go on."""

    name = "quota"
    guard = "quota breaker"
    expected = f"a role with a cap of {_CAP} tokens to be paused by its second piece of work of {_EACH}"
    works = True

    async def run(self, sandbox: Sandbox) -> Fired:
        """Fill a real counter, and time the trip from the request that does not fit."""
        work = {"input_tokens": _EACH - 10, "output_tokens": 10}
        path = await sandbox.role("quota", _role(_CAP))
        scope = path.replace("/", "_")
        name = path.partition("/")[2]
        async with await sandbox.runner():
            first = await sandbox.ask(path, work)
            await sandbox.work.event("completed", id_=first)
            loop = asyncio.get_running_loop()
            asked_at = loop.time()
            second = await sandbox.ask(path, work)
            tripped = await sandbox.guards.event("tripped", id_=scope)
            took_s = loop.time() - asked_at
            while not ((await sandbox.consumer(name)) or {}).get("paused"):
                await asyncio.sleep(LOOK_S)
            paused_s = loop.time() - asked_at
            if sandbox.work.all("claimed", id_=second):
                raise NotProven("no claim of what does not fit", f"a claim of {second}")
            await sandbox.role("quota", _role(10 * _CAP))
            await sandbox.work.event("completed", id_=second)
        failed = sandbox.work.all("failed")
        trips = sandbox.guards.all("tripped", id_=scope)
        if failed or len(trips) != 1:
            raise NotProven("one trip, and nothing failed", f"{len(trips)} trips, {len(failed)} failures")
        return Fired(
            took_s=took_s,
            evidence=(
                f"{tripped.data.used} of {tripped.data.cap} tokens used, {tripped.data.needed} more asked for: tripped",
                f"its consumer was paused on the server after {paused_s:.3f} s, nothing was claimed",
                "with a higher cap the work was completed, and no attempt was lost",
            ),
        )

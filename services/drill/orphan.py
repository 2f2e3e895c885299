"""The stuck-claim sweep: a real runner process is killed with -9 while it holds a claim."""

from __future__ import annotations

import asyncio
import os
import signal

from services.drill.drill import Fired, NotProven
from services.drill.faults import FREE
from services.drill.sandbox import Sandbox
from services.fleet.spec import FunctionHandler, Role


class Orphan:
    """The claim of a dead holder is taken from it, and the work waits for somebody else."""

    name = "orphan"
    guard = "stuck-claim sweep"
    expected = "the claim of a killed runner to be swept"
    works = True

    async def run(self, sandbox: Sandbox) -> Fired:
        """Kill the holder, and time the sweep from the kill."""
        path = await sandbox.role("orphan", Role(handler=FunctionHandler(target="services.drill.faults:hold"), **FREE))
        async with await sandbox.runner() as runner:
            id_ = await sandbox.ask(path)
            claimed = await sandbox.work.event("claimed", id_=id_)
            loop = asyncio.get_running_loop()
            killed_at = loop.time()
            os.kill(runner.child_pid, signal.SIGKILL)
            await runner.exited()
            await sandbox.buried_runner()
            swept = await sandbox.work.event("swept", id_=id_)
            took_s = loop.time() - killed_at
        async with await sandbox.runner() as heir:
            again = await sandbox.work.event("claimed", id_=id_, count=2)
            heir_pid = heir.child_pid
        if swept.data.holder != claimed.data.holder:
            raise NotProven(f"the claim of {claimed.data.holder} to be swept", f"that of {swept.data.holder}")
        return Fired(
            took_s=took_s,
            evidence=(
                f"pid {runner.child_pid} ({claimed.data.holder}) killed with -9 while it held {id_}",
                f"swept at sequence {swept.seq}: {swept.data.reason.value}",
                f"claimed again by pid {heir_pid} ({again.data.holder}), attempt {again.data.delivery}",
            ),
        )

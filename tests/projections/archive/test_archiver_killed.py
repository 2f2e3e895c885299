"""An archiver that is killed between any two steps."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import pytest

from bus.events import archive as ev
from bus.store import CONTROL, INVOCATIONS
from projections.archive import manifest, segment
from projections.archive import store as stores
from projections.archive.store import Access
from tests.projections.archive.rig import Rig, open_database


async def run_until_done(rig: Rig, copies: str, seen: list[str]) -> None:
    """Run archivers one after the other, each killed at the first step that none was killed at, until one ends by itself."""
    await rig.database.end()
    try:
        while True:
            child = await asyncio.create_subprocess_exec(
                sys.executable,
                str(Path(__file__).with_name("killed.py")),
                rig.url,
                str(rig.home),
                copies,
                *seen,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env={"PYTHONPATH": str(Path(__file__).parents[3])},
            )
            out, err = await child.communicate()
            if child.returncode == 0:
                assert out.decode().splitlines()[-1] == "done "
                return
            assert child.returncode == -signal.SIGKILL, err.decode()
            seen.append(out.decode().splitlines()[-1])
    finally:
        rig.database = await open_database(rig.home)


@pytest.mark.soak
@pytest.mark.slow
@pytest.mark.chaos
async def test_kill_at_every_step_leaves_history_whole(rig: Rig, tmp_path: Path) -> None:
    """Killed once at each step of writing, registering, copying and trimming, the archiver ends with every message in one place, once."""
    copies, seen = f"file://{tmp_path}/copies", list[str]()
    await rig.work(4)
    await rig.feed(INVOCATIONS)
    wanted = await rig.sql("SELECT * FROM events ORDER BY seq")
    await run_until_done(rig, copies, seen)
    assert await rig.sql("SELECT * FROM events ORDER BY seq") == wanted
    # The end of a trim that was told by the next process comes with the next trim.
    await rig.work(2)
    await rig.feed(INVOCATIONS)
    wanted = await rig.sql("SELECT * FROM events ORDER BY seq")
    await run_until_done(rig, copies, seen)
    assert seen == [
        *("write", "read_back", "name", "sidecar", "register", "registered"),
        *("copy", "copied", "intend", "purge", "tell", "forget"),
    ]
    assert await rig.sql("SELECT * FROM events ORDER BY seq") == wanted
    inventory = manifest.scan(rig.root)
    assert (manifest.faults(inventory.segments), inventory.leftovers, inventory.faults) == ([], [], [])
    target = stores.open_store(Access(url=copies))
    for one in inventory.segments:
        assert segment.check(rig.root, one) is None
        assert stores.prove(target, one) is None
    assert await rig.first() == await rig.last()
    trims = [r.data async for r in rig.bus.store.read(CONTROL, "ctl.archive.INVOCATIONS.trimmed")]
    assert [(t.first, t.last) for t in trims if isinstance(t, ev.Trimmed)] == [(1, 11), (12, 17)]

"""An archiver that ends itself with SIGKILL at the first step that is not named: ``python killed.py URL HOME COPIES STEP…``."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bus.author import Author
from bus.context import Context
from projections.archive.store import Access
from services.daemon import open_bus
from tests.projections.archive.rig import Clock, archiver, open_database


async def main(url: str, home: Path, copies: str, passed: set[str]) -> None:
    """Look once, at the whole of it."""

    def step(name: str) -> None:
        if name not in passed:
            sys.stdout.write(f"{name}\n")
            sys.stdout.flush()
            os.kill(os.getpid(), signal.SIGKILL)

    clock = Clock()
    clock.moment = datetime.now(UTC) + timedelta(hours=1)
    bus = await open_bus(Context(url=url), "killed", Author("/test/killed", clock=clock))
    database = await open_database(home)
    one = archiver(bus, database, home, rows=6, access=Access(url=copies), step=step)
    await one.look(at_once=True)
    sys.stdout.write(f"done {one.problem}\n")
    await database.end()
    await bus.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], set(sys.argv[4:])))

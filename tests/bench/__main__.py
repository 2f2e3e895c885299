"""``python -m tests.bench``: measure side by side, print a table, keep the numbers as JSON.

A benchmark and no test: it never fails because of a number, and prints an unmet target as such.
"""

from __future__ import annotations

import argparse
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import uvloop

from services import logs
from tests.bench import (
    enqueue,
    freeze,
    history,
    idle,
    invocations,
    latency,
    machine,
    memory,
    monitor,
    past,
    projection,
    reload,
    reservation,
    slack,
    slash,
    status,
    subjects,
)
from tests.bench.report import Report, Row, markdown, show
from tests.bench.rig import rig
from tests.bench.scale import DEFAULT, QUICK, Scale

MEASUREMENTS = {
    "invocations": invocations.measure,
    "enqueue": enqueue.measure,
    "latency": latency.measure,
    "memory": memory.measure,
    "subjects": subjects.measure,
    "reservation": reservation.measure,
    "freeze": freeze.measure,
    "monitor": monitor.measure,
    "reload": reload.measure,
    "idle": idle.measure,
    "status": status.measure,
    "slash": slash.measure,
    "projection": projection.measure,
    "slack": slack.measure,
}
#: Measured only when they are named: they take many minutes.
OPTIONAL = {"history": history.measure, "past": past.measure}


async def run(names: list[str], scale: Scale) -> Report:
    """Measure one after the other, each on a fresh server."""
    at, begun = datetime.now(UTC), time.monotonic()
    rows: list[Row] = []
    found = None
    for name in names:
        sys.stderr.write(f"{name} ...\n")
        async with rig() as fresh:
            found = found or machine.look(fresh.server.version)
            rows += await (MEASUREMENTS | OPTIONAL)[name](fresh, scale)
    assert found is not None
    return Report(
        at=at.isoformat(timespec="seconds"),
        scale=scale.name,
        took_s=round(time.monotonic() - begun, 1),
        machine=found,
        rows=rows,
    )


def main() -> int:
    """Parse, measure, print, keep."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure the bus and the runner.")
    parser.add_argument(
        "only",
        nargs="*",
        metavar="NAME",
        help=f"measure only: {', '.join(MEASUREMENTS)}; or, at length: {', '.join(OPTIONAL)}",
    )
    parser.add_argument("--quick", action="store_true", help="a look, within a minute")
    parser.add_argument("--out", type=Path, default=Path("bench.json"), help="where the numbers are kept")
    parser.add_argument("--show", type=Path, metavar="FILE", help="measure nothing, print what was kept")
    parser.add_argument("--markdown", action="store_true", help="print the table for a document")
    options = parser.parse_args()
    known = MEASUREMENTS | OPTIONAL
    unknown = [name for name in options.only if name not in known]
    if unknown:
        parser.error(f"expected one of {', '.join(known)}, got: {', '.join(unknown)}")
    logs.configure(level="warning")
    if options.show is not None:
        report = msgspec.json.decode(options.show.read_bytes(), type=Report)
    else:
        report = uvloop.run(run(options.only or list(MEASUREMENTS), QUICK if options.quick else DEFAULT))
        options.out.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    if options.markdown:
        sys.stdout.write(f"{markdown(report)}\n")
    else:
        show(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The cost of an invocation in a log that holds few others, and in one that holds very many."""

from __future__ import annotations

from tests.bench.leg import Found
from tests.bench.report import Leg, Row, compared, rounds
from tests.bench.rig import Rig
from tests.bench.scale import Scale

#: Rate among many as a share of the rate among few: flat, but for the noise of the machine.
RATIO = 0.9


async def measure(rig: Rig, scale: Scale) -> list[Row]:
    """The same runner both times; here the floor of the table is the log with few subjects."""

    def among(subjects: int) -> Leg:
        async def leg() -> Found:
            await rig.fill(subjects)
            return await rig.leg("ours", count=scale.invocations, concurrency=256)

        return leg

    pairs = await rounds(rig, scale.subject_rounds, among(scale.many_subjects), among(scale.few_subjects))
    what = f"invocations among {scale.many_subjects:,} subjects, against {scale.few_subjects:,}"
    return compared(what, pairs, ratio=RATIO)

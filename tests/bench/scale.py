"""How much is measured: the default for a result worth keeping, quick for a look."""

from __future__ import annotations

import msgspec


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of everything."""

    name: str = "default"
    #: Times that ours and the floor take turns.
    rounds: int = 5
    #: Invocations of each leg.
    invocations: int = 15_000
    #: Requests of each leg.
    requests: int = 50_000
    #: Stamped requests to an idle runner, and how many a second.
    samples: int = 2_000
    samples_per_s: float = 100.0
    #: Invocations after which the runner's memory is looked at.
    marks: tuple[int, ...] = (50_000, 100_000, 200_000)
    #: Subjects in the stream, few and many, and the rounds of them.
    few_subjects: int = 10_000
    many_subjects: int = 1_000_000
    subject_rounds: int = 5
    #: Events that are projected.
    events: int = 1_000_000
    #: Events of a long history, and whether a primary is blown up to see how long its copy takes.
    history: int = 10_000_000
    ballast: bool = True


DEFAULT = Scale()
QUICK = Scale(
    name="quick",
    rounds=2,
    invocations=4_000,
    requests=10_000,
    samples=200,
    marks=(4_000, 8_000, 16_000),
    many_subjects=50_000,
    subject_rounds=1,
    events=90_000,
    history=500_000,
    ballast=False,
)

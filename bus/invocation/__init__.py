"""The life of one invocation: what has happened (``evolve``) and what may happen next (``decide``).

Plain functions: no I/O, no clock, no ids made inside. The same fold serves the runner, the warden, the command line and
any projection. ``decide`` never promises that its events are written: the fence decides that, and whoever loses the
fence folds again and asks again.

What is *not* promised here: that a handler ran once. A claim that was swept may still have a process behind it; only
its events are refused.
"""

from bus.invocation.commands import (
    Bury,
    Cancel,
    Claim,
    Command,
    Complete,
    Cost,
    Discard,
    Fail,
    FallDue,
    Redrive,
    Release,
    Sweep,
)
from bus.invocation.decision import Limits, Misfit, Refused, decide
from bus.invocation.state import Invocation, Status, evolve

__all__ = [
    "Bury",
    "Cancel",
    "Claim",
    "Command",
    "Complete",
    "Cost",
    "Discard",
    "Fail",
    "FallDue",
    "Invocation",
    "Limits",
    "Misfit",
    "Redrive",
    "Refused",
    "Release",
    "Status",
    "Sweep",
    "decide",
    "evolve",
]

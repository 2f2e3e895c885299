"""The role by which one runner is proven: in the drills' project, served by this one runner and nobody else.

Its name is made of the runner's seat, so that whoever rolls a release out knows it and needs not ask. The handler is the
recorded trace's, which every version has and which needs no code of the fleet.
"""

from __future__ import annotations

import hashlib

from services.fleet.spec import Role, TraceHandler

#: How the role's name begins.
PREFIX = "canary"
#: What it is asked: work that takes no time.
INPUT = {"input_tokens": 1, "output_tokens": 1}
ROLE = Role(handler=TraceHandler(speed=1e6), max_attempts=1)


def tag(host: str, home: str, instance: str) -> str:
    """What the role's name ends with: the runner's seat, shortened. Pure."""
    return hashlib.sha256(f"{host}/{home}/{instance}".encode()).hexdigest()[:16]


def name(host: str, home: str, instance: str) -> str:
    """Name of the role, in the drills' project. Pure."""
    return f"{PREFIX}-{tag(host, home, instance)}"

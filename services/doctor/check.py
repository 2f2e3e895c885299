"""One thing that was looked at. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

import msgspec


class Level(IntEnum):
    """How bad it is; the worst is the exit status."""

    OK = 0
    WARNING = 1
    FAILURE = 2


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """What was looked at, what was found, and what to do."""

    name: str
    level: Level
    found: str
    #: What a person does about it; empty where there is nothing to do.
    remedy: str = ""


def ok(name: str, found: str) -> Check:
    """Nothing to do."""
    return Check(name=name, level=Level.OK, found=found)


def warning(name: str, found: str, remedy: str) -> Check:
    """A fleet runs, and something should be done."""
    return Check(name=name, level=Level.WARNING, found=found, remedy=remedy)


def failure(name: str, found: str, remedy: str) -> Check:
    """A fleet cannot run, or not safely."""
    return Check(name=name, level=Level.FAILURE, found=found, remedy=remedy)


def worst(checks: Iterable[Check]) -> Level:
    """The level of the worst."""
    return max((check.level for check in checks), default=Level.OK)

"""Packages that are imported only when somebody uses them, although somebody else's code imports them at its top.

nats-py imports aiohttp for servers behind a websocket, which takes as long as everything else of the bus together and 20 MB;
no fleet has one. Its own JetStream client is used for artifacts alone: :mod:`bus.wire` speaks the rest. Such a package is found as ever and run at the first look into it, by the standard library's own
:class:`importlib.util.LazyLoader`. The first use must be on one thread.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType

#: Imported by others, used by few.
LATER = frozenset({"aiohttp", "nats.js"})


class Later:
    """Finds what is in LATER, and puts its running off."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The package, to be run later; None for all others, which are found without us."""
        if name not in LATER:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
        return spec


def install() -> None:
    """Put this finder before all others, once."""
    if Later not in sys.meta_path:
        sys.meta_path.insert(0, Later)

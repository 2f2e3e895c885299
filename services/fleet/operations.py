"""How a fleet is operated, as tables of the fleet file: reloads, drills and roll-outs."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta


class Reload(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How changes of the fleet file come into effect while the fleet runs."""

    #: The launcher watches the fleet file and the prompts beside it, and takes what changes without a fault.
    watch: bool = False


class Drills(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """When the guards are proven by real faults, beside what people have drilled."""

    #: Seconds after which each guard is drilled again; None: only when a person does it.
    every: Annotated[float, Meta(ge=60)] | None = None


class Deploying(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How a release is rolled out."""

    #: Seconds for which everything rolled so far must stay up after each step, before the next one begins.
    watch: Annotated[float, Meta(ge=0)] = 40.0

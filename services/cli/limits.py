"""``systems limits``: what is bounded, what is not promised, what stays with a person."""

from __future__ import annotations

import textwrap

from services.cli import output
from services.cli.common import DEFAULTS, Common
from services.cli.exits import Exit
from services.limits import Kind, facts

_WIDTH = 120


def limits(*, common: Common = DEFAULTS) -> int:
    """Show what is bounded, what is not promised, and what stays with a person. Needs no running fleet.

    Args:
        common: How to print.
    """
    found = facts()
    if common.json:
        output.json({"limits": found})
        return Exit.DONE
    margin = max(len(fact.topic) for fact in found) + 2
    for place, kind in enumerate(Kind):
        print(("\n" if place else "") + output.paint(kind.value.capitalize(), "bold"))
        for fact in found:
            if fact.kind is kind:
                lines = textwrap.wrap(fact.sentence, _WIDTH - margin)
                print(f"{fact.topic.ljust(margin)}{lines[0]}")
                for line in lines[1:]:
                    print(f"{' ' * margin}{line}")
    return Exit.DONE

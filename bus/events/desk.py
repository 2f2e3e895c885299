"""What people do from Slack, as events on ``ctl.desk.<id>.<event>``: asked, and done or refused.

The id is made from what Slack itself names a delivery by, and ``asked`` is appended only if nothing was asked under it: a
delivery that comes twice, to one process or to two, acts once. What only looks is not on the record.
"""

from __future__ import annotations

import msgspec


class Asked(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Somebody who may asks for something; it is about to be done."""

    #: ``slack:U0123ABCD (ann)``, as in the events of what is done.
    who: str
    #: The command, as the command line calls it: ``redrive``, ``quota raise``.
    command: str
    #: All of it, as it was typed or pressed.
    text: str = ""
    #: Slack's id of the channel; empty for the home tab.
    channel: str = ""


class Refused(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Somebody asked for what they may not, and nothing was done."""

    who: str
    command: str
    #: The permission that they lack.
    needs: str
    text: str = ""
    channel: str = ""


class Done(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was asked for is done, or was refused by what it was asked of."""

    who: str
    command: str
    ok: bool
    #: What the person was told, in its first line.
    said: str
    took_s: float = 0.0


DeskEvent = Asked | Refused | Done

EVENTS: dict[str, type[msgspec.Struct]] = {"asked": Asked, "refused": Refused, "done": Done}

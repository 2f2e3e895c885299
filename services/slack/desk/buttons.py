"""The buttons of messages and of the home tab, and what a press means. Pure.

A button's value names what it is about; what it would do is looked up when it is pressed, because a message is old the moment
it is posted. The mirror puts the same action ids under what it posts.
"""

from __future__ import annotations

import msgspec

from services.incident.state import Incident, Status
from services.monitor.status import Open
from services.ops.deciding import Proposal
from services.slack.desk import blocks as kit
from services.slack.desk.blocks import Block
from services.slack.desk.permission import Permission
from services.slack.desk.words import COMMANDS, Said
from services.slack.markup import cut, escaped, inert


class Press(msgspec.Struct, frozen=True, kw_only=True):
    """What a button stands for."""

    #: The command as the record calls it.
    command: str
    needs: Permission
    #: It opens a form first.
    form: bool = False


#: Action id -> what it stands for.
PRESSES: dict[str, Press] = {
    "incident_acknowledge": Press(command="incident ack", needs=Permission.INCIDENT),
    "incident_command": Press(command="incident assign", needs=Permission.INCIDENT),
    "incident_update": Press(command="incident update", needs=Permission.INCIDENT, form=True),
    "incident_close": Press(command="incident close", needs=Permission.INCIDENT, form=True),
    "dead_letter_redrive": Press(command="redrive", needs=Permission.OPERATE),
    "dead_letter_discard": Press(command="discard", needs=Permission.OPERATE),
    "freeze": Press(command="freeze", needs=Permission.FREEZE, form=True),
    "thaw": Press(command="thaw", needs=Permission.FREEZE, form=True),
    "cap_raise": Press(command="quota raise", needs=Permission.OPERATE, form=True),
    "proposal_approve": Press(command="approve", needs=Permission.OPERATE),
    "proposal_reject": Press(command="reject", needs=Permission.OPERATE, form=True),
    "sweep": Press(command="sweep", needs=Permission.VIEW),
    "chart": Press(command="chart", needs=Permission.VIEW),
    "home_refresh": Press(command="status", needs=Permission.VIEW),
}
#: Why something was done that needed no typing.
_PRESSED = "pressed a button in Slack"


def said(press: Press, value: str) -> Said:
    """A press as the command that it stands for. Not for those with a form, nor for proposals."""
    spec = COMMANDS[press.command]
    return Said(spec=spec, words=(value,) if value and spec.most else (), reason=_PRESSED if spec.reason else "")


def incident(one: Incident) -> list[Block]:
    """What can be done about an open incident."""
    number = str(one.number)
    first = [kit.button("Acknowledge", "incident_acknowledge", number, style="primary")]
    return kit.actions(
        *(first if one.status is Status.DECLARED else []),
        kit.button("Take command", "incident_command", number),
        kit.button("Post update", "incident_update", number),
        kit.button("Close", "incident_close", number, style="danger"),
    )


def dead_letter(id_: str, _died_seq: int = 0) -> list[Block]:
    """What can be done about a dead letter."""
    return kit.actions(
        kit.button("Redrive", "dead_letter_redrive", id_, style="primary"),
        kit.button(
            "Discard", "dead_letter_discard", id_, style="danger", confirm="It is given up for good; its events stay."
        ),
    )


def proposals(meant: list[tuple[Proposal, str]]) -> list[Block]:
    """What a triage proposes, each with its two buttons: which one is meant, and its words."""
    made: list[Block] = []
    for proposal, words in meant:
        value = msgspec.json.encode(proposal).decode()
        made.append(kit.section(f"Proposed: {inert(cut(words, 500))}"))
        made += kit.actions(
            kit.button(
                "Approve", "proposal_approve", value, style="primary", confirm="It is done at once, in your name."
            ),
            kit.button("Reject", "proposal_reject", value),
        )
    return made


def cap(scope: str, unit: str, window: str) -> Block:
    """Raise one cap."""
    return kit.button("Raise cap", "cap_raise", f"{scope} {unit} {window}")


def pictures() -> list[Block]:
    """The charts."""
    return [
        kit.button("Chart: backlog", "chart", "backlog"),
        kit.button("Chart: spend", "chart", "spend"),
        kit.button("Chart: errors", "chart", "errors"),
    ]


def finding(one: Open) -> Block:
    """An open finding in one block."""
    run = f"\n`{escaped(one.command)}`" if one.command else ""
    return kit.section(f"{inert(cut(one.title, 500))} · since {one.since:%m-%d %H:%M} UTC{run}")

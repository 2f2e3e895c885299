"""The modals: what each asks, and how what comes back becomes a command. Pure.

A form carries what it is about in its metadata and says how things stood when it was opened; whether that still holds is asked
when it comes back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from services.freezing import HARD_WORD
from services.incident.state import Incident
from services.ops.deciding import Proposal
from services.slack.desk import blocks as kit
from services.slack.desk.blocks import Block
from services.slack.desk.words import COMMANDS, Said
from services.slack.markup import cut, escaped, inert

#: Begins the callback id of every form.
PREFIX = "form_"
#: Characters of a title.
_TITLE = 24
#: Characters of an answer that a field takes.
_TEXT = 2500

Values = dict[str, str]


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What a form carries."""

    #: What it is about: an incident's number, a cap, a proposal.
    about: str = ""
    #: Channel and thread that it was opened in; empty for the home tab.
    channel: str = ""
    thread: str = ""


class Wrong(Exception):
    """A field is not filled in as it must be."""

    def __init__(self, field: str, sentence: str) -> None:
        self.field, self.sentence = field, sentence
        super().__init__(sentence)


def _field(
    name: str, label: str, *, lines: bool = False, optional: bool = False, hint: str = "", first: str = ""
) -> Block:
    element: Block = {"type": "plain_text_input", "action_id": "value", "multiline": lines, "max_length": _TEXT}
    if first:
        element["initial_value"] = cut(first, _TEXT)
    made: Block = {
        "type": "input",
        "block_id": name,
        "label": kit.plain(label),
        "element": element,
        "optional": optional,
    }
    return made | ({"hint": kit.plain(hint)} if hint else {})


def _modal(name: str, title: str, submit: str, kept: Kept, blocks: list[Block]) -> Block:
    return {
        "type": "modal",
        "callback_id": PREFIX + name,
        "title": kit.plain(title[:_TITLE]),
        "submit": kit.plain(submit[:_TITLE]),
        "close": kit.plain("Leave it"),
        "private_metadata": msgspec.json.encode(kept).decode(),
        "blocks": blocks,
    }


def told(title: str, blocks: list[Block]) -> Block:
    """A modal that only tells: what became of a form, or why there is none."""
    return {
        "type": "modal",
        "title": kit.plain(title[:_TITLE] or "-"),
        "close": kit.plain("Close"),
        "blocks": kit.view(blocks),
    }


def incident_update(one: Incident, kept: Kept) -> Block:
    """News for everybody who is affected."""
    hit = ", ".join(sorted(one.affected)) or "no project: nobody is told"
    return _modal(
        "incident_update",
        f"Incident {one.number}",
        "Post update",
        kept,
        [
            kit.section(f"{inert(one.title)}\nGoes to: {escaped(cut(hit, 500))}"),
            _field("reason", "What is new", lines=True, hint="In words for people who wait for the service."),
        ],
    )


def incident_close(one: Incident, kept: Kept) -> Block:
    """The end of an incident."""
    left = f"\n:warning: {one.left} of its findings are still there" if one.left else ""
    return _modal(
        "incident_close",
        f"Close incident {one.number}",
        "Close it",
        kept,
        [
            kit.section(f"{inert(one.title)}{left}"),
            _field("reason", "Cause", lines=True),
            _field("actions", "Still to be done", lines=True, optional=True, hint="One a line: write a test @ann"),
        ],
    )


def freeze(_about: object, kept: Kept) -> Block:
    """Soft by default; hard needs its word."""
    return _modal(
        "freeze",
        "Freeze the fleet",
        "Freeze",
        kept,
        [
            kit.section("Every write of the fleet stops. Work in hand is kept and goes on at the thaw."),
            _field("reason", "Reason", hint="It is in every refusal, with your name."),
            _field("for", "Clears by itself after", optional=True, hint="Such as 30m. Empty: somebody thaws it."),
            _field(
                "confirm",
                f"For a hard freeze type: {HARD_WORD}",
                optional=True,
                hint="Only a person clears a hard freeze, with a typed word; it needs the permission hard.",
            ),
        ],
    )


def thaw(_about: object, kept: Kept) -> Block:
    """The end of a soft freeze."""
    return _modal("thaw", "Thaw the fleet", "Thaw", kept, [_field("reason", "Reason")])


def cap_raise(about: object, kept: Kept) -> Block:
    """A higher cap; `about` is what it is now, in words."""
    return _modal(
        "cap_raise",
        "Raise a cap",
        "Raise",
        kept,
        [
            kit.section(escaped(str(about))),
            _field("to", "To", hint="How much, such as 2M, 500k or 2.50."),
            _field("reason", "Reason"),
            _field("until", "For", optional=True, hint="Such as 8h; then the old cap counts again. Empty: for good."),
        ],
    )


def proposal_reject(about: object, kept: Kept) -> Block:
    """Why a proposal is not followed."""
    return _modal(
        "proposal_reject",
        "Reject a proposal",
        "Reject",
        kept,
        [kit.section(escaped(str(about))), _field("reason", "Why")],
    )


#: Form -> how it is drawn, from what is known of its subject.
FORMS: dict[str, Callable[[Any, Kept], Block]] = {
    "incident_update": incident_update,
    "incident_close": incident_close,
    "freeze": freeze,
    "thaw": thaw,
    "cap_raise": cap_raise,
    "proposal_reject": proposal_reject,
}


def values(view: dict[str, Any]) -> Values:
    """What was filled in, by field."""
    state = view.get("state", {}).get("values", {})
    return {name: str((fields.get("value") or {}).get("value") or "").strip() for name, fields in state.items()}


def kept_of(view: dict[str, Any]) -> Kept:
    """What the form carried."""
    return msgspec.json.decode(view.get("private_metadata") or "{}", type=Kept)


def command(name: str, kept: Kept, filled: Values) -> Said | None:
    """A form that came back, as the command that it stands for; None for a rejected proposal, which is none.

    Raises:
        Wrong: a field is not filled in as it must be.
    """
    reason = filled.get("reason", "")
    if not reason:
        raise Wrong("reason", "expected some words; they go into the record, with your name")
    match name:
        case "freeze":
            word = filled.get("confirm", "")
            if word and word != HARD_WORD:
                raise Wrong("confirm", f"expected {HARD_WORD}, or nothing for a soft freeze, got: {word}")
            if word and filled.get("for"):
                raise Wrong("for", "a hard freeze is cleared by a person only")
            spec = COMMANDS["freeze hard" if word else "freeze"]
            options = {key: filled[key] for key in ("for", "confirm") if filled.get(key)}
            return Said(spec=spec, options=options, reason=reason)
        case "proposal_reject":
            return None
        case "thaw":
            return Said(spec=COMMANDS["thaw"], reason=reason)
        case "cap_raise":
            scope, unit, window = kept.about.split()
            options = {"unit": unit, "window": window} | ({"until": filled["until"]} if filled.get("until") else {})
            return Said(
                spec=COMMANDS["quota raise"], words=(scope, filled.get("to", "")), options=options, reason=reason
            )
        case "incident_update":
            return Said(spec=COMMANDS["incident update"], words=(kept.about,), reason=reason)
        case "incident_close":
            options = {"actions": filled["actions"]} if filled.get("actions") else {}
            return Said(spec=COMMANDS["incident close"], words=(kept.about,), options=options, reason=reason)
    raise Wrong("reason", f"nothing here knows the form {name!r} any more; open it again")


def proposal(kept: Kept) -> Proposal:
    """The proposal that a form is about."""
    return msgspec.json.decode(kept.about, type=Proposal)

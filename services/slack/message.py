"""A message, from words to Block Kit, to a notification and to a log line. Pure.

What agents and their errors say is shown as literal text: ``rich_text`` and ``plain_text`` know no mention, no link and no
markup, so that ``<!channel>`` inside an error pages nobody. Only the notification is read by Slack as markup, and is escaped.
Everything is cut to Slack's limits, with the command that shows the whole.
"""

from __future__ import annotations

from typing import Any

import msgspec

from services.slack.markup import BUTTON, HEADER, ROW, TEXT, VALUE, cut, escaped, literal, visible

#: Characters of a notification, and of one line of a message.
NOTIFICATION, LINE = 600, 300


class Button(msgspec.Struct, frozen=True, kw_only=True):
    """A button: what it does is the app's handler of its action."""

    action: str
    label: str
    #: What the handler gets.
    value: str
    #: ``primary`` or ``danger``; empty for neither.
    style: str = ""


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """What is said, in parts."""

    #: One sign that people see from afar.
    icon: str
    title: str
    #: What and value, one line each.
    lines: tuple[tuple[str, str], ...] = ()
    #: Text of any length, shown as it is.
    detail: str = ""
    #: What a person runs.
    command: str = ""
    #: What shows the whole: a command.
    whole: str = ""
    buttons: tuple[Button, ...] = ()


def blocks(message: Message) -> list[dict[str, Any]]:
    """The message in Block Kit."""
    title = cut(literal(" ".join(f"{message.icon} {message.title}".split())), HEADER)
    found: list[dict[str, Any]] = [{"type": "header", "text": {"type": "plain_text", "text": title, "emoji": False}}]
    parts: list[dict[str, Any]] = []
    if message.lines:
        parts.append({"type": "rich_text_section", "elements": _lines(message)})
    if message.detail.strip():
        detail = cut(literal(message.detail.strip()), TEXT, message.whole)
        parts.append({"type": "rich_text_preformatted", "elements": [_text(detail)]})
    if message.command:
        parts.append(
            {
                "type": "rich_text_section",
                "elements": [_text("Run "), _text(cut(literal(message.command), LINE), code=True)],
            }
        )
    if parts:
        found.append({"type": "rich_text", "elements": parts})
    if message.buttons:
        found.append({"type": "actions", "elements": [_button(button) for button in message.buttons[:ROW]]})
    return found


def notification(message: Message) -> str:
    """The message as one line of markup: what a phone shows."""
    said = "; ".join(f"{what}: {value}" for what, value in message.lines)
    return escaped(
        literal(cut(" ".join(f"{message.icon} {message.title}{f' - {said}' if said else ''}".split()), NOTIFICATION))
    )


def plain(message: Message) -> str:
    """The message as text for a log or a terminal."""
    found = [f"{message.icon} {message.title}"]
    found += [f"    {what}: {cut(value, LINE)}" for what, value in message.lines]
    if message.detail.strip():
        found += [f"    | {line}" for line in cut(message.detail.strip(), TEXT, message.whole).splitlines()]
    if message.command:
        found.append(f"    run: {message.command}")
    if message.buttons:
        found.append("    " + " ".join(f"[{button.label}]" for button in message.buttons[:ROW]))
    return visible("\n".join(found))


def _lines(message: Message) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    left = TEXT
    for place, (what, value) in enumerate(message.lines):
        shown = cut(literal(" ".join(value.split())), min(LINE, left), message.whole)
        left -= len(shown) + len(what)
        found += [_text(f"{chr(10) if place else ''}{what}: ", bold=True), _text(shown or "-")]
        if left < LINE and place + 1 < len(message.lines):
            found.append(_text(f"\n… {len(message.lines) - place - 1} more lines"))
            break
    return found


def _text(text: str, **style: bool) -> dict[str, Any]:
    return {"type": "text", "text": text} | ({"style": style} if style else {})


def _button(button: Button) -> dict[str, Any]:
    found: dict[str, Any] = {
        "type": "button",
        "action_id": button.action,
        "text": {"type": "plain_text", "text": cut(button.label, BUTTON), "emoji": False},
        "value": cut(button.value, VALUE),
    }
    return found | ({"style": button.style} if button.style else {})

"""Messages and views in Block Kit, always within Slack's limits, and never with markup that an agent wrote. Pure.

Every text from outside goes through :func:`services.slack.markup.escaped` first. What is too long is cut, and says where the
whole is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from services.slack.markup import BUTTON, HEADER, MESSAGE_BLOCKS, ROW, TEXT, VALUE, VIEW_BLOCKS, cut, escaped
from services.wording import aligned

Block = dict[str, Any]

#: Lines of a table within a message; more of them are a file.
LINES = 40
#: Characters of a line of a table: what a desktop shows without folding.
WIDTH = 110


def header(text: str) -> Block:
    """A heading. Not escaped: plain text has no markup."""
    return {"type": "header", "text": {"type": "plain_text", "text": cut(text, HEADER) or "-"}}


def section(text: str, **more: Any) -> Block:
    """A paragraph of mrkdwn that is escaped where it has to be."""
    return {"type": "section", "text": {"type": "mrkdwn", "text": cut(text, TEXT) or "-"}} | more


def context(*texts: str) -> Block:
    """Small print."""
    return {"type": "context", "elements": [{"type": "mrkdwn", "text": cut(text, TEXT) or "-"} for text in texts]}


def fields(pairs: Iterable[tuple[str, str]]) -> Block:
    """Up to ten short facts, each under its name, in two columns."""
    shown = [{"type": "mrkdwn", "text": cut(f"*{name}*\n{value or '-'}", VALUE)} for name, value in pairs]
    return {"type": "section", "fields": shown[:10]}


def button(text: str, action: str, value: str, *, style: str = "", confirm: str = "") -> Block:
    """A button. `confirm` is asked before it acts."""
    made: Block = {
        "type": "button",
        "text": {"type": "plain_text", "text": cut(text, BUTTON)},
        "action_id": action,
        "value": value,
    }
    if style:
        made["style"] = style
    if confirm:
        made["confirm"] = {
            "title": plain("Are you sure?"),
            "text": plain(cut(confirm, 300)),
            "confirm": plain(cut(text, 30)),
            "deny": plain("No"),
        }
    return made


def plain(text: str) -> Block:
    """A text object without markup."""
    return {"type": "plain_text", "text": text}


def actions(*buttons: Block) -> list[Block]:
    """Buttons, five a row; of two that would do the same in one row the second gets another id."""
    rows = []
    for start in range(0, len(buttons), ROW):
        row = [
            one | {"action_id": f"{one['action_id']}:{place}"} for place, one in enumerate(buttons[start : start + ROW])
        ]
        rows.append({"type": "actions", "elements": row})
    return rows


def mono(lines: Sequence[str], limit: int = TEXT) -> list[Block]:
    """Lines as they stand, in as many blocks as they need: each is whole lines, and none is longer than a block takes."""
    blocks: list[Block] = []
    part: list[str] = []
    size = 0
    for line in lines:
        safe = escaped(line).replace("```", "'''")
        safe = cut(safe, limit - 8)
        if part and size + len(safe) + 1 > limit - 8:
            blocks.append(_pre(part))
            part, size = [], 0
        part.append(safe)
        size += len(safe) + 1
    if part:
        blocks.append(_pre(part))
    return blocks


def _pre(lines: Sequence[str]) -> Block:
    return {"type": "section", "text": {"type": "mrkdwn", "text": "```\n" + "\n".join(lines) + "\n```"}}


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> list[str]:
    """A table as lines, each as wide as a screen; the last column gives way."""
    lines = aligned(columns, rows, right=right)
    return [line if len(line) <= WIDTH else line[: WIDTH - 1] + "…" for line in lines]


def message(blocks: Sequence[Block], more: str = "") -> list[Block]:
    """At most as many blocks as a message takes; `more` says where the others are."""
    if len(blocks) <= MESSAGE_BLOCKS:
        return list(blocks)
    return [*blocks[: MESSAGE_BLOCKS - 1], context(more or "there is more: ask for less at a time")]


def view(blocks: Sequence[Block], more: str = "") -> list[Block]:
    """The same for a view."""
    if len(blocks) <= VIEW_BLOCKS:
        return list(blocks)
    return [*blocks[: VIEW_BLOCKS - 1], context(more or "there is more: see `systems status`")]

"""Words of others in Slack: nothing is hidden in them, nothing in them is markup, and they are as long as Slack takes them. Pure.

Agents write titles, errors and reasons. Where Slack reads markup they go through :func:`escaped`, so that ``<!channel>`` in an
error is shown as it stands and pages nobody; where it reads none (``plain_text``, ``rich_text``) through :func:`literal`.
"""

from __future__ import annotations

import re

#: Characters of a block's text: a little less than the 3,000 that Slack takes, because one outside of the basic plane may count
#: twice. And of a header, a button, a button's value.
TEXT, HEADER, BUTTON, VALUE = 2900, 150, 75, 2000
#: Blocks of a message and of a view.
MESSAGE_BLOCKS, VIEW_BLOCKS = 50, 100
#: Buttons of one row: a phone shows few.
ROW = 5
#: What Slack reads as a mention, a channel or a link.
_SPECIAL = re.compile(r"<(?=[!@#]|https?:|mailto:)")
#: Control characters but tab and line feed, and what turns the direction of writing round: text can be hidden behind either.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]")
#: Characters of the longest entity, ``&amp;``, without its end.
_ENTITY = 4


def visible(text: str) -> str:
    """A text that nothing is hidden in."""
    return _CONTROL.sub(" ", text)


def literal(text: str) -> str:
    """The same for a place without markup: no beginning of a mention even where none is read."""
    return _SPECIAL.sub("\u2039", visible(text))


def escaped(text: str) -> str:
    """The same for a place with markup: no mention, no link, no entity. Emphasis is left to who surrounds it."""
    return visible(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def inert(text: str) -> str:
    """An escaped text without emphasis and code either: for words of agents within a sentence of ours."""
    broken = escaped(" ".join(text.split()))
    for sign in "*_~`":
        broken = broken.replace(sign, f"\u200b{sign}")
    return broken


def cut(text: str, limit: int, whole: str = "") -> str:
    """At most `limit` characters, never ending within an entity, and the command that shows the `whole`."""
    if len(text) <= limit:
        return text
    tail = f"… (cut: {whole})" if whole else "…"
    head = text[: max(0, limit - len(tail))]
    begun = head.rfind("&", max(0, len(head) - _ENTITY))
    if begun >= 0 and ";" not in head[begun:]:
        head = head[:begun]
    return head.rstrip() + tail

"""Words to Block Kit: within Slack's limits, and nothing hidden in them."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from services.slack.message import Button, Message, blocks, notification, plain
from tests.slack import limits

_words = (
    st.text(max_size=40)
    | st.sampled_from(["<!channel>", "<@U1>", "<https://x|y>", "&amp;", "```", "*b*"])
    | st.text(min_size=2900, max_size=4000)
)


def texts(value: Any) -> list[str]:
    """Every text of some blocks."""
    if isinstance(value, dict):
        own = [value["text"]] if isinstance(value.get("text"), str) else []
        return own + [text for each in value.values() for text in texts(each)]
    return [text for each in value for text in texts(each)] if isinstance(value, list) else []


@settings(max_examples=60, deadline=None)
@given(_words, _words, st.lists(st.tuples(st.sampled_from(["About", "Since"]), _words), max_size=30), _words)
def test_any_words_fit(title: str, detail: str, lines: list[tuple[str, str]], command: str) -> None:
    """Whatever is said, Slack takes the message, and reads no mention and no link in it."""
    message = Message(icon="x", title=title, detail=detail, lines=tuple(lines), command=command, whole="systems show 1")
    made = blocks(message)
    assert limits.message({"text": notification(message), "blocks": made}) == []
    for text in texts(made):
        assert "<!" not in text
        assert "<@" not in text
        assert "<http" not in text
    assert "<" not in notification(message)
    assert plain(message)


def test_nothing_is_markup() -> None:
    """Blocks hold no text that Slack reads as markup."""
    made = blocks(
        Message(
            icon="x",
            title="*a*",
            detail="_b_",
            lines=(("c", "~d~"),),
            buttons=(Button(action="a", label="b", value="c"),),
        )
    )
    assert "mrkdwn" not in repr(made)
    assert notification(Message(icon="x", title="<b> & <!here>")) == "x &lt;b&gt; &amp; \u2039!here&gt;"

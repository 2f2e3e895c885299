"""Words of others: shown as they stand, with nothing hidden in them, and as long as Slack takes them."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from services.slack import markup

_WILD = st.text(st.sampled_from("ab <!channel>&`*_~|\n@\u00e9\u200b"), max_size=6000)


@given(_WILD)
def test_no_text_makes_markup(text: str) -> None:
    """A mention, a link or an entity within a text of somebody else's is shown as it stands."""
    shown = markup.escaped(text)
    assert "<" not in shown
    assert ">" not in shown
    assert shown.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&") == text


@given(st.text())
def test_nothing_is_hidden_in_a_text(text: str) -> None:
    """Where Slack reads markup and where it reads none, no control character is left, and nothing turns the writing round."""
    for shown in (markup.escaped(text), markup.literal(text), markup.inert(text)):
        left = {unicodedata.bidirectional(sign) for sign in shown}
        assert not left & {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
        assert not {sign for sign in shown if ord(sign) < 32} - {"\t", "\n"}


@given(_WILD, st.integers(1, 200))
def test_a_cut_fits_and_splits_no_entity(text: str, limit: int) -> None:
    """What is left of an escaped text is escaped."""
    shown = markup.cut(markup.escaped(text), limit)
    assert len(shown) <= limit
    for place in (i for i, sign in enumerate(shown) if sign == "&"):
        assert shown[place:].startswith(("&amp;", "&lt;", "&gt;"))


def test_a_cut_says_where_the_rest_is() -> None:
    """What is over a limit ends with the command that shows the whole."""
    shown = markup.cut("x" * 5000, 3000, "systems show 17")
    assert len(shown) == 3000
    assert shown.endswith("… (cut: systems show 17)")

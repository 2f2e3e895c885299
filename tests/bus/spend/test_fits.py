"""What is granted never passes a cap, and keys are what they say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.spend import Asked, Key, Limit, amount, fits, is_key, of_scope, scope_text, scope_token, tree_token

CAPS = {"system.tokens.all": 1000, "shop.tokens.all": 500, "shop.usd.all": 300}
needs = st.builds(
    Asked,
    tokens=st.integers(0, 400),
    usd_micros=st.integers(0, 400),
    limits=st.sets(st.sampled_from(sorted(CAPS))).map(lambda keys: tuple(Limit(key, CAPS[key]) for key in keys)),
)


@given(st.lists(needs, max_size=20), st.fixed_dictionaries({key: st.integers(0, 1100) for key in CAPS}))
def test_fits_never_passes_a_cap(asked: list[Asked], totals: dict[str, int]) -> None:
    """What is granted and what was there stay under every cap, and who is refused would not have fitted."""
    answers = fits(asked, totals)
    taken = dict(totals)
    for one, answer in zip(asked, answers, strict=True):
        if answer is None:
            for limit in one.limits:
                taken[limit.key] += amount(limit.key, one.tokens, one.usd_micros)
                assert taken[limit.key] <= limit.cap
        else:
            key, room = answer
            assert room == max(0, CAPS[key] - taken[key])
            assert taken[key] + amount(key, one.tokens, one.usd_micros) > CAPS[key]


def test_fits_lets_a_smaller_need_pass_a_larger_one() -> None:
    """What does not fit takes nothing from those behind it."""
    limits = (Limit("shop.tokens.all", 100),)
    asked = [Asked(tokens=60, limits=limits), Asked(tokens=60, limits=limits), Asked(tokens=40, limits=limits)]
    assert fits(asked, {"shop.tokens.all": 0}) == [None, ("shop.tokens.all", 40), None]


def test_keys_read_and_write_the_same_text() -> None:
    """A key's text gives the key back, and scopes have a token and a text."""
    for scope in (scope_token(), scope_token("shop"), scope_token("shop", "coder"), tree_token("01a-b")):
        key = Key(scope, "usd", "day_2026-11-24")
        assert Key.parse(str(key)) == key
        assert of_scope(scope_text(scope)) == scope
    assert scope_text("shop_coder") == "shop/coder"
    assert scope_text(tree_token("01a")) == "tree 01a"


@pytest.mark.parametrize(
    "text", ["", "shop.tokens", "shop.euro.all", "a.b.c.d", "sh op.tokens.all", "*.tokens.all", ">"]
)
def test_keys_refuse_what_is_no_counter(text: str) -> None:
    """Rubbish, and what NATS would take for a wildcard, names no counter."""
    assert not is_key(text)
    with pytest.raises(ValueError, match="expected a counter"):
        Key.parse(text)


def test_keys_make_a_token_of_any_root() -> None:
    """A root that somebody wrote by hand cannot leave its place in the subject."""
    assert tree_token("a.b > *") == "tree_a-b----"


def test_amounts_are_never_negative() -> None:
    """Nobody gives spend back by reporting less than nothing."""
    assert amount("shop.tokens.all", -5, 7) == 0
    assert amount("shop.usd.all", -5, 7) == 7

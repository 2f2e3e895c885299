"""One value of the registry: what a fleet file's checks refuse is refused in a bucket too, in the same words."""

from __future__ import annotations

import msgspec
import pytest

from services.fleet import value
from services.fleet.entries import fault
from services.fleet.reading import PROMPT_LIMIT
from services.fleet.spec import FunctionHandler, Role

GOOD = msgspec.json.encode(Role(handler=FunctionHandler(target="a:b"), prompt="rules"))


def test_role_that_is_good_is_read() -> None:
    """A role is read whole; its prompt must be one that is there."""
    assert value.read("roles.shop.coder", GOOD, Role, {"rules"}).prompt == "rules"
    assert fault("roles.shop.coder", GOOD, {"rule"}) == ("prompt: unknown prompt 'rules', did you mean 'rule'?")


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        (b'{\n"handler": {\n"kind" "x"}}', "expected JSON, got: line 3: "),
        (b"[]", "Expected `object`, got `array`"),
        (b"{}", "expected the key 'handler', got none"),
        (b'{"handler":{"kind":"functoin"}}', "handler.kind: unknown kind 'functoin', did you mean 'function'?"),
        (
            b'{"handler":{"kind":"function","target":"a:b"},"concurency":1}',
            "concurency: unknown key 'concurency', did you mean 'concurrency'?",
        ),
        (b'{"handler":{"kind":"function","target":"a"}}', "handler.target: expected module:callable"),
        (
            b'{"handler":{"kind":"function","target":"a:b"},"concurrency":8,"max_in_flight":2}',
            "max_in_flight: expected at least concurrency (8), got: 2",
        ),
        (
            b'{"handler":{"kind":"function","target":"a:b"},"schedules":{"n":{"cron":"0 99 * * * *"}}}',
            "schedules.n.cron: ",
        ),
    ],
)
def test_role_that_is_none_is_told_what_is_wrong(raw: bytes, sentence: str) -> None:
    """Each fault is named with its line or its path, and the remedy."""
    assert sentence in fault("roles.shop.coder", raw, set())


def test_prompt_that_is_too_large_names_the_limit() -> None:
    """A prompt of 5 MB is refused with the limit and what to do; so is one that grows over it as JSON."""
    assert fault("prompts.rules", b"x" * 5_000_000, set()) == (
        f"expected at most {PROMPT_LIMIT:,} bytes, got: 5,000,000; pass the bulk as input, or as an artifact"
    )
    assert "as JSON, got: 1,048,578" in fault("prompts.rules", b"\n" * PROMPT_LIMIT, set())
    assert fault("prompts.rules", b"x" * PROMPT_LIMIT, set()) == ""


def test_prompt_that_is_no_text_names_the_line() -> None:
    """Bytes that are no UTF-8 are told with their line."""
    assert fault("prompts.rules", b"a\nb\n\xff", set()) == "line 3: expected UTF-8, got: byte 0xff"


@pytest.mark.parametrize("key", ["roles.shop", "roles.Shop.x", "rules.a.b", "guards.quotas", "x"])
def test_key_that_names_nothing_is_refused(key: str) -> None:
    """A key that belongs to nothing is refused with what it should have been."""
    assert "expected" in fault(key, GOOD, {"rules"})

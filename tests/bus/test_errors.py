"""Errors: one tree, facts as fields, one sentence each."""

from __future__ import annotations

import re

import pytest

from bus import errors


def tree() -> dict[str, str]:
    """Class -> parent, as the module's docstring draws it."""
    drawn: dict[str, str] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"    ((?:│   |    )*)(?:├── |└── )?(\w+)", line)
        if found is None:
            continue
        depth = len(found[1]) // 4 + ("──" in line)
        path[depth:] = [found[2]]
        drawn[found[2]] = path[depth - 1] if depth else "Exception"
    return drawn


def test_errors_tree_is_drawn_as_it_is() -> None:
    """The drawing in the docstring names every class under its real parent."""
    real = {
        name: kind.__bases__[0].__name__
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.BusError)
    }
    assert tree() == real


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            errors.BusUnreachable("nats://h:1", "refused"),
            "no NATS server answers at nats://h:1 (refused); start the fleet with `systems up`, or name another server",
        ),
        (
            errors.Unanswered("a publish", 2.5),
            "expected an answer to a publish within 2.5 s, got none: its outcome is unknown",
        ),
        (
            errors.ServerTooOld("2.9.0", "2.14.0", "cron"),
            (
                "expected nats-server 2.14.0 or newer (cron), got: 2.9.0; "
                "upgrade the server, or leave out --server to use the embedded one"
            ),
        ),
        (errors.ServerError("a read", 10059, "no stream"), "a read was refused by the server: no stream (code 10059)"),
        (
            errors.PayloadTooLarge("an input", 2_000_000, 1_048_576),
            (
                "expected an input to be at most 1,048,576 bytes, got: 2,000,000; "
                "put the bulk into an artifact and pass its reference"
            ),
        ),
        (errors.BadSubject("a role", "A b", "[a-z]"), "expected a role to match [a-z], got: 'A b'"),
        (
            errors.UnknownName("role", "shop/codr", ["shop/coder"]),
            "unknown role 'shop/codr', did you mean 'shop/coder'?",
        ),
        (errors.UnknownName("role", "x", ["shop/a", "shop/b"]), "unknown role 'x', expected one of: shop/a, shop/b"),
        (errors.UnknownName("role", "x", []), "unknown role 'x'"),
    ],
)
def test_errors_say_it_in_one_sentence(error: errors.BusError, sentence: str) -> None:
    """What was expected, what came, where, and the remedy last."""
    assert str(error) == sentence


def test_errors_long_lists_are_not_spelled_out() -> None:
    """Among many names with none close, no list drowns the sentence."""
    assert errors.did_you_mean("zzz", [f"role-{n}" for n in range(21)]) == ""

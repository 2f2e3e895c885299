"""Function handlers of the example fleet: called with the input and, if they take it, the runner's context.

Both only compute: asked again with the same input they give the same answer, so a retry does no harm.
"""

from __future__ import annotations

import statistics
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from services.replay_file import read_trace
from services.runner.handler import Context, FollowUp, Result

#: Dollars for a million tokens, as an example: what goes in, what comes out.
_PRICE_IN, _PRICE_OUT = Decimal("2.50"), Decimal("10.00")
_MILLION = 1_000_000


def report(input: dict[str, str], ctx: Context) -> Result:
    """Sum up a trace, and ask for a review of the report in the same breath as completing.

    Not async, so it runs in a thread and its reading holds up nobody.

    Args:
        input: ``{"trace": "NAME.csv"}``, a file beside this one.
        ctx: the prompt in it holds the rules for the review.
    """
    rows = list(read_trace(Path(__file__).with_name(Path(input["trace"]).name)))
    ctx.progress(f"{len(rows):,} requests read")
    text = "\n".join(
        (
            f"Requests: {len(rows):,} in {rows[-1].offset_s / 60:.0f} minutes",
            f"Tokens in: {sum(row.input_tokens for row in rows):,}",
            f"Tokens out: {sum(row.output_tokens for row in rows):,}",
            f"Median request: {statistics.median(row.input_tokens for row in rows):,.0f} tokens in",
        )
    )
    question = {"text": text, "rules": ctx.prompt}
    return Result(
        output=msgspec.Raw(msgspec.json.encode({"report": text})),
        follow_ups=(FollowUp(role="shop/reviewer", input=msgspec.Raw(msgspec.json.encode(question))),),
    )


def book(input: dict[str, Any]) -> dict[str, Any]:
    """A balanced entry for the tokens that a project used.

    Args:
        input: ``{"project": …, "for": …, "input_tokens": N, "output_tokens": N}``, as the role's schema demands.
    """
    cost = (_PRICE_IN * input["input_tokens"] + _PRICE_OUT * input["output_tokens"]) / _MILLION
    amount = f"{cost:.6f}"
    return {
        "for": input["for"],
        "debit": {"account": f"{input['project']}:models", "usd": amount},
        "credit": {"account": "payable:models", "usd": amount},
    }

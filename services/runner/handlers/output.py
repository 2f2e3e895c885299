"""What handlers hand in, checked: JSON values, token counts, follow-up requests.

Pure functions; every refusal is one sentence that names what came.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from bus.events.invocation import EMPTY, Usage
from services.runner.failure import HandlerError
from services.runner.handler import TOKEN_LIMIT, FollowUp, Permanent, Result, countable

#: What msgspec raises for bytes that are not JSON of the wanted shape: its own errors, bad UTF-8, nesting without end.
INVALID = (ValueError, RecursionError)
_Tokens = Annotated[int, Meta(ge=0, le=TOKEN_LIMIT)]


class _Usage(msgspec.Struct, frozen=True):
    input_tokens: _Tokens = 0
    output_tokens: _Tokens = 0
    model: Annotated[str, Meta(max_length=200)] = ""


def encode(value: Any, what: str) -> msgspec.Raw:
    """A Python value as JSON; a Raw is checked and passes through.

    Raises:
        Permanent: it cannot be JSON; the sentence names its type.
    """
    try:
        if isinstance(value, msgspec.Raw):
            msgspec.json.decode(value)
            return value
        return msgspec.Raw(msgspec.json.encode(value))
    except (TypeError, ValueError, OverflowError, RecursionError) as exc:
        raise Permanent(
            f"expected {what} to be a value that JSON can hold, got: {type(value).__name__} ({exc})"
        ) from exc


def usage(raw: bytes, where: str) -> Usage:
    """Token counts from a JSON object; fields that we do not know are ignored.

    Raises:
        HandlerError: ``bad_usage``, permanent: a count is negative, no integer, or above :data:`TOKEN_LIMIT`. A spend that
            cannot be trusted must not be guessed.
    """
    try:
        counts = msgspec.json.decode(raw, type=_Usage)
    except INVALID as exc:
        head = bytes(raw)[:100].decode(errors="replace")
        raise HandlerError(
            "bad_usage",
            f"expected the usage {where} to be token counts from 0 to {TOKEN_LIMIT:,}, got: {head} ({exc})",
            permanent=True,
        ) from exc
    return Usage(input_tokens=counts.input_tokens, output_tokens=counts.output_tokens, model=counts.model)


def result(value: Any, what: str) -> Result:
    """What a function returned as a result: a Result keeps its parts, anything else is the output.

    Raises:
        Permanent: something in it cannot be JSON.
        BadUsage: its use cannot be counted.
    """
    if value is None:
        return Result()
    if not isinstance(value, Result):
        return Result(output=encode(value, what))
    # The fields are whatever the function put there: Structs check their types only when they are decoded.
    parts: Any = value
    countable(parts.usage, f"in {what}")
    follow_ups = tuple(_follow_up(one, what) for one in parts.follow_ups)
    output = EMPTY if parts.output is None else encode(parts.output, what)
    return msgspec.structs.replace(value, output=output, follow_ups=follow_ups, artifacts=tuple(parts.artifacts))


def _follow_up(value: Any, what: str) -> FollowUp:
    if not isinstance(value, FollowUp):
        raise Permanent(
            f"expected the follow-ups of {what} to be FollowUp(role=…, input=…), got: {type(value).__name__}"
        )
    return msgspec.structs.replace(value, input=encode(value.input, f"the input of the follow-up to {value.role}"))

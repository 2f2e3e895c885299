"""The trace handler: recorded tokens in, the same tokens out, after the recorded time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bus.events.invocation import Usage
from services.fleet import spec
from services.runner.handler import Context, Permanent
from services.runner.handlers import build


def role(**more: Any) -> spec.Role:
    """A trace role."""
    return spec.Role(handler=spec.TraceHandler(**more), progress_timeout=0.03)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_trace_reports_the_recorded_tokens(context: Callable[..., Context], read: int, written: int) -> None:
    """The use is exactly what was recorded, whatever the speed."""
    handler = build(role(speed=1e9), Path())
    ctx = context({"input_tokens": read, "output_tokens": written, "other": "ignored"})
    result = asyncio.run(handler(ctx))
    assert msgspec.json.decode(result.output) == {"output_tokens": written}
    assert ctx.spent == Usage(input_tokens=read, output_tokens=written, model="trace")


async def test_trace_takes_the_recorded_time_and_shows_that_it_lives(
    context: Callable[..., Context], notes: list[str]
) -> None:
    """The time is prefill plus decode divided by the speed, with signs of progress within the role's limit."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    await build(role(speed=10.0, prefill_rate=1000.0, decode_rate=100.0), Path())(
        context({"input_tokens": 400, "output_tokens": 60})
    )
    assert loop.time() - began >= 0.1
    assert len(notes) >= 3


@pytest.mark.parametrize(
    "input",
    [None, [], "text", {}, {"input_tokens": 1}, {"input_tokens": -1, "output_tokens": 1},
     {"input_tokens": 1, "output_tokens": 1.5}, {"input_tokens": True, "output_tokens": 1}, {"input_tokens": 1, "output_tokens": 10**13}],
)  # fmt: skip
async def test_trace_refuses_other_input_for_good(context: Callable[..., Context], input: Any) -> None:
    """Input that is no pair of token counts is a permanent error that says what is expected."""
    with pytest.raises(Permanent, match=r"expected .*input_tokens|expected output_tokens"):
        await build(role(), Path())(context(input))

"""Handler ``trace``: takes as long as a model would for the recorded token counts, and reports them as its use.

It gives a sign of progress at least three times per ``progress_timeout``, so a long recorded answer does not count as hung.
Delays below a millisecond are skipped: a timer is no finer, and at high speeds it would cost more than it waits.
"""

from __future__ import annotations

import asyncio

import msgspec

from bus.events.invocation import Usage
from services.fleet import spec
from services.runner.handler import TOKEN_LIMIT, Context, Permanent, Result
from services.runner.handlers.output import INVALID

#: Seconds.
_SHORTEST = 0.001
#: Seconds between two signs of progress, at most.
_BEAT = 30.0


class _Recorded(msgspec.Struct, frozen=True):
    input_tokens: int
    output_tokens: int


_decoder = msgspec.json.Decoder(_Recorded)


class TraceRunner:
    """Replays recorded work for one role."""

    def __init__(self, handler: spec.TraceHandler, role: spec.Role) -> None:
        self._handler = handler
        self._beat = min(_BEAT, role.progress_timeout / 3)

    async def __call__(self, context: Context) -> Result:
        """Wait as long as the model would have worked, then report its tokens.

        Raises:
            Permanent: the input is not ``{"input_tokens": N, "output_tokens": N}``.
        """
        recorded = _read(context.input)
        handler = self._handler
        seconds = recorded.input_tokens / handler.prefill_rate + recorded.output_tokens / handler.decode_rate
        seconds /= handler.speed
        if seconds >= _SHORTEST:
            await self._wait(seconds, context)
        context.meter(Usage(input_tokens=recorded.input_tokens, output_tokens=recorded.output_tokens, model="trace"))
        return Result(output=msgspec.Raw(b'{"output_tokens":%d}' % recorded.output_tokens))

    async def _wait(self, seconds: float, context: Context) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while (left := end - loop.time()) > 0:
            await asyncio.sleep(min(left, self._beat))
            context.progress()

    async def close(self) -> None:
        """Nothing to give back."""


def _read(raw: msgspec.Raw) -> _Recorded:
    try:
        recorded = _decoder.decode(raw)
    except INVALID as exc:
        raise Permanent(
            f'expected the input to be {{"input_tokens": N, "output_tokens": N}}, got something else: {exc}'
        ) from exc
    for name in ("input_tokens", "output_tokens"):
        count = getattr(recorded, name)
        if not 0 <= count <= TOKEN_LIMIT:
            raise Permanent(f"expected {name} of the input to be from 0 to {TOKEN_LIMIT:,}, got: {count}")
    return recorded

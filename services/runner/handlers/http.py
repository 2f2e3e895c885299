"""Handler ``http``: POST of the input as JSON; the JSON body of the answer is the output, an empty one is null.

The service gets ``Idempotency-Key`` (the invocation's id, the same in each attempt), ``Systems-Attempt`` and ``traceparent``. It
may report its use in the headers ``Systems-Input-Tokens`` and ``Systems-Output-Tokens``, also of an error.

A service that asks the gate itself may answer with the refusal as problem details (:mod:`bus.problem`): where a guard did
refuse the work meanwhile, that costs no attempt. 429 and 503 may name the delay of the retry by ``Retry-After``; 408, 425, 429, 5xx and a broken connection are transient; every other
refusal, a redirect, and an answer that is not JSON are permanent.
"""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from services.fleet import spec
from services.runner.failure import HandlerError
from services.runner.handler import Context, Permanent, Result
from services.runner.handlers import output, web


class HttpRunner:
    """Posts to one role's address."""

    def __init__(self, handler: spec.HttpHandler, role: spec.Role) -> None:
        self._url = web.address(handler.url)
        self._headers = dict(handler.headers)
        if handler.token_env:
            self._headers["Authorization"] = f"Bearer {web.secret(handler.token_env)}"
        self._client = web.client(role)

    async def __call__(self, context: Context) -> Result:
        """Post the input and take the answer.

        Raises:
            HandlerError: no answer, or a refusal (``http_<status>``).
            Permanent: the answer is not JSON.
        """
        headers = {
            **self._headers,
            "Idempotency-Key": context.ref.id,
            "Systems-Attempt": str(context.attempt),
            "traceparent": context.traceparent,
        }
        answer = await web.post(self._client, self._url, bytes(context.input), headers, context)
        _meter(answer, context)
        if not 200 <= answer.status < 300:
            raise web.refusal(self._url, answer, datetime.now(UTC))
        return Result(output=self._output(answer))

    def _output(self, answer: web.Answer) -> msgspec.Raw:
        if not answer.body.strip():
            return msgspec.Raw(b"null")
        try:
            return output.encode(msgspec.Raw(answer.body), "the answer")
        except Permanent as exc:
            kind = answer.headers.get("content-type", "no content type")
            raise Permanent(f"expected JSON from {web.shown(self._url)}, got {kind}: {answer.head}") from exc

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def _meter(answer: web.Answer, context: Context) -> None:
    counts: dict[str, int] = {}
    for field in ("input_tokens", "output_tokens"):
        name = f"Systems-{field.replace('_', '-').title()}"
        value = answer.headers.get(name)
        if value is not None:
            try:
                counts[field] = int(value)
            except ValueError as exc:
                raise HandlerError(
                    "bad_usage", f"expected the header {name} to be an integer, got: {value!r}", permanent=True
                ) from exc
    if counts:
        context.meter(output.usage(msgspec.json.encode(counts), "in the answer's headers"))

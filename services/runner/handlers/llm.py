"""Handler ``llm``: one call of a language model, by OpenAI's chat completions or Anthropic's messages.

The role's prompt is the system text. The user's part is the input: an object with ``messages`` gives the conversation, one
with ``prompt`` or a plain string the text of one message, anything else is sent as JSON text. The output is
``{"text": …, "stop_reason": …, "model": …}``.

The use comes from the answer; tokens read from or written to the provider's cache count as input. An answer without it fails
for good: a spend that nobody can verify must not be repeated. Refusals as in :mod:`services.runner.handlers.http`, and 529; a 429
that says the account has no money is permanent. The answer is not streamed, so a role's ``progress_timeout`` must allow for the whole of it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, NamedTuple, assert_never

import msgspec

from services.fleet import spec
from services.runner.failure import HandlerError
from services.runner.handler import Context, Permanent, Result
from services.runner.handlers import output, web

_PATHS = {spec.LlmApi.OPENAI: "/chat/completions", spec.LlmApi.ANTHROPIC: "/v1/messages"}
_BASES = {spec.LlmApi.OPENAI: "https://api.openai.com/v1", spec.LlmApi.ANTHROPIC: "https://api.anthropic.com"}
#: The version of the messages API that this module speaks.
_ANTHROPIC_VERSION = "2023-06-01"


class LlmRunner:
    """Calls one role's model."""

    def __init__(self, handler: spec.LlmHandler, role: spec.Role) -> None:
        self._handler = handler
        base = handler.base_url or _BASES[handler.api]
        self._url = web.address(base.rstrip("/") + _PATHS[handler.api])
        self._headers: dict[str, str] = {}
        key = web.secret(handler.key_env) if handler.key_env else ""
        match handler.api:
            case spec.LlmApi.OPENAI:
                if key:
                    self._headers["Authorization"] = f"Bearer {key}"
            case spec.LlmApi.ANTHROPIC:
                self._headers["anthropic-version"] = _ANTHROPIC_VERSION
                if key:
                    self._headers["x-api-key"] = key
            case never:
                assert_never(never)
        self._client = web.client(role)

    async def __call__(self, context: Context) -> Result:
        """Call the model once.

        Raises:
            HandlerError: no answer, a refusal (``http_<status>``), or an answer without use or without text.
            Permanent: the input's messages are no conversation, or the answer is none of this API.
        """
        body = request(self._handler, context.prompt, context.json())
        answer = await web.post(self._client, self._url, msgspec.json.encode(body), self._headers, context)
        if not 200 <= answer.status < 300:
            refusal = web.refusal(self._url, answer, datetime.now(UTC))
            refusal.permanent = refusal.permanent or (answer.status == 429 and b'"insufficient_quota"' in answer.body)
            raise refusal
        said = self._read(answer, context)
        text = {"text": said.text, "stop_reason": said.stop_reason, "model": said.model}
        return Result(output=output.encode(text, "the model's answer"))

    def _read(self, answer: web.Answer, context: Context) -> _Said:
        reply: _Chat | _Messages
        try:
            reply = msgspec.json.decode(answer.body, type=_REPLIES[self._handler.api])
        except output.INVALID as exc:
            raise Permanent(
                f"expected an answer of the {self._handler.api} API from {web.shown(self._url)}, got: {answer.head} ({exc})"
            ) from exc
        if reply.usage is None:
            raise HandlerError(
                "no_usage",
                f"no usage in the answer of {reply.model or self._handler.model}: spend cannot be verified",
                detail=answer.head,
                permanent=True,
            )
        # Metered before anything else is looked at: the money is spent, whatever the text is.
        context.meter(output.usage(msgspec.json.encode(reply.used(self._handler.model)), "in the answer"))
        return reply.said(self._handler.model)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def request(handler: spec.LlmHandler, prompt: str, value: Any) -> dict[str, Any]:
    """The body of a call: the role's prompt as system text, the input as the conversation.

    Raises:
        Permanent: ``messages`` of the input is no list of objects with ``role`` and ``content``.
    """
    messages = _conversation(value)
    body: dict[str, Any] = {"model": handler.model}
    match handler.api:
        case spec.LlmApi.OPENAI:
            system = [{"role": "system", "content": prompt}] if prompt else []
            body["messages"] = [*system, *messages]
            # OpenAI itself refuses the old name for its newer models; servers that imitate it may not know the new one.
            body["max_tokens" if handler.base_url else "max_completion_tokens"] = handler.max_output_tokens
        case spec.LlmApi.ANTHROPIC:
            if prompt:
                body["system"] = prompt
            body["messages"] = messages
            body["max_tokens"] = handler.max_output_tokens
        case never:
            assert_never(never)
    if handler.temperature is not None:
        body["temperature"] = handler.temperature
    return body


def _conversation(value: Any) -> list[Any]:
    match value:
        case {"messages": messages}:
            if not isinstance(messages, list) or not messages or not all(map(_is_message, messages)):
                raise Permanent(
                    'expected "messages" of the input to be a list of {"role": …, "content": …}, '
                    f"got: {msgspec.json.encode(messages)[:200].decode(errors='replace')}"
                )
            return messages
        case {"prompt": str(text)} | str(text):
            return [{"role": "user", "content": text}]
        case _:
            return [{"role": "user", "content": msgspec.json.encode(value).decode()}]


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("role"), str) and "content" in value


class _Said(NamedTuple):
    text: str
    stop_reason: str
    model: str


class _ChatUsage(msgspec.Struct):
    # Any: what a provider sends is judged by the one check in output.usage.
    prompt_tokens: Any
    completion_tokens: Any = 0


class _ChatMessage(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    message: _ChatMessage
    finish_reason: str | None = None


class _Chat(msgspec.Struct):
    choices: list[_Choice]
    usage: _ChatUsage | None = None
    model: str = ""

    def used(self, asked: str) -> dict[str, Any]:
        assert self.usage is not None  # looked at before
        return {
            "input_tokens": self.usage.prompt_tokens,
            "output_tokens": self.usage.completion_tokens,
            "model": self.model or asked,
        }

    def said(self, asked: str) -> _Said:
        if not self.choices:
            raise HandlerError("no_choice", f"expected an answer with a choice from {self.model or asked}, got none")
        choice = self.choices[0]
        return _Said(choice.message.content or "", choice.finish_reason or "", self.model or asked)


class _MessagesUsage(msgspec.Struct):
    input_tokens: int
    output_tokens: int
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None


class _Block(msgspec.Struct):
    type: str
    text: str = ""


class _Messages(msgspec.Struct):
    content: list[_Block]
    usage: _MessagesUsage | None = None
    stop_reason: str | None = None
    model: str = ""

    def used(self, asked: str) -> dict[str, Any]:
        assert self.usage is not None  # looked at before
        cached = (self.usage.cache_creation_input_tokens or 0) + (self.usage.cache_read_input_tokens or 0)
        return {
            "input_tokens": self.usage.input_tokens + cached,
            "output_tokens": self.usage.output_tokens,
            "model": self.model or asked,
        }

    def said(self, asked: str) -> _Said:
        text = "".join(block.text for block in self.content if block.type == "text")
        return _Said(text, self.stop_reason or "", self.model or asked)


_REPLIES: dict[spec.LlmApi, type[_Chat | _Messages]] = {spec.LlmApi.OPENAI: _Chat, spec.LlmApi.ANTHROPIC: _Messages}

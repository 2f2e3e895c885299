"""The llm handler against servers that speak both providers' APIs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bus.events.invocation import Usage
from services.fleet import spec
from services.fleet.spec import LlmApi
from services.runner.failure import HandlerError, classify
from services.runner.handler import Context, Handler, Permanent
from services.runner.handlers import build
from services.runner.handlers.llm import request

Make = Callable[..., Handler]


@pytest.fixture
async def make(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Make]:
    """Builds handlers, and closes them afterwards."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("MODEL_KEY", "secret")
    made: list[Handler] = []

    def build_one(api: LlmApi, base_url: str, **more: Any) -> Handler:
        handler = spec.LlmHandler(model="small-1", api=api, base_url=base_url, key_env="MODEL_KEY", **more)
        made.append(build(spec.Role(handler=handler, timeout=20.0), Path()))
        return made[-1]

    yield build_one
    for handler in made:
        await handler.close()


def base(llmock: Any, api: LlmApi) -> str:
    """Where the mock provider serves this API."""
    url: str = llmock.base_url(api.value)
    return url


@pytest.mark.parametrize("api", list(LlmApi))
async def test_llm_answers_and_is_metered(
    make: Make, llmock: Any, context: Callable[..., Context], api: LlmApi
) -> None:
    """The model's text is the output and the provider's token counts are the use; prompt and input arrive as system and user text."""
    llmock.reply("It is sunny.")
    ctx = context("How is the weather?", prompt="Answer briefly.")
    result = await make(api, base(llmock, api), temperature=0.5)(ctx)
    answer = msgspec.json.decode(result.output)
    assert (answer["text"], answer["model"]) == ("It is sunny.", "small-1")
    assert answer["stop_reason"] == {"openai": "stop", "anthropic": "end_turn"}[api]
    assert ctx.spent.model == "small-1"
    assert ctx.spent.input_tokens > 0
    assert ctx.spent.output_tokens > 0
    body = llmock.last_request.body
    assert body["messages"][-1] == {"role": "user", "content": "How is the weather?"}
    assert "Answer briefly." in (body["messages"][0]["content"], body.get("system"))
    assert (body["temperature"], body["max_tokens"]) == (0.5, 1024)


@pytest.mark.parametrize("api", list(LlmApi))
@pytest.mark.parametrize("status", [429, 503, 529])
async def test_llm_rate_limits_are_honoured(
    make: Make, llmock: Any, context: Callable[..., Context], *, api: LlmApi, status: int
) -> None:
    """A busy provider is a transient failure, not retried before its Retry-After; it costs nothing."""
    llmock.fail(status, retry_after=3.0)
    ctx = context("hello")
    with pytest.raises(HandlerError) as caught:
        await make(api, base(llmock, api))(ctx)
    error, delay = classify(caught.value)
    assert (error.kind, error.permanent, delay) == (f"http_{status}", False, 3.0)
    assert ctx.spent == Usage()
    assert len(llmock.requests) == 1


@pytest.mark.parametrize("api", list(LlmApi))
@pytest.mark.parametrize("status", [400, 401, 403, 404])
async def test_llm_refusals_are_permanent(
    make: Make, llmock: Any, context: Callable[..., Context], *, api: LlmApi, status: int
) -> None:
    """What the provider refuses for good goes to a person, with the provider's words."""
    llmock.fail(status, message="not like this")
    with pytest.raises(HandlerError, match="not like this") as caught:
        await make(api, base(llmock, api))(context("hello"))
    assert (caught.value.kind, caught.value.permanent) == (f"http_{status}", True)


async def test_llm_spent_account_is_permanent(make: Make, llmock: Any, context: Callable[..., Context]) -> None:
    """A 429 that says the account has no money is not retried."""
    llmock.fail(429, code="insufficient_quota", message="no money")
    with pytest.raises(HandlerError, match="no money") as caught:
        await make(LlmApi.OPENAI, llmock.base_url())(context("hello"))
    assert caught.value.permanent


@pytest.mark.parametrize(
    ("api", "body"),
    [
        (LlmApi.OPENAI, b'{"model": "m", "choices": [{"message": {"content": "x"}}]}'),
        (LlmApi.ANTHROPIC, b'{"model": "m", "content": [{"type": "text", "text": "x"}]}'),
    ],
)
async def test_llm_answer_without_use_fails_for_good(
    service: Any, make: Make, context: Callable[..., Context], api: LlmApi, body: bytes
) -> None:
    """An answer that does not say what it cost is a permanent failure: spend cannot be verified."""
    service.answer(200, body)
    with pytest.raises(HandlerError, match="spend cannot be verified") as caught:
        await make(api, service.url)(context("hello"))
    assert (caught.value.kind, caught.value.permanent) == ("no_usage", True)


@pytest.mark.parametrize(
    ("body", "kind", "spent"),
    [
        (b'{"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 0}}', "no_choice", 5),
        (b'{"choices": [], "usage": {"prompt_tokens": -5}}', "bad_usage", 0),
        (b'{"choices": [], "usage": {"prompt_tokens": "5"}}', "bad_usage", 0),
        (b"<html>", "Permanent", 0),
        (b'{"choices": 1}', "Permanent", 0),
    ],
)
async def test_llm_strange_answers_are_understood(
    service: Any, make: Make, context: Callable[..., Context], *, body: bytes, kind: str, spent: int
) -> None:
    """Answers without a choice, with impossible counts or of another API fail with one sentence; what was spent is kept."""
    service.answer(200, body)
    ctx = context("hello")
    with pytest.raises((HandlerError, Permanent), match="expected") as caught:
        await make(LlmApi.OPENAI, service.url)(ctx)
    assert classify(caught.value)[0].kind == kind
    assert ctx.spent.input_tokens == spent


async def test_llm_counts_cached_tokens_and_joins_texts(
    service: Any, make: Make, context: Callable[..., Context]
) -> None:
    """Cached tokens are input too; only the text blocks of a message are its text; the key is sent as the API wants it."""
    service.answer(
        200,
        b'{"model": "big-2", "stop_reason": "end_turn", "usage": {"input_tokens": 1, "output_tokens": 2, '
        b'"cache_creation_input_tokens": 10, "cache_read_input_tokens": 100}, '
        b'"content": [{"type": "thinking"}, {"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}',
    )
    ctx = context("hello")
    result = await make(LlmApi.ANTHROPIC, service.url + "/")(ctx)
    assert msgspec.json.decode(result.output)["text"] == "ab"
    assert ctx.spent == Usage(input_tokens=111, output_tokens=2, model="big-2")
    headers, _ = service.requests[0]
    assert (headers["x-api-key"], headers["anthropic-version"], headers[":path"]) == (
        "secret",
        "2023-06-01",
        "/v1/messages",
    )


@pytest.mark.parametrize(
    ("value", "messages"),
    [
        ("text", [{"role": "user", "content": "text"}]),
        ({"prompt": "text", "other": 1}, [{"role": "user", "content": "text"}]),
        ({"messages": [{"role": "user", "content": [1]}]}, [{"role": "user", "content": [1]}]),
        ({"n": 1}, [{"role": "user", "content": '{"n":1}'}]),
        (None, [{"role": "user", "content": "null"}]),
    ],
)
def test_llm_input_becomes_a_conversation(value: Any, messages: list[Any]) -> None:
    """Messages, a prompt, a string or any JSON: each has one place in the conversation, after the role's prompt."""
    handler = spec.LlmHandler(model="m", max_output_tokens=7)
    body = request(handler, "system", value)
    assert body == {
        "model": "m",
        "max_completion_tokens": 7,
        "messages": [{"role": "system", "content": "system"}, *messages],
    }
    assert request(handler, "", value)["messages"] == messages


@pytest.mark.parametrize("messages", [[], "text", [1], [{"role": "user"}], None])
def test_llm_input_with_broken_messages_is_refused(messages: Any) -> None:
    """Messages that are no conversation are a permanent error that shows them."""
    with pytest.raises(Permanent, match="list of"):
        request(spec.LlmHandler(model="m"), "", {"messages": messages})


def test_llm_missing_key_is_refused_when_built() -> None:
    """A key variable that the runner does not have is a permanent error."""
    with pytest.raises(Permanent, match="SURELY_NOT_SET_ANYWHERE"):
        build(spec.Role(handler=spec.LlmHandler(model="m", key_env="SURELY_NOT_SET_ANYWHERE")), Path())

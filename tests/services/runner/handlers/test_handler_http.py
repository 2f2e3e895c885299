"""The http handler: what is sent, and what each answer means."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus import problem
from bus.events.invocation import Usage
from bus.refusal import Reason, Refusal
from services.fleet import spec
from services.runner.failure import HandlerError, classify
from services.runner.handler import Context, Handler, Permanent
from services.runner.handlers import build, web

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@contextmanager
def socket_that_refuses() -> Iterator[int]:
    """A port that nobody listens on, and that nobody else gets meanwhile."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def handler(url: str, *, timeout: float = 10.0, **more: Any) -> Handler:
    """An http handler for the address."""
    return build(spec.Role(handler=spec.HttpHandler(url=url, **more), timeout=timeout), Path())


async def test_http_posts_the_input_and_gives_the_answer(
    service: Any, context: Callable[..., Context], notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The input is the body; the answer's body is the output, untouched, and its headers are the use."""
    monkeypatch.setenv("SHOP_TOKEN", "secret")
    service.answer(200, b'{"b": 1, "a": 2}', Systems_Input_Tokens="3", systems_output_tokens="4", Set_Cookie="a=b")
    service.answer(204)
    post = handler(f"{service.url}/work", token_env="SHOP_TOKEN", headers={"X-Mine": "1"})
    ctx = context({"x": "ä"})
    assert bytes((await post(ctx)).output) == b'{"b": 1, "a": 2}'
    assert ctx.spent == Usage(input_tokens=3, output_tokens=4)
    assert notes
    assert bytes((await post(ctx)).output) == b"null"
    await post.close()
    headers, body = service.requests[0]
    assert body == {"x": "ä"}
    wanted = {
        ":path": "/work", "authorization": "Bearer secret", "x-mine": "1", "idempotency-key": ctx.ref.id, "systems-attempt": "2",
        "traceparent": ctx.traceparent, "content-type": "application/json",
    }  # fmt: skip
    assert wanted.items() <= headers.items()
    assert "cookie" not in service.requests[1][0]


@pytest.mark.parametrize(
    ("status", "permanent"),
    [(301, True), (400, True), (401, True), (404, True), (408, False), (409, True), (425, False), (429, False), (500, False),
     (503, False)],
)  # fmt: skip
async def test_http_refusals_are_told_apart(
    service: Any, context: Callable[..., Context], status: int, permanent: bool
) -> None:
    """Refusals that a retry may mend are transient, others permanent; the sentence has the service's own words."""
    service.answer(status, b'{"error": {"message": "because of that"}}', Location="https://elsewhere/")
    post = handler(f"{service.url}/work?key=hidden")
    with pytest.raises(HandlerError, match="elsewhere" if status == 301 else "because of that") as caught:
        await post(context())
    await post.close()
    error, delay = classify(caught.value)
    assert (error.kind, error.permanent, delay) == (f"http_{status}", permanent, None)
    assert "hidden" not in error.message


async def test_http_retry_after_is_honoured(service: Any, context: Callable[..., Context]) -> None:
    """Retry-After of a 429 or 503 becomes the least delay of the retry."""
    service.answer(503, b"", Retry_After="17")
    post = handler(service.url)
    with pytest.raises(HandlerError) as caught:
        await post(context())
    await post.close()
    assert classify(caught.value)[1] == 17.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "2.5"}, 2.5),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": format_datetime(NOW + timedelta(seconds=90), usegmt=True)}, 90.0),
        ({"retry-after": format_datetime(NOW - timedelta(seconds=90), usegmt=True)}, 0.0),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6m0.5s"}, 360.5),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "20ms"}, 0.02),
        ({"x-ratelimit-remaining-tokens": "5", "x-ratelimit-reset-tokens": "6m0s"}, None),
        (
            {"anthropic-ratelimit-tokens-remaining": "0", "anthropic-ratelimit-tokens-reset": "2026-01-02T03:04:35Z"},
            30.0,
        ),
    ],
)
def test_retry_after_is_read_in_all_its_forms(headers: dict[str, str], seconds: float | None) -> None:
    """Seconds, milliseconds, HTTP dates, and the providers' reset times of an empty quota; rubbish is nothing."""
    assert web.retry_after(headers, NOW) == (None if seconds is None else pytest.approx(seconds))


@given(st.text(), st.text())
def test_retry_after_never_raises(value: str, reset: str) -> None:
    """Whatever the headers hold, the result is a finite delay from 0, or nothing."""
    headers = {"retry-after": value, "x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": reset}
    seconds = web.retry_after(headers, NOW)
    assert seconds is None or 0 <= seconds < float("inf")


@pytest.mark.parametrize("body", [b"<html>hello</html>", b"{", b'"\xff"'])
async def test_http_answer_that_is_no_json_is_refused(
    service: Any, context: Callable[..., Context], body: bytes
) -> None:
    """A successful answer that is not JSON is permanent, and shown with its content type."""
    service.answer(200, body, Content_Type="text/html")
    post = handler(service.url)
    with pytest.raises(Permanent, match=r"expected JSON from .*text/html"):
        await post(context())
    await post.close()


@pytest.mark.parametrize("value", ["-1", "many", "1000000000001"])
async def test_http_use_that_cannot_be_is_refused(service: Any, context: Callable[..., Context], value: str) -> None:
    """A token count that is negative, absurd or no number fails for good."""
    service.answer(200, b"1", Systems_Output_Tokens=value)
    post = handler(service.url)
    with pytest.raises(HandlerError) as caught:
        await post(context())
    await post.close()
    assert (caught.value.kind, caught.value.permanent) == ("bad_usage", True)


async def test_http_answer_is_bounded(
    service: Any, context: Callable[..., Context], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer over the limit is given up on instead of held in memory."""
    monkeypatch.setattr(web, "BODY_LIMIT", 1000)
    service.answer(200, b" " * 2000)
    post = handler(service.url)
    with pytest.raises(HandlerError, match="1,000 bytes"):
        await post(context())
    await post.close()


async def test_http_broken_connections_are_transient(service: Any, context: Callable[..., Context]) -> None:
    """A connection that is refused, or closed before the answer, is a transient failure that names the address."""
    service.hang_up()
    with socket_that_refuses() as port:
        for url in (service.url, f"http://127.0.0.1:{port}/"):
            post = handler(url)
            with pytest.raises(HandlerError, match=r"127\.0\.0\.1") as caught:
                await post(context())
            await post.close()
            assert not caught.value.permanent


async def test_http_times_out(service: Any, context: Callable[..., Context]) -> None:
    """A service that does not answer within the role's timeout is a transient failure."""
    service.keep_silent()
    post = handler(service.url, timeout=0.1)
    with pytest.raises(HandlerError) as caught:
        await post(context())
    await post.close()
    assert (caught.value.kind, caught.value.permanent) == ("ReadTimeout", False)


@pytest.mark.parametrize("url", ["", "shop", "ftp://host/", "http://", "http://host:port/"])
def test_http_address_is_checked_when_built(url: str) -> None:
    """An address that cannot be posted to is a permanent error with an example."""
    with pytest.raises(Permanent, match="https://host/path"):
        handler(url)


def test_http_missing_token_is_refused_when_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """A token variable that the runner does not have is a permanent error that suggests one it has."""
    monkeypatch.setenv("SHOP_TOKEN_QX", "secret")
    with pytest.raises(Permanent, match="did you mean 'SHOP_TOKEN_QX'"):
        handler("http://host/", token_env="SHOP_TOKEN_XQ")


async def test_http_knows_a_guards_refusal(service: Any, context: Callable[..., Context]) -> None:
    """An answer that is a refusal of ours says so with its sentence; the same status without it is an ordinary error."""
    refusal = Refusal(reason=Reason.FROZEN, scope="system", command="systems thaw --reason TEXT")
    service.answer(503, problem.body(refusal), Content_Type=problem.MEDIA_TYPE)
    service.answer(503, b"busy")
    post = handler(service.url)
    with pytest.raises(HandlerError, match="systems thaw") as caught:
        await post(context({}))
    assert caught.value.guarded
    with pytest.raises(HandlerError, match="busy") as caught:
        await post(context({}))
    assert not caught.value.guarded
    await post.close()

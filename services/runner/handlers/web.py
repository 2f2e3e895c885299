"""The HTTP client of the handlers ``http`` and ``llm``, and what an answer means.

One client per role: HTTP/1.1, at most `concurrency` connections, no redirects followed, no cookies kept (an invocation must not
see what another was told). An answer is read in pieces, each of which counts as progress, up to :data:`BODY_LIMIT`.
"""

from __future__ import annotations

import http.cookiejar
import math
import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple

import httpx
import msgspec

from bus import problem
from bus.errors import did_you_mean
from services.fleet import spec
from services.runner.failure import HandlerError
from services.runner.handler import Context, Permanent
from services.runner.handlers.output import INVALID

#: Bytes of one answer, which is held in memory.
BODY_LIMIT = 32 * 1024 * 1024
#: Seconds until an address that does not answer at all is given up on.
_CONNECT_S = 10.0
#: Characters of an unexpected answer that are shown.
_HEAD = 300
#: Other refusals than these and 5xx cannot be mended by a retry.
_TRANSIENT = frozenset({408, 425, 429})
#: Provider's words for a time: ``6m0s``, ``20ms``.
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhd])")


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def head(self) -> str:
        """The beginning of the body, for a person."""
        text = " ".join(self.body[: 4 * _HEAD].decode(errors="replace").split())
        return text[:_HEAD] or "an empty body"


def client(role: spec.Role) -> httpx.AsyncClient:
    """A client for one role. Opens nothing."""
    made = httpx.AsyncClient(
        http2=False,
        follow_redirects=False,
        timeout=httpx.Timeout(role.timeout, connect=min(role.timeout, _CONNECT_S)),
        limits=httpx.Limits(max_connections=role.concurrency, max_keepalive_connections=role.concurrency),
    )
    made.cookies.jar.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
    return made


def address(text: str) -> httpx.URL:
    """The address of a service.

    Raises:
        Permanent: it is no http or https address with a host.
    """
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as exc:
        raise Permanent(f"expected an address like https://host/path, got: {text!r} ({exc})") from exc
    if url.scheme not in {"http", "https"} or not url.host:
        raise Permanent(f"expected an address like https://host/path, got: {text!r}")
    return url


def secret(name: str) -> str:
    """A key from the runner's environment.

    Raises:
        Permanent: the variable is not set, or empty.
    """
    value = os.environ.get(name, "").strip()
    if not value:
        hint = did_you_mean(name, os.environ)
        raise Permanent(f"expected the environment variable {name} to hold a key, but the runner has none{hint}")
    return value


async def post(
    client: httpx.AsyncClient, url: httpx.URL, content: bytes, headers: Mapping[str, str], context: Context
) -> Answer:
    """POST JSON and read the whole answer.

    Raises:
        HandlerError: no answer came (the kind is the driver's class, transient), or a larger one than :data:`BODY_LIMIT`.
    """
    headers = {"Content-Type": "application/json", "Accept": "application/json", **headers}
    body = bytearray()
    try:
        async with client.stream("POST", url, content=content, headers=headers) as response:
            async for piece in response.aiter_bytes():
                context.progress()
                body += piece
                if len(body) > BODY_LIMIT:
                    raise HandlerError(
                        "answer_too_large",
                        f"expected an answer of at most {BODY_LIMIT:,} bytes from {shown(url)}, got more",
                    )
            return Answer(response.status_code, response.headers, bytes(body))
    except httpx.HTTPError as exc:
        why = str(exc) or "nothing came in time"
        raise HandlerError(
            type(exc).__name__, f"expected an answer from {shown(url)}, got none: {why}", detail=repr(exc)
        ) from exc


def shown(url: httpx.URL) -> str:
    """The address without what may be secret: user, password, query."""
    return str(url.copy_with(userinfo=b"", query=None, fragment=None))


def refusal(url: httpx.URL, answer: Answer, now: datetime, *, transient: frozenset[int] = _TRANSIENT) -> HandlerError:
    """The error that an answer other than 2xx stands for: permanent unless its status is in `transient` or 5xx."""
    why = _provider_words(answer.body) or answer.head
    if 300 <= answer.status < 400:
        why = f"a redirect to {answer.headers.get('location', 'nowhere')}; write the final address into the fleet file"
    refused = problem.read(answer.headers.get("content-type", ""), answer.body)
    if refused is not None:
        why = refused.sentence
    return HandlerError(
        f"http_{answer.status}",
        f"expected 2xx from {shown(url)}, got: {answer.status} ({why})",
        guarded=refused is not None,
        detail=answer.body[:4000].decode(errors="replace"),
        permanent=not (answer.status in transient or 500 <= answer.status < 600),
        retry_after=retry_after(answer.headers, now),
    )


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds that the other side asks us to wait; None if it says nothing that can be understood.

    In this order: ``retry-after-ms``, ``Retry-After`` in seconds or as an HTTP date, and the providers' times at which a
    quota that has nothing remaining is filled again.
    """
    milliseconds = _number(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("retry-after", "")
    seconds = _number(value)
    if seconds is None and value:
        seconds = _until(value, now)
    return seconds if seconds is not None else _quota_reset(headers, now)


def _quota_reset(headers: Mapping[str, str], now: datetime) -> float | None:
    resets: list[float] = []
    for name, value in headers.items():
        if "ratelimit-" not in name or "reset" not in name:
            continue
        # x-ratelimit-reset-tokens (a span) and anthropic-ratelimit-tokens-reset (a time), each with its -remaining twin.
        if headers.get(name.replace("reset", "remaining"), "") != "0":
            continue
        seconds = _span(value) if value[:1].isdigit() and "T" not in value else _until(value, now)
        if seconds is not None:
            resets.append(seconds)
    return max(resets, default=None)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return max(number, 0.0) if math.isfinite(number) else None


def _span(text: str) -> float | None:
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return _number(text)
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def _until(text: str, now: datetime) -> float | None:
    """Seconds to a time, as an HTTP date or in ISO form; never negative."""
    try:
        when = datetime.fromisoformat(text) if text[:1].isdigit() else parsedate_to_datetime(text)
    except ValueError:
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max((when - now).total_seconds(), 0.0)


class _Words(msgspec.Struct):
    message: str = ""


class _Refusal(msgspec.Struct):
    error: _Words


def _provider_words(body: bytes) -> str:
    """The message of an error as model providers and many others send it; empty if it is not of that form."""
    try:
        return msgspec.json.decode(body, type=_Refusal).error.message[:_HEAD]
    except INVALID:
        return ""

"""How an answer reaches the person: through the address that Slack gave for it, else as a direct message; files always directly.

An answer that cannot be brought is logged: nobody waits on the other side any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import aiohttp
import msgspec
import structlog
from slack_sdk.errors import SlackApiError, SlackClientError
from slack_sdk.web.async_client import AsyncWebClient
from slack_sdk.webhook.async_client import AsyncWebhookClient

from services.slack.desk.answer import Answer, File
from services.slack.line import refusal

log = structlog.get_logger()

T = TypeVar("T")

#: Seconds after which somebody who waits is told that it takes longer.
PATIENCE_S = 2.0
#: Times that an answer is offered to a Slack that asks to wait, and the longest wait in seconds.
_TRIES, _LONGEST_S = 4, 60.0
#: What Slack and the way to it may fail with.
FAULTS = (SlackApiError, SlackClientError, aiohttp.ClientError, TimeoutError, OSError)


class To(msgspec.Struct, frozen=True, kw_only=True):
    """Where an answer goes."""

    user: str
    #: Slack's address for answers to this; empty for none, as in the home tab.
    url: str = ""
    #: Thread that it belongs to.
    thread: str = ""


class Reply:
    """Brings answers."""

    def __init__(self, client: AsyncWebClient) -> None:
        self._client = client

    async def after(self, to: To, work: asyncio.Task[Answer | None], what: str) -> None:
        """Bring what a task answers; say so once if it takes long."""
        done, _ = await asyncio.wait({work}, timeout=PATIENCE_S)
        if not done:
            await self.bring(to, Answer(text=f"{what}: this takes a moment, the answer follows"))
        found = await work
        if found is not None:
            await self.bring(to, found)

    async def bring(self, to: To, answer: Answer) -> None:
        """Bring an answer, and its file."""
        trouble = await self._file(to.user, answer.file) if answer.file is not None else ""
        if trouble:
            more = Answer(text=f"the file {answer.file.name if answer.file else ''} could not be sent: {trouble}")
            blocks = [*answer.whole, *more.whole][:50]
            answer = msgspec.structs.replace(answer, blocks=blocks)
        if to.url and await self._respond(to, answer):
            return
        try:
            await _patiently(
                lambda: self._client.chat_postMessage(channel=to.user, text=answer.text, blocks=answer.whole)
            )
        except FAULTS as exc:
            log.error("slack_answer_lost", user=to.user, error=_why(exc), text=answer.text)

    async def _respond(self, to: To, answer: Answer) -> bool:
        """Whether Slack took it at the address that it gave."""
        body: dict[str, Any] = {
            "text": answer.text,
            "blocks": answer.whole,
            "response_type": "in_channel" if answer.public else "ephemeral",
            "replace_original": False,
        }
        if to.thread:
            body["thread_ts"] = to.thread
        try:
            sent = await AsyncWebhookClient(to.url).send_dict(body)
        except FAULTS as exc:
            log.warning("slack_answer_unsent", user=to.user, error=_why(exc), action="sending it directly")
            return False
        if sent.status_code != 200:
            log.warning("slack_answer_unsent", user=to.user, error=sent.body[:200], action="sending it directly")
            return False
        return True

    async def _file(self, user: str, file: File) -> str:
        """Why a file could not be sent; empty for nothing."""
        try:
            opened = await _patiently(lambda: self._client.conversations_open(users=user))
            await _patiently(
                lambda: self._client.files_upload_v2(
                    channel=opened["channel"]["id"], content=file.content, filename=file.name, title=file.title
                )
            )
        except FAULTS as exc:
            log.warning("slack_file_unsent", user=user, file=file.name, error=_why(exc))
            return _why(exc)
        return ""


async def _patiently(call: Callable[[], Awaitable[T]]) -> T:
    """A call, made again as often as Slack asks to wait a little: what it answers so it has not taken."""
    for left in reversed(range(_TRIES)):
        try:
            return await call()
        except SlackApiError as exc:
            wait = (
                float(exc.response.headers.get("Retry-After", 1)) if exc.response.status_code == 429 else _LONGEST_S + 1
            )
            if not left or wait > _LONGEST_S:
                raise
            await asyncio.sleep(wait)
    raise AssertionError("the last try returns or raises")


def _why(exc: BaseException) -> str:
    return refusal(exc) if isinstance(exc, SlackApiError) else str(exc) or type(exc).__name__

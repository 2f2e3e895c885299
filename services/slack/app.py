"""The Bolt app: one object with the same handlers for Socket Mode and for signed requests.

Handlers are registered by :func:`services.slack.desk.register`. A retried delivery is acknowledged and acts no second time:
what identifies it is kept for the last :data:`KEPT` deliveries.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from slack_bolt.async_app import AsyncApp
from slack_bolt.middleware.async_middleware import AsyncMiddleware
from slack_bolt.request.async_request import AsyncBoltRequest
from slack_bolt.response import BoltResponse
from slack_sdk.web.async_client import AsyncWebClient

from services.daemon import Daemon
from services.fleet.registry import Registry
from services.fleet.slack import Slack
from services.slack.tokens import Tokens

log = structlog.get_logger()

#: Deliveries remembered: Slack repeats one for at most an hour.
KEPT = 10_000
#: Seconds that one call of the Web API may take.
_CALL_S = 10


class Parts:
    """What handlers work with."""

    def __init__(self, running: Daemon, registry: Registry, client: AsyncWebClient) -> None:
        self.running = running
        self.bus = running.bus
        self.registry = registry
        self.client = client


def client(tokens: Tokens, settings: Slack) -> AsyncWebClient:
    """The Web API; no call is repeated behind our back."""
    return AsyncWebClient(
        token=tokens.bot_token,
        base_url=settings.api_url.rstrip("/") + "/",
        timeout=_CALL_S,
        # A post that is repeated behind our back may be shown twice.
        retry_handlers=[],
        logger=quiet("systems.slack.client"),
    )


def build(web: AsyncWebClient, tokens: Tokens) -> AsyncApp:
    """The app, without handlers."""
    app = AsyncApp(
        client=web,
        # Bolt asks for one also where nothing is ever signed.
        signing_secret=tokens.signing_secret or "unused",
        logger=quiet("systems.slack.bolt"),
        raise_error_for_unhandled_request=False,
    )
    app.use(Once())
    return app


def delivery(body: dict[str, Any]) -> str:
    """What names one thing that a person did, the same in every repetition of it; empty for nothing that can be repeated."""
    return str(body.get("event_id") or body.get("trigger_id") or "")


class Once(AsyncMiddleware):
    """Of several deliveries of the same thing the first one acts, and all are acknowledged."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, None] = OrderedDict()

    async def async_process(
        self,
        *,
        req: AsyncBoltRequest,
        resp: BoltResponse,  # noqa: ARG002 (Bolt passes it by name)
        next: Callable[[], Awaitable[BoltResponse]],
    ) -> BoltResponse:
        """Go on with what is new."""
        name = delivery(req.body)
        if name in self._seen:
            log.info("slack_delivery_repeated", delivery=name)
            return BoltResponse(status=200, body="")
        if name:
            self._seen[name] = None
            if len(self._seen) > KEPT:
                self._seen.popitem(last=False)
        return await next()


def quiet(name: str) -> logging.Logger:
    """A logger of the library: what it has to say of its retries is said by our own events."""
    logger = logging.getLogger(name)
    logger.setLevel(logging.CRITICAL)
    return logger

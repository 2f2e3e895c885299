"""What a runner asks the warden when a claim finds no room: NATS requests ``quota.ask`` and ``quota.verify``.

The warden alone decides whether a cap has tripped, because it alone has the log folded. No answer is no permission: whoever
asks goes on waiting.
"""

from __future__ import annotations

from typing import Protocol

import msgspec
import structlog
from nats import errors as driver

from bus.connection import Connection
from bus.refusal import Refusal

log = structlog.get_logger()

#: Subjects of the warden's services.
ASK, VERIFY = "quota.ask", "quota.verify"
#: Seconds to wait for an answer.
_ANSWER_S = 5.0


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A claim found no room (``quota.ask``), or a counter that nobody has counted (``quota.verify``)."""

    key: str
    #: What did not fit: tokens, or millionths of a US dollar.
    needed: int = 0
    #: ``project/role`` of the claim.
    role: str = ""


class Warden(Protocol):
    """Who decides on caps."""

    async def ask(self, question: Question) -> Refusal | None:
        """A claim does not fit: a refusal when the cap has tripped; None: wait, what is held may come back."""
        ...

    async def verify(self, question: Question) -> None:
        """A counter is missing: have it counted from the log."""
        ...


class WardenClient:
    """The warden, over NATS."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def ask(self, question: Question) -> Refusal | None:
        """See :meth:`Warden.ask`. None too when no warden answers."""
        answer = await self._request(ASK, question)
        try:
            return None if answer is None or b'"wait"' in answer else msgspec.json.decode(answer, type=Refusal)
        except msgspec.DecodeError as exc:
            log.warning("quota_answer_unreadable", counter=question.key, error=str(exc))
            return None

    async def verify(self, question: Question) -> None:
        """See :meth:`Warden.verify`."""
        await self._request(VERIFY, question)

    async def _request(self, subject: str, question: Question) -> bytes | None:
        try:
            answer = await self._connection.nc.request(subject, msgspec.json.encode(question), timeout=_ANSWER_S)
        except (driver.Error, OSError) as exc:
            log.info("quota_unanswered", subject=subject, counter=question.key, error=repr(exc))
            return None
        return answer.data

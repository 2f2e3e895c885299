"""What an exception means: its kind, whether a retry can help, and which other errors it is one of.

Pure functions. They never raise, whatever the exception's own text does: a failure that cannot be recorded would be
a crash, and crashes are counted against the work.
"""

from __future__ import annotations

import hashlib
import re
import traceback

from bus.events.invocation import Error
from services.runner.handler import BadUsage, Permanent, RetryAfter

#: Characters; they bound the size of an event.
MESSAGE_LIMIT, DETAIL_LIMIT, KIND_LIMIT = 2_000, 4_000, 100

_QUOTED = re.compile(r"""(?<!\w)(?:'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|`[^`]*`)(?!\w)""")
_UUID = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", re.IGNORECASE)
#: Any word with a digit in it: numbers, ids in other alphabets.
_NUMBERED = re.compile(r"[+-]?\w*\d\w*")
#: Hexadecimal that happens to have no digit.
_LETTERED = re.compile(r"\b[a-f]{8,}\b", re.IGNORECASE)
#: What joins numbers into dates, addresses, versions, amounts.
_JOINED = re.compile(r"#(?:[-+.,:/]*#)+")


class HandlerError(Exception):
    """A failure that a handler has understood: it names its kind, and says whether and when a retry can help."""

    def __init__(
        self,
        kind: str,
        message: str,
        *,
        detail: str = "",
        permanent: bool = False,
        retry_after: float | None = None,
        guarded: bool = False,
    ) -> None:
        #: ``exit_1``, ``signal_9``, ``http_503``.
        self.kind = kind
        #: What the traceback would not tell: the end of stderr, the head of an answer.
        self.detail = detail
        self.permanent = permanent
        #: Seconds that the other side asked us to wait.
        self.retry_after = retry_after
        #: It says that a guard refused it; where one does, the work goes back to the queue at nobody's cost.
        self.guarded = guarded
        super().__init__(message)


def classify(exc: BaseException) -> tuple[Error, float | None]:
    """The error as it goes into the event, and the seconds that a retry must wait at least, if the error says so.

    A group of exceptions with one leaf is that leaf; one with several is permanent if any leaf is.
    """
    leaves = _leaves(exc)
    kind, message = _kind(exc), "; ".join(_text(leaf) for leaf in leaves)
    if len(leaves) == 1:
        kind = _kind(leaves[0])
    detail = exc.detail if isinstance(exc, HandlerError) else "".join(traceback.format_exception(exc))
    delays = [delay for leaf in leaves if (delay := _delay(leaf)) is not None]
    error = Error(
        kind=_clean(kind)[:KIND_LIMIT],
        message=_clip(_clean(message)),
        fingerprint=fingerprint(kind, message),
        permanent=any(_permanent(leaf) for leaf in leaves),
        detail=_clean(detail)[-DETAIL_LIMIT:],
    )
    return error, max(delays, default=None)


def fingerprint(kind: str, message: str) -> str:
    """12 hexadecimal digits that errors of one cause share.

    Quoted text, numbers, ids and addresses are taken out of the message first; the kind counts as it is.
    """
    text = message
    for pattern in (_QUOTED, _UUID, _NUMBERED, _LETTERED):
        text = pattern.sub("#", text)
    text = " ".join(_JOINED.sub("#", text).lower().split())
    return hashlib.sha256(f"{kind}\0{text}".encode(errors="replace")).hexdigest()[:12]


def _leaves(exc: BaseException) -> list[BaseException]:
    if not isinstance(exc, BaseExceptionGroup):
        return [exc]
    return [leaf for inner in exc.exceptions for leaf in _leaves(inner)]


def _kind(exc: BaseException) -> str:
    return exc.kind if isinstance(exc, HandlerError | BadUsage) else type(exc).__name__


def _permanent(exc: BaseException) -> bool:
    return isinstance(exc, Permanent) or (isinstance(exc, HandlerError) and exc.permanent)


def _delay(exc: BaseException) -> float | None:
    if isinstance(exc, RetryAfter):
        return exc.seconds
    return exc.retry_after if isinstance(exc, HandlerError) else None


def _text(exc: BaseException) -> str:
    try:
        text = str(exc).strip()
    except Exception as broken:  # noqa: BLE001 - the exception's own __str__ may do anything
        return f"{type(exc).__name__}, whose text cannot be read: {type(broken).__name__}"
    return text or f"{type(exc).__name__} without a message"


def _clean(text: str) -> str:
    """Without lone surrogates, which no JSON encoder takes."""
    return text.encode(errors="replace").decode()


def _clip(text: str) -> str:
    return text if len(text) <= MESSAGE_LIMIT else text[: MESSAGE_LIMIT - 1] + "…"

"""A guard's refusal as an HTTP answer: problem details (RFC 9457), with the refusal's own fields beside the usual ones.

Pure. Nothing here listens: it is for services that work for a fleet and ask its gate. What they answer with this, the
``http`` handler understands, and the work goes back to the queue at nobody's cost.
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

import msgspec

from bus.refusal import Reason, Refusal

#: Media type of such a body.
MEDIA_TYPE = "application/problem+json"
#: Begins the ``type`` of a refusal; its reason follows.
TYPE = "urn:systems:refusal:"
#: What the same request later does not mend; all else passes, and is 503 (429 is for a provider's own limits).
_FOR_GOOD = frozenset({Reason.STALE_CLAIM, Reason.LOOP, Reason.NO_PRICE})


class _Type(msgspec.Struct):
    type: str = ""


def status(refusal: Refusal) -> int:
    """HTTP status of an answer that refuses."""
    return 409 if refusal.reason in _FOR_GOOD else 503


def headers(refusal: Refusal, now: datetime) -> dict[str, str]:
    """Headers of an answer that refuses; ``Retry-After`` (whole seconds, rounded up) where an end is known."""
    made = {"Content-Type": MEDIA_TYPE}
    if refusal.until is not None:
        made["Retry-After"] = str(max(0, math.ceil((refusal.until - now).total_seconds())))
    return made


def body(refusal: Refusal) -> bytes:
    """The body: ``type``, ``title``, ``status``, ``detail`` (the sentence), and every field of the refusal."""
    fields: dict[str, Any] = {
        "type": TYPE + refusal.reason.value,
        "title": f"Refused: {refusal.reason.value.replace('_', ' ')}",
        "status": status(refusal),
        "detail": refusal.sentence,
    }
    return msgspec.json.encode(fields | msgspec.to_builtins(refusal))


def read(media_type: str, content: bytes) -> Refusal | None:
    """The refusal in an answer; None if it is none of ours."""
    if media_type.partition(";")[0].strip().lower() != MEDIA_TYPE:
        return None
    try:
        if not msgspec.json.decode(content, type=_Type).type.startswith(TYPE):
            return None
        return msgspec.json.decode(content, type=Refusal)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None

"""The requests that a completion carries: checked and fenced, to go into its atomic batch."""

from __future__ import annotations

import msgspec

from bus import errors
from bus.events.invocation import Completed, InvocationEvent
from bus.refusal import GuardRefused, Reason
from bus.store import INVOCATIONS, Append
from bus.subjects import parse_event
from services.fleet.schema import InputMismatch, NotJson
from services.requests.requests import Ask, Asker, RequestRefused
from services.runner.desk import Desk
from services.runner.handler import FOLLOW_UP_LIMIT, FollowUp, Permanent


async def drafts(desk: Desk, asker: Asker, wanted: tuple[FollowUp, ...]) -> list[Append]:
    """The members of the batch; what was asked before under the same key is left out.

    Raises:
        Permanent: one is refused for good, or there are too many.
        GuardRefused: nothing may be asked now.
    """
    if len(wanted) > FOLLOW_UP_LIMIT:
        raise Permanent(
            f"expected at most {FOLLOW_UP_LIMIT} follow-up requests from one completion, got: {len(wanted):,}; "
            "let a follow-up ask for the rest"
        )
    found: list[Append] = []
    for follow_up in wanted:
        ask = Ask(role=follow_up.role, input=follow_up.input, idempotency_key=follow_up.idempotency_key, asker=asker)
        try:
            draft = await desk.requests.draft(ask)
        except GuardRefused as exc:
            if exc.refusal.reason is Reason.LOOP:
                raise Permanent(f"a follow-up request was refused: {exc}") from exc
            raise
        except (RequestRefused, errors.UnknownName, errors.BadSubject, InputMismatch, NotJson) as exc:
            raise Permanent(f"a follow-up request was refused: {exc}") from exc
        if ask.idempotency_key and (
            # In one batch the server would take both: each fence is compared with the state before it.
            any(other.scope == draft.scope for other in found)
            or await desk.store.last(INVOCATIONS, draft.scope) is not None
        ):
            continue
        found.append(draft)
    return found


def named(decided: list[InvocationEvent], also: list[Append]) -> list[InvocationEvent]:
    """The completion with the ids of the requests that go into its batch."""
    ids = tuple(parse_event(item.event.subject)[0].id for item in also)
    return [
        msgspec.structs.replace(event, follow_ups=ids) if isinstance(event, Completed) else event for event in decided
    ]

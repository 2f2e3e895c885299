"""Results that an earlier boot of this home spooled and did not live to write: settled under the claim that it held."""

from __future__ import annotations

import structlog

from bus import errors, invocation, wire
from bus.invocation import Refused
from bus.invocations import last_id
from bus.store import fold
from services.requests.requests import Asker
from services.runner.desk import Desk
from services.runner.follow_ups import drafts, named
from services.runner.handler import Permanent
from services.runner.spool import Spooled

log = structlog.get_logger()


async def settle(desk: Desk) -> int:
    """Write what earlier boots have left: how many results that was.

    Raises:
        GuardRefused, StreamFrozen: frozen again; what is left stays in the spool.
        Unanswered: the server went away.
    """
    alive = {beat.boot_id for beat in await desk.liveness.all()}
    count = 0
    for file, spooled in desk.spool.left(alive):
        if await _settle(desk, spooled):
            file.unlink(missing_ok=True)
            count += 1
        else:
            desk.spool.aside(file)
    return count


async def _settle(desk: Desk, spooled: Spooled) -> bool:
    """Write one result: False when its claim does not stand any more."""
    ref = spooled.ref
    command = spooled.complete or spooled.fail
    assert command is not None
    limits = desk.registry.limits(ref.project, ref.role)
    while True:
        records = await desk.store.history(ref)
        state = fold(records)
        try:
            decided = invocation.decide(state, command, limits, desk.author.now())
            assert state is not None
            asker = Asker(ref=ref, root=state.request.root or ref.id, depth=state.request.depth, cause=last_id(records))
            also = await drafts(desk, asker, spooled.follow_ups)
            written = await desk.invocations.append(ref, state, named(decided, also), cause=last_id(records), also=also)
        except errors.SequenceConflict:
            continue
        except Refused as refused:
            log.error("spooled_result_stale", invocation=ref.id, reason=refused.reason.value, action="kept aside")
            return False
        except Permanent as exc:
            log.error("spooled_result_refused", invocation=ref.id, error=str(exc), action="kept aside")
            return False
        assert state.claim is not None
        retry_at = written.state.retry_at
        wait = (retry_at - desk.author.now()).total_seconds() if retry_at is not None else 0.0
        desk.answer(state.claim.reply, wire.ACK if retry_at is None else wire.nak(max(0.0, wait)))
        log.warning("spooled_result_settled", invocation=ref.id, holder=spooled.holder)
        return True

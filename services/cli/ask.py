"""Asking over NATS, as every agent and script does: the ``requests`` micro service, with headers.

Nobody there to answer means that nothing was asked: it is tried again for some seconds. A request that was sent and not
answered may have been accepted, so it is repeated only under an idempotency key.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping

import msgspec
from nats import errors as driver

from bus import errors, subjects
from bus.refusal import GuardRefused
from services.cli.exits import CommandFailed, Exit, status_of_kind
from services.cli.session import Session
from services.micro import No
from services.requests.requests import Accepted, Ask
from services.requests.service import ACTOR, DUE, KEY, PARENT

#: Seconds that the service may be away: a warden that is restarted is back within them.
AWAY_S = 5.0
#: Seconds for an answer; the service waits itself while the log's server is away.
ANSWER_S = 10.0
#: Bytes that the protocol needs around a payload.
_HEADROOM = 4096


def headers(session: Session, *, key: str, due: str, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The headers of a request. Inside an exec handler it is made by the running invocation, not by the login."""
    parent = environ.get("SYSTEMS_PARENT", "")
    actor = environ.get("SYSTEMS_ACTOR", "") if parent else session.actor
    found = {KEY: key, DUE: due, PARENT: parent, ACTOR: actor}
    return {name: value for name, value in found.items() if value}


async def ask(session: Session, role: str, content: bytes, *, key: str = "", due: str = "") -> Accepted:
    """Ask a role.

    Args:
        session: the connection.
        role: ``project/role``.
        content: input, JSON.
        key: idempotency key; empty for none.
        due: RFC 3339, or ``+SECONDS``; empty for now.

    Raises:
        CommandFailed: it was refused, or nobody is there to answer.
        errors.Unanswered: it was sent, and nobody knows what became of it.
    """
    project, name = subjects.parse_role(role)
    extra = headers(session, key=key, due=due)
    if len(content) > session.bus.connection.nc.max_payload - _HEADROOM:
        return await _by_hand(session, role, content, extra, key=key, due=due)
    loop = asyncio.get_running_loop()
    until = loop.time() + AWAY_S
    while True:
        try:
            answer = await session.bus.connection.nc.request(
                subjects.ask(project, name), content, timeout=ANSWER_S, headers=extra
            )
        except driver.NoRespondersError as exc:
            if loop.time() >= until:
                raise CommandFailed(
                    f"expected somebody to answer on {subjects.ask(project, name)}, got nobody for {AWAY_S:g} s: the warden, "
                    "which takes requests, does not run; see `systems status`",
                    Exit.UNREACHABLE,
                    "BusUnreachable",
                ) from exc
            await asyncio.sleep(0.1)
        except (driver.TimeoutError, driver.ConnectionClosedError) as exc:
            if key and loop.time() < until:
                continue
            raise _unknown(role, key) from exc
        else:
            return _read(answer.data, answer.headers or {})


def _unknown(role: str, key: str) -> errors.BusError:
    unanswered = errors.Unanswered(f"the request to {role}", ANSWER_S)
    how = (
        f"ask again with --key {key}, which gives the first invocation if there is one"
        if key
        else f"look with `systems tail 'inv.{role.replace('/', '.')}.>' --since 1m`, and use --key to be able to ask twice"
    )
    return CommandUnanswered(f"{unanswered}; {how}")


class CommandUnanswered(errors.BusUnreachable):
    """A request whose outcome is unknown, with what to do about it."""

    def __init__(self, sentence: str) -> None:
        errors.BusError.__init__(self, sentence)


def _read(data: bytes, answered: Mapping[str, str]) -> Accepted:
    if "Nats-Service-Error-Code" not in answered:
        return msgspec.json.decode(data, type=Accepted)
    no = msgspec.json.decode(data, type=No)
    if no.refusal is not None:
        raise GuardRefused(no.refusal)
    raise CommandFailed(no.reason, status_of_kind(no.refused), no.refused)


async def _by_hand(
    session: Session, role: str, content: bytes, extra: dict[str, str], *, key: str, due: str
) -> Accepted:
    """An input that no message can carry: the operator puts it into the artifacts himself."""
    limit = session.bus.connection.nc.max_payload - _HEADROOM
    if PARENT in extra:
        # A running invocation asks through the service, which checks whom it may ask.
        raise errors.PayloadTooLarge("the input of a request", len(content), limit)
    if due:
        raise errors.PayloadTooLarge("the input of a delayed request", len(content), limit)
    requests = await session.requests()
    return await requests.submit(
        Ask(role=role, input=msgspec.Raw(content), idempotency_key=key, actor=extra.get(ACTOR, ""))
    )

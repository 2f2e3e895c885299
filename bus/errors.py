"""Every error the bus raises.

::

    BusError
    ├── BusUnreachable          no server answers; wait, or start one
    │   └── Unanswered          one request got no answer in time; its outcome is unknown
    ├── ServerTooOld            the server lacks a feature; says which version has it
    ├── ServerError             the server refused an API request; carries its code
    │   ├── SequenceConflict    the fence: somebody appended before us
    │   ├── StreamFrozen        the server refuses writes to the stream
    │   └── StoreFull           the server has no room left
    ├── PermissionDenied        this login may not write there
    ├── PayloadTooLarge         an event over the limit; says what the limit is
    ├── BadSubject              a name that cannot be a subject token
    ├── BadEvent                bytes that are no event of ours
    ├── UnknownName             a role, project, daemon or context that does not exist; suggests one that does
    ├── Conflict                what was asked does not fit the present state
    ├── BadAsk                  what a person asks for makes no sense, whatever the state
    └── HomeUnusable            the state directory cannot be written, or belongs to another instance

A class keeps its facts as fields and builds its text from them: what was expected, what came, where, and the
remedy last. Driver errors are translated once, at the port, with ``from exc``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BusError(Exception):
    """Base of all errors of the bus."""


class BusUnreachable(BusError):
    """No NATS server answers at the address."""

    def __init__(
        self, url: str, why: str, remedy: str = "start the fleet with `systems up`, or name another server"
    ) -> None:
        self.url, self.why, self.remedy = url, why, remedy
        super().__init__(f"no NATS server answers at {url} ({why}); {remedy}")


class Unanswered(BusUnreachable):
    """One request got no answer in time: whether it was carried out is unknown."""

    def __init__(self, what: str, seconds: float) -> None:
        self.what, self.seconds = what, seconds
        BusError.__init__(self, f"expected an answer to {what} within {seconds:g} s, got none: its outcome is unknown")


class ServerTooOld(BusError):
    """The server lacks a feature that the bus is built on."""

    def __init__(self, version: str, needed: str, feature: str) -> None:
        self.version, self.needed, self.feature = version, needed, feature
        super().__init__(
            f"expected nats-server {needed} or newer ({feature}), got: {version}; "
            "upgrade the server, or leave out --server to use the embedded one"
        )


class ServerError(BusError):
    """The server refused a JetStream request."""

    def __init__(self, what: str, code: int, description: str) -> None:
        self.what, self.code, self.description = what, code, description
        super().__init__(f"{what} was refused by the server: {description} (code {code})")


class SequenceConflict(ServerError):
    """The fence held: the invocation has moved on since the expected sequence."""

    def __init__(self, what: str, code: int, description: str, expected: int | None = None) -> None:
        self.expected = expected
        super().__init__(what, code, description)


class StreamFrozen(ServerError):
    """The server refuses every write to the stream."""


class StoreFull(ServerError):
    """The server has no room left: nothing is stored until a person makes some."""

    def __init__(self, what: str, code: int, description: str) -> None:
        super().__init__(
            what,
            code,
            f"{description}; free space on its disk, then restart nats-server (it measures its disk when it starts)",
        )


class PermissionDenied(BusError):
    """The server does not let this login write to a subject."""

    def __init__(self, subject: str) -> None:
        self.subject = subject
        super().__init__(
            f"this login may not write to {subject}; who may is in infra/nats/users.toml, and a person's own login is that of `systems env`"
        )


class PayloadTooLarge(BusError):
    """An event is larger than the server takes."""

    def __init__(self, what: str, size: int, limit: int) -> None:
        self.what, self.size, self.limit = what, size, limit
        super().__init__(
            f"expected {what} to be at most {limit:,} bytes, got: {size:,}; put the bulk into an artifact and pass its reference"
        )


class BadSubject(BusError):
    """A name cannot become a subject token."""

    def __init__(self, what: str, value: str, rule: str) -> None:
        self.what, self.value, self.rule = what, value, rule
        super().__init__(f"expected {what} to match {rule}, got: {value!r}")


class BadEvent(BusError):
    """Bytes that cannot be read as an event. Never stops a consumer: it is reported and stepped over."""

    def __init__(self, where: str, why: str) -> None:
        self.where, self.why = where, why
        super().__init__(f"expected an event at {where}, got something else: {why}")


class UnknownName(BusError):
    """A name that nothing answers to."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.kind, self.name, self.known = kind, name, sorted(known)
        super().__init__(f"unknown {kind} {name!r}{did_you_mean(name, self.known)}")


class Conflict(BusError):
    """What was asked does not fit the present state of the thing."""


class BadAsk(BusError):
    """What a person asks for makes no sense, whatever the state: says what was expected."""


class HomeUnusable(BusError):
    """The state directory cannot be used."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The tail of an error sentence: the closest known name, or the whole list when it is short."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f", did you mean {close[0]!r}?"
    if names and len(names) <= 20:
        return f", expected one of: {', '.join(names)}"
    return ""

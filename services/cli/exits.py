"""Exit codes: what a script learns from a command without reading its output.

An error is mapped by the name of its class, so that nothing has to be imported to know it, and so that a refusal that came
over NATS (which carries the name) ends like one that was raised here.
"""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Status of the process, the same for every command."""

    #: Done, or nominal.
    DONE = 0
    #: A concern, or a refused request.
    REFUSED = 1
    #: Ultra, or a failure.
    FAILED = 2
    #: The command line, or a file or name that it gave, is wrong.
    USAGE = 64
    #: The bus is not reachable.
    UNREACHABLE = 69
    #: Refused for now: frozen, capped, paused, or not done in time.
    LATER = 75
    #: Stopped by Ctrl-C.
    INTERRUPTED = 130


#: What each code means, for `systems --help` and docs/cli.md.
MEANINGS: dict[Exit, str] = {
    Exit.DONE: "done, or nominal",
    Exit.REFUSED: "a concern, a refused request, or differences found by plan",
    Exit.FAILED: "ultra, or a failure",
    Exit.USAGE: "usage error: an unknown command, option, role or invocation, or a file with problems",
    Exit.UNREACHABLE: "the bus is not reachable",
    Exit.LATER: "refused for now (frozen, capped, paused), or not done in time",
    Exit.INTERRUPTED: "stopped by Ctrl-C",
}

#: Class of an error -> status. A class that is not named here is looked up by its bases; the last word is FAILED.
STATUSES: dict[str, Exit] = {
    "UnknownName": Exit.USAGE,
    "BadSubject": Exit.USAGE,
    "BadAsk": Exit.USAGE,
    "NotJson": Exit.USAGE,
    "BadDuration": Exit.USAGE,
    "BadSetting": Exit.USAGE,
    "BadPath": Exit.USAGE,
    "FleetFileError": Exit.USAGE,
    "TraceFileError": Exit.USAGE,
    "BadTokens": Exit.USAGE,
    "PrimaryInvalidated": Exit.LATER,
    "PrimaryUnready": Exit.LATER,
    "TablesAway": Exit.LATER,
    "NoSuchPast": Exit.USAGE,
    "NamedQueryError": Exit.USAGE,
    "BadQuestion": Exit.USAGE,
    "QueryMistake": Exit.USAGE,
    "Unmergeable": Exit.USAGE,
    "QueryRefused": Exit.REFUSED,
    "QueryTooLarge": Exit.REFUSED,
    "QueryTooLong": Exit.LATER,
    "Silent": Exit.LATER,
    "QueryCancelled": Exit.LATER,
    "InputMismatch": Exit.REFUSED,
    "RequestRefused": Exit.REFUSED,
    "Refused": Exit.REFUSED,
    "ActionRefused": Exit.REFUSED,
    "Conflict": Exit.REFUSED,
    "PayloadTooLarge": Exit.REFUSED,
    "PermissionDenied": Exit.REFUSED,
    "SequenceConflict": Exit.REFUSED,
    "GuardRefused": Exit.LATER,
    "HardFreeze": Exit.LATER,
    "RaiseRefused": Exit.LATER,
    "StreamFrozen": Exit.LATER,
    "StoreFull": Exit.LATER,
    "FrozenShape": Exit.LATER,
    "BusUnreachable": Exit.UNREACHABLE,
}


#: Reasons of a guard that no waiting helps against.
_FOR_GOOD = frozenset({"stale_claim", "loop", "no_price"})


class CommandFailed(Exception):
    """The end of a command with a sentence and a status of its own."""

    def __init__(self, sentence: str, status: Exit, kind: str = "") -> None:
        self.status = status
        #: Name of the error in JSON output; of the remote error's class, if it was one.
        self.kind = kind or type(self).__name__
        super().__init__(sentence)


class UsageError(CommandFailed):
    """The command line asks for something that makes no sense."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, Exit.USAGE)


def status_of(error: BaseException) -> Exit:
    """The status that an error ends the process with."""
    if isinstance(error, CommandFailed):
        return error.status
    refusal = getattr(error, "refusal", None)
    if refusal is not None and refusal.reason in _FOR_GOOD:
        return Exit.REFUSED
    return status_of_kind(*(base.__name__ for base in type(error).__mro__))


def status_of_kind(*names: str) -> Exit:
    """The status of the first of these class names that is known; FAILED for none."""
    return next((STATUSES[name] for name in names if name in STATUSES), Exit.FAILED)

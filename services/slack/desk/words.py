"""What follows ``/systems``, read into a command: the words and options of the command line, as people type them in Slack. Pure.

Slack changes what is typed: ``&``, ``<`` and ``>`` come as entities, a phone makes ``—`` of two hyphens and ``“`` of a quotation
mark, a mention comes as ``<@U123|ann>``. All of that is undone here. What is said last without an option is the reason, so
``/systems pause shop/coder it loops`` needs no quotation marks.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable

import msgspec

from bus.errors import BadAsk, did_you_mean
from services.slack.desk.permission import Permission

_ENTITIES = (("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&"))
#: Curly quotation marks and apostrophes, low ones, and the blank that does not break.
_QUOTES = str.maketrans(dict(zip("\u201c\u201d\u201e\u2018\u2019\u00a0", '"""\'\' ', strict=True)))
#: What a keyboard makes of ``--`` before a word.
_DASHES = re.compile(r"(?:^|(?<=\s))[\u2014\u2013](?=[a-z])")
_MENTION = re.compile(r"<@([UW][A-Z0-9]+)(?:\|[^>]*)?>")
_CHANNEL = re.compile(r"<#C[A-Z0-9]+\|([^>]*)>")
#: A link that Slack has made of a word: ``<http://host|host>``.
_LINK = re.compile(r"<(?:https?://|mailto:)[^|>]*\|([^>]*)>|<((?:https?://)[^|>]*)>")
_FENCE = re.compile(r"^`{3}(?:sql\b)?|`{3}$|^`|`$")


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """One command."""

    name: str
    #: What somebody must have to run it.
    needs: Permission
    #: What follows its name, for people.
    usage: str
    help: str
    #: It changes something: it is on the record, and a repeated delivery does nothing.
    acts: bool = False
    #: Options with a value, and those without.
    options: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    #: Words before the reason, at least and at most.
    least: int = 0
    most: int = 0
    #: Whether it takes a reason: the option ``--reason``, or the words that are left over.
    reason: bool = False
    #: It cannot do without one.
    must: bool = False
    #: The rest of the line is its one word, as it stands.
    whole: bool = False

    @property
    def line(self) -> str:
        """Name and usage."""
        return f"{self.name} {self.usage}".strip()


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody typed, read."""

    spec: Spec
    words: tuple[str, ...] = ()
    options: dict[str, str] = {}
    flags: frozenset[str] = frozenset()
    reason: str = ""

    def word(self, place: int) -> str:
        """A word by its place; empty for none."""
        return self.words[place] if place < len(self.words) else ""

    def option(self, name: str) -> str:
        """An option's value; empty for none."""
        return self.options.get(name, "")


_VIEW, _OPERATE, _FREEZE, _HARD = Permission.VIEW, Permission.OPERATE, Permission.FREEZE, Permission.HARD
_INCIDENT = Permission.INCIDENT
_CHOSEN = ("role", "fingerprint", "older-than", "limit")


def _act(name: str, needs: Permission, usage: str, help_: str, least: int = 0, most: int = 0, **more: object) -> Spec:
    fields = {"reason": True, "must": True, **more}
    return msgspec.convert(
        {"name": name, "needs": needs, "usage": usage, "help": help_, "acts": True, "least": least, "most": most}
        | fields,
        Spec,
    )


_LISTED = (
    Spec(name="status", needs=_VIEW, usage="", help="The fleet-health panel."),
    Spec(name="sweep", needs=_VIEW, usage="", help="Look at the whole fleet now, and list what is wrong."),
    Spec(name="roles", needs=_VIEW, usage="[PROJECT/ROLE]", help="The roles and who works for them.", most=1),
    Spec(name="quota", needs=_VIEW, usage="", help="Every cap: used, held, how fast, when it will be reached."),
    Spec(
        name="dlq",
        needs=_VIEW,
        usage="[PROJECT/ROLE] [--fingerprint F] [--older-than 1h] [--limit N]",
        help="The dead letters, the oldest first.",
        options=_CHOSEN,
        most=1,
    ),
    Spec(name="dlq show", needs=_VIEW, usage="ID", help="A dead letter whole.", least=1, most=1),
    Spec(name="limits", needs=_VIEW, usage="", help="What is bounded, and what stays with a person."),
    Spec(name="chart", needs=_VIEW, usage="backlog|spend|errors", help="A picture of the last hours.", least=1, most=1),
    Spec(
        name="query",
        needs=_VIEW,
        usage="[NAME] [PARAMETER=VALUE …]",
        help="A named query; without a name, all of them.",
        most=20,
    ),
    Spec(name="sql", needs=Permission.SQL, usage="STATEMENT", help="Ask the tables anything.", whole=True, least=1),
    Spec(name="help", needs=_VIEW, usage="[COMMAND]", help="This list, or one command of it.", most=3),
    _act("freeze", _FREEZE, "REASON [--for 30m]", "Stop every write of the fleet, now.", options=("for",)),
    _act(
        "freeze hard",
        _HARD,
        "REASON --confirm hard",
        "The same, and only a person clears it.",
        options=("confirm",),
    ),
    _act("thaw", _FREEZE, "REASON [--ramp N]", "Let a frozen fleet go on.", options=("ramp",)),
    _act(
        "thaw hard",
        _HARD,
        "REASON --confirm thaw [--ramp N]",
        "Clear a hard freeze too.",
        options=("ramp", "confirm"),
    ),
    _act("pause", _OPERATE, "PROJECT/ROLE REASON [--for 2h]", "Hand out no more work of a role.", 1, 1, options=("for",)),
    _act("resume", _OPERATE, "PROJECT/ROLE [REASON]", "Hand out a paused role's work again.", 1, 1, must=False),
    _act("restart", _OPERATE, "DAEMON REASON", "Drain, stop and start a daemon.", 1, 1),
    _act("reload", _OPERATE, "[REASON]", "Take the fleet file while the fleet runs.", must=False, flags=("exactly",)),
    _act(
        "deploy",
        _OPERATE,
        "RELEASE|installed REASON [--plan] [--again] [--watch 2m]",
        "Roll a release that is there out, one daemon after the other.",
        1,
        1,
        options=("watch",),
        flags=("plan", "again"),
    ),
    _act(
        "redrive",
        _OPERATE,
        "[ID …] REASON [--role R] [--fingerprint F] [--older-than 1h] [--limit N]",
        "Send dead letters back to work with fresh attempts.",
        0,
        50,
        options=_CHOSEN,
    ),
    _act(
        "discard",
        _OPERATE,
        "[ID …] REASON [--role R] [--fingerprint F] [--older-than 1h] [--limit N]",
        "Give dead letters up for good.",
        0,
        50,
        options=_CHOSEN,
    ),
    _act(
        "quota raise",
        _OPERATE,
        "SCOPE TO REASON [--window W] [--unit U] [--until 8h]",
        "Raise a cap.",
        2,
        2,
        options=("window", "unit", "until"),
    ),
    _act(
        "quota set",
        _OPERATE,
        "SCOPE CAP WINDOW REASON [--unit U] [--until 8h]",
        "Set a cap.",
        3,
        3,
        options=("unit", "until"),
    ),
    Spec(name="incident ls", needs=_VIEW, usage="", help="The open incidents.", flags=("all",)),
    Spec(name="incident show", needs=_VIEW, usage="NUMBER", help="An incident and its timeline.", least=1, most=1),
    _act("incident declare", _INCIDENT, "concern|ultra TITLE", "Open an incident.", 1, 1),
    _act("incident ack", _INCIDENT, "NUMBER [--for 30m] [--take]", "Have it: nobody is paged meanwhile.", 1, 1, reason=False, must=False, options=("for",), flags=("take",)),
    _act("incident update", _INCIDENT, "NUMBER TEXT", "Tell everybody who is affected.", 1, 1),
    _act("incident note", _INCIDENT, "NUMBER TEXT", "Add to the timeline.", 1, 1),
    _act("incident assign", _INCIDENT, "NUMBER [@PERSON]", "Put somebody in command; without a name, yourself.", 1, 2, reason=False, must=False),
    _act("incident severity", _INCIDENT, "NUMBER concern|ultra [WHY]", "Say how bad it is.", 2, 2, must=False),
    _act("incident mitigate", _INCIDENT, "NUMBER [TEXT]", "Say that it does no more harm.", 1, 1, must=False),
    _act("incident close", _INCIDENT, "NUMBER CAUSE", "Say that it is over.", 1, 1),
    _act("incident reopen", _INCIDENT, "NUMBER WHY", "Say that it is not over.", 1, 1),
)  # fmt: skip

#: Every command by its name; those of two words too.
COMMANDS: dict[str, Spec] = {spec.name: spec for spec in _LISTED}
_FIRST = sorted({name.split()[0] for name in COMMANDS})


def plain(text: str) -> str:
    """What was typed, without what Slack and keyboards have made of it."""
    text = _LINK.sub(lambda found: found[1] or found[2], _CHANNEL.sub(r"#\1", _MENTION.sub(r"@\1", text)))
    for entity, sign in _ENTITIES:
        text = text.replace(entity, sign)
    return _DASHES.sub("--", text.translate(_QUOTES)).strip()


def read(text: str) -> Said:
    """What somebody typed behind ``/systems``; nothing is a call for help.

    Raises:
        BadAsk: it is no command, or lacks something; says what was expected, and what is near.
    """
    typed = plain(text)
    spec, rest = _spec(typed)
    if spec.whole:
        statement = _FENCE.sub("", _FENCE.sub("", rest.strip())).strip()
        if not statement:
            raise BadAsk(_expected(spec, "nothing"))
        return Said(spec=spec, words=(statement,))
    tokens = _tokens(rest, spec)
    words, options, flags, reason = _sorted(tokens, spec)
    if spec.reason and not reason:
        words, reason = _split(words, spec)
    if len(words) < spec.least or len(words) > spec.most:
        raise BadAsk(_expected(spec, " ".join(words) or "nothing"))
    if spec.must and not reason:
        raise BadAsk(_expected(spec, "no reason; it goes into the record, with your name"))
    return Said(spec=spec, words=tuple(words), options=options, flags=flags, reason=reason)


def _spec(typed: str) -> tuple[Spec, str]:
    """The command, and what follows its name."""
    first, _, rest = typed.partition(" ")
    first = first.lower()
    if not first:
        return COMMANDS["help"], ""
    second, _, after = rest.strip().partition(" ")
    if f"{first} {second.lower()}" in COMMANDS:
        return COMMANDS[f"{first} {second.lower()}"], after
    if "--hard" in rest.split() and f"{first} hard" in COMMANDS:
        return COMMANDS[f"{first} hard"], " ".join(word for word in rest.split() if word != "--hard")
    if first in COMMANDS and not (first == "dlq" and second in ("redrive", "discard")):
        return COMMANDS[first], rest
    if first == "dlq":
        return COMMANDS[second], after  # the way the command line says it
    below = [name.split()[1] for name in COMMANDS if name.startswith(f"{first} ")]
    if below and not second:
        return COMMANDS[f"{first} ls"], ""
    if below:
        raise BadAsk(f"unknown command {f'{first} {second}'!r}{did_you_mean(second, below)}")
    hint = did_you_mean(first, _FIRST) or "; /systems help lists them all"
    raise BadAsk(f"unknown command {first!r}{hint}")


def _tokens(rest: str, spec: Spec) -> list[str]:
    try:
        return shlex.split(rest)
    except ValueError:
        if rest.count('"') % 2:
            raise BadAsk(f"expected quotation marks in pairs, got: {rest.count(chr(34))}; {usage(spec)}") from None
        return rest.split()  # an apostrophe, as in: it doesn't stop


def _sorted(tokens: Iterable[str], spec: Spec) -> tuple[list[str], dict[str, str], frozenset[str], str]:
    """Words, options, flags, and the reason where ``--reason`` names it."""
    words: list[str] = []
    options: dict[str, str] = {}
    flags: set[str] = set()
    reason: list[str] = []
    into: list[str] | None = None
    given = list(tokens)
    known = [*spec.options, *spec.flags, *(("reason",) if spec.reason else ())]
    place = 0
    while place < len(given):
        token = given[place]
        place += 1
        if not token.startswith("--") or len(token) == 2:
            (words if into is None else into).append(token)
            continue
        name, equals, value = token[2:].partition("=")
        if name == "reason" and spec.reason:
            into = reason
            reason += [value] if equals else []
            continue
        into = None
        if name in spec.flags:
            flags.add(name)
        elif name not in spec.options:
            hint = did_you_mean(name, known) if known else f"; {spec.name} takes no options"
            raise BadAsk(f"unknown option {'--' + name!r}{hint}")
        elif equals:
            options[name] = value
        elif place < len(given):
            options[name] = given[place]
            place += 1
        else:
            raise BadAsk(f"expected a value behind --{name}, got: nothing; {usage(spec)}")
    return words, options, frozenset(flags), " ".join(reason).strip()


_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def _split(words: list[str], spec: Spec) -> tuple[list[str], str]:
    """Where the words end and the reason begins."""
    end = spec.most
    if spec.most > spec.least:
        # As many ids as there are; whatever is none begins the reason.
        end = next((place for place, word in enumerate(words) if not _ID.fullmatch(word)), len(words))
    return words[:end], " ".join(words[end:]).strip()


def is_id(word: str) -> bool:
    """Whether a word is an invocation's id."""
    return _ID.fullmatch(word) is not None


def usage(spec: Spec) -> str:
    """How a command is written."""
    return f"write /systems {spec.line}"


def _expected(spec: Spec, got: str) -> str:
    return f"expected /systems {spec.line}, got: {got}"


def mentioned(word: str) -> str:
    """The Slack user of a mention; empty for none."""
    found = re.fullmatch(r"@([UW][A-Z0-9]+)", word)
    return found[1] if found else ""

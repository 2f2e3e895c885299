"""Reads the tables of a fleet file into Structs, and goes on after a fault to find the others."""

from __future__ import annotations

import math
import re
import typing
from datetime import date, time
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import msgspec

from bus import errors
from services.fleet import checks, durations, place
from services.fleet.daemons import Restart, Watchdog
from services.fleet.duty import Incidents, Rotation, Step
from services.fleet.operations import Deploying, Drills
from services.fleet.slack import Rule, Slack
from services.fleet.spec import (
    Archive,
    Backoff,
    Cap,
    Fleet,
    Handler,
    Monitor,
    Price,
    Project,
    Projector,
    Prompt,
    Role,
    Schedule,
)

#: Bytes of a prompt: the event that records a change of the registry holds the whole text, and the server takes 1 MB.
PROMPT_LIMIT = 512 * 1024
#: Characters of a value that a sentence shows.
_SHOWN = 80
#: Seconds that may be written as "90s".
_DURATIONS = {
    (Role, "timeout"),
    (Role, "progress_timeout"),
    (Role, "ack_wait"),
    (Role, "grace"),
    (Backoff, "base"),
    (Backoff, "cap"),
    (Schedule, "catch_up"),
    (Restart, "period"),
    (Watchdog, "silent"),
    (Watchdog, "busy"),
    (Drills, "every"),
    (Deploying, "watch"),
    (Projector, "publish"),
    (Archive, "hot"),
    (Monitor, "every"),
    (Monitor, "grace"),
    (Monitor, "look"),
    (Monitor, "loop_lag"),
    (Monitor, "claim_age"),
    (Monitor, "dead_letter_age"),
    (Monitor, "lately"),
    (Monitor, "projection_lag"),
    (Monitor, "clock_skew"),
    (Monitor, "certificate"),
    (Monitor, "drill_age"),
    (Monitor, "raise_stands"),
    (Rotation, "every"),
    (Step, "after"),
    (Step, "repeat"),
    (Incidents, "acknowledged_for"),
    (Incidents, "update_every"),
    (Incidents, "reopen_within"),
    (Incidents, "call_timeout"),
    (Incidents, "answer_within"),
    (Incidents, "retry"),
    (Incidents, "retry_longest"),
    (Slack, "patience"),
}
_HANDLERS: dict[str, type[msgspec.Struct]] = {
    str(kind.__struct_config__.tag): kind for kind in typing.get_args(Handler)
}
#: What a table that holds named tables holds, by the names of the field.
_NAMED = {
    "projects": "a project name",
    "roles": "a role name",
    "prompts": "a prompt name",
    "schedules": "a schedule name",
    "prices": "a model name",
    "people": "a person's name",
    "rotations": "a rotation's name",
    "hours": "a name of hours",
    "escalation": "a policy's name",
}
#: Arrays of tables, with an example of each.
_ARRAYS: dict[type[msgspec.Struct], str] = {
    Cap: "caps, as [{ cap = 2_000_000, window = 'day' }]",
    Step: "steps, as [{ whom = ['ann'], after = '5m' }]",
    Rule: "rules, as [{ channel = '#fleet', events = ['finding.*'] }]",
}
_REMEDIES = {
    (Role, "ack_wait"): "that long a dead holder keeps its work, and within it a living one renews its claim; "
    "a handler that takes longer than it need only report progress",
    (Cap, "cap"): "write it out, as 2_000_000 for tokens, or 2.50 with unit = 'usd' for US dollars",
    (Price, "input"): "it is US dollars per million tokens, as 0.15",
    (Price, "output"): "it is US dollars per million tokens, as 0.60",
    (Project, "owners"): "write them as an array: owners = ['ann@example.com']",
}
_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "bool": "true or false",
    "array": "an array",
    "object": "a table",
}
_EXPECTED = re.compile(
    r"Expected `(?P<type>\w+)(?: \| null)?`(?P<rule>[^,]*?)(?:, got `\w+`)?(?: - at `\$(?P<at>.*)`)?"
)
_BAD: Any = object()


class Problem(msgspec.Struct, frozen=True):
    """One fault of a fleet file."""

    #: From 1; 0 when it is about the file as a whole.
    line: int
    #: Dotted key path; empty when no key is meant.
    path: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.path}: {self.sentence}" if self.path else self.sentence


def no_utf8(exc: UnicodeDecodeError) -> Problem:
    """Where a text stops being UTF-8."""
    line = exc.object.count(b"\n", 0, exc.start) + 1
    column = exc.start - exc.object.rfind(b"\n", 0, exc.start)
    sentence = f"expected UTF-8, got: byte {exc.object[exc.start]:#04x} at column {column}; save the file as UTF-8"
    return Problem(line, "", sentence)


class Reader:
    """Reads tables into Structs, and goes on after a fault to find the others."""

    def __init__(
        self,
        file: Path,
        raw: dict[str, Any],
        lines: dict[place.Path, int] | None,
        known: checks.Known | None = None,
    ) -> None:
        """Without `lines` the tables come from no file, and problems name no line."""
        self._folder = file.resolve().parent
        self._raw = raw
        self._lines = lines
        self.problems: list[Problem] = []
        #: The files that prompts were read from.
        self.files: list[str] = []
        self._known = known or checks.Known(
            {
                name: set(_tables(_tables(project).get("roles")))
                for name, project in _tables(raw.get("projects")).items()
            },
            set(_tables(raw.get("prompts"))),
        )

    def fleet(self) -> Fleet:
        """The whole file; to be used only if there are no problems."""
        found = self._table(Fleet, self._raw, ())
        return Fleet() if found is _BAD else found

    def value(self, kind: type[msgspec.Struct]) -> Any:
        """The whole as another kind of table; to be used only if there are no problems."""
        return self._table(kind, self._raw, ())

    def _wrong(self, path: place.Path, sentence: str) -> Any:
        line = 0 if self._lines is None else place.line_of(self._lines, path)
        self.problems.append(Problem(line, _dotted(path), sentence))
        return _BAD

    def _table(self, kind: type[msgspec.Struct], raw: Any, path: place.Path, tag: str = "") -> Any:
        """A table as its Struct, or `_BAD` after reporting why not."""
        if not isinstance(raw, dict):
            return self._wrong(path, f"expected a table, got: {_show(raw)}")
        before = len(self.problems)
        fields = {field.name: field for field in msgspec.structs.fields(kind)}
        values: dict[str, Any] = {}
        for key, value in raw.items():
            if key == tag:
                continue
            if key not in fields:
                self._wrong((*path, key), f"unknown key {key!r}{errors.did_you_mean(key, fields)}")
                continue
            found = self._field(kind, fields[key], value, (*path, key))
            if found is not _BAD:
                values[key] = found
        for name, field in fields.items():
            if field.required and name not in raw:
                self._wrong(path, f"expected the key {name!r}, got none{self._example(field.type)}")
        check = checks.CHECKS.get(kind)
        if check is not None:
            check(values, self._known, lambda below, sentence: self._wrong((*path, *below), sentence))
        return _BAD if len(self.problems) > before else kind(**values)

    @staticmethod
    def _example(kind: Any) -> str:
        return f"; say what runs it, as handler = {{ kind = {next(iter(_HANDLERS))!r}, … }}" if kind == Handler else ""

    def _field(self, table: type[msgspec.Struct], field: Any, raw: Any, path: place.Path) -> Any:
        kind = field.type
        if kind == Handler:
            return self._handler(raw, path)
        if kind is not Any and isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            return self._table(kind, raw, path)
        if typing.get_origin(kind) is dict and field.name in _NAMED:
            return self._named(typing.get_args(kind)[1], _NAMED[field.name], raw, path)
        items = _items(kind)
        if items is not None:
            return self._array(items, raw, path)
        if (table, field.name) in _DURATIONS:
            try:
                raw = durations.seconds(raw)
            except durations.BadDuration as exc:
                return self._wrong(path, str(exc))
        remedy = _REMEDIES.get((table, field.name), "")
        return self._plain(kind, raw, path, f"; {remedy}" if remedy else "")

    def _handler(self, raw: Any, path: place.Path) -> Any:
        if not isinstance(raw, dict):
            return self._wrong(path, f"expected a table with a kind, got: {_show(raw)}")
        kind = raw.get("kind")
        if kind is None:
            return self._wrong(path, f"expected the key 'kind', one of {', '.join(sorted(_HANDLERS))}, got none")
        if not isinstance(kind, str) or kind not in _HANDLERS:
            return self._wrong(
                (*path, "kind"), f"unknown kind {_show(kind)}{errors.did_you_mean(str(kind), _HANDLERS)}"
            )
        return self._table(_HANDLERS[kind], raw, path, tag="kind")

    def _named(self, kind: type[msgspec.Struct], what: str, raw: Any, path: place.Path) -> Any:
        """A table of tables, each under a name; those without fault, for the checks that look at them."""
        if not isinstance(raw, dict):
            return self._wrong(path, f"expected a table, got: {_show(raw)}")
        found: dict[str, Any] = {}
        for name, value in raw.items():
            fault = checks.name_fault(what, name)
            if fault:
                self._wrong((*path, name), fault)
            read = self._table(kind, value, (*path, name))
            if kind is Prompt and read is not _BAD:
                read = self._prompt(read, (*path, name))
            if read is not _BAD:
                found[name] = read
        return found

    def _array(self, kind: type[msgspec.Struct], raw: Any, path: place.Path) -> Any:
        """An array of tables, each looked at by itself."""
        if not isinstance(raw, list):
            return self._wrong(path, f"expected an array of {_ARRAYS[kind]}, got: {_show(raw)}")
        found = tuple(self._table(kind, value, (*path, number)) for number, value in enumerate(raw))
        return _BAD if any(one is _BAD for one in found) else found

    def _prompt(self, prompt: Prompt, path: place.Path) -> Any:
        """The prompt with its text, wherever that stands."""
        if bool(prompt.text) == bool(prompt.file):
            got = "both" if prompt.text else "neither"
            return self._wrong(path, f"expected either text or file, with something in it, got: {got}")
        if prompt.text:
            raw, key = prompt.text.encode(), "text"
        else:
            key = "file"
            self.files.append(prompt.file)
            try:
                raw = (self._folder / prompt.file).read_bytes()
            except (OSError, ValueError) as exc:
                why = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
                known = [str(p.relative_to(self._folder)) for p in (self._folder / prompt.file).parent.glob("*")]
                hint = errors.did_you_mean(prompt.file, known) if isinstance(exc, FileNotFoundError) else ""
                return self._wrong((*path, key), f"expected a file that can be read, got: {prompt.file!r}: {why}{hint}")
        if len(raw) > PROMPT_LIMIT:
            sentence = f"expected a prompt of at most {PROMPT_LIMIT:,} bytes, got: {len(raw):,}; pass the bulk as input instead"
            return self._wrong((*path, key), sentence)
        try:
            text = raw.decode()
        except UnicodeDecodeError as exc:
            fault = no_utf8(exc)
            return self._wrong((*path, key), f"{fault.sentence} (line {fault.line} of {prompt.file})")
        return (
            Prompt(text=text)
            if text
            else self._wrong((*path, key), f"expected a prompt in {prompt.file!r}, got: nothing")
        )

    def _plain(self, kind: Any, raw: Any, path: place.Path, remedy: str) -> Any:
        """A value that is no table of ours."""
        inner = typing.get_args(kind)[0] if typing.get_origin(kind) is Annotated else kind
        if isinstance(inner, type) and issubclass(inner, Enum):
            known = [member.value for member in inner]
            if raw not in known:
                return self._wrong(path, f"unknown {path[-1]} {_show(raw)}{errors.did_you_mean(str(raw), known)}")
            return inner(raw)
        try:
            value = msgspec.convert(raw, kind)
        except msgspec.ValidationError as exc:
            return self._refused(str(exc), raw, path, remedy)
        before = len(self.problems)
        self._check_json(value, path)
        return _BAD if len(self.problems) > before else value

    def _refused(self, message: str, raw: Any, path: place.Path, remedy: str) -> Any:
        """A refusal by msgspec in words, at the item that it is about."""
        match = _EXPECTED.fullmatch(message)
        if match is None:
            return self._wrong(path, f"{message[:1].lower()}{message[1:]}, got: {_show(raw)}{remedy}")
        for number, key in re.findall(r"\[(\d+)\]|\.(\w+)", match["at"] or ""):
            raw = raw[int(number)] if number else raw[key]
            path = (*path, int(number) if number else key)
        rule = match["rule"].replace(">= ", "of at least ").replace("<= ", "of at most ").replace("> ", "above ")
        rule = rule.replace("of length of", "with a length of")
        each = "each value to be " if "[...]" in (match["at"] or "") else ""
        word = _WORDS.get(match["type"], match["type"])
        return self._wrong(path, f"expected {each}{word}{rule}, got: {_show(raw)}{remedy}")

    def _check_json(self, value: Any, path: place.Path) -> None:
        """Report what TOML can say and JSON, in which the registry is kept, cannot."""
        match value:
            case dict():
                for key, item in value.items():
                    self._check_json(item, (*path, key))
            case list():
                for number, item in enumerate(value):
                    self._check_json(item, (*path, number))
            case date() | time():
                self._wrong(path, f"expected a JSON value, got a date or time: {value}; put it in quotes")
            case float() if not math.isfinite(value):
                self._wrong(path, f"expected a finite number, got: {value}")


def _items(kind: Any) -> type[msgspec.Struct] | None:
    """The table that an array consists of; None for what is no array of tables."""
    inner = typing.get_args(kind)[0] if typing.get_origin(kind) is Annotated else kind
    arguments = typing.get_args(inner)
    item = arguments[0] if typing.get_origin(inner) is tuple and len(arguments) == 2 else None
    return item if item in _ARRAYS else None


def _tables(raw: Any) -> dict[str, Any]:
    return raw if isinstance(raw, dict) else {}


def _dotted(path: place.Path) -> str:
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            word = part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else msgspec.json.encode(part).decode()
            text += f".{word}" if text else word
    return text


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"

"""What the documents name is there: files, functions, commands, options, events, links, and fleet files that load."""

from __future__ import annotations

import ast
import re
import shlex
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import msgspec
import pytest
from cyclopts import App

from bus import events, schema
from bus.events import invocation as ev
from bus.events import schedule
from bus.invocation import Status
from services.cli.main import COMMANDS, build
from services.fleet import file as fleet_file
from services.fleet import spec

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
ADRS = sorted((DOCS / "adr").glob("[0-9]*.md"))
#: Made by a program, and held to it by that program's own test.
MADE = {DOCS / "cli.md"}
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]
WRITTEN = [page for page in PAGES if page not in MADE]
NAMES = [str(page.relative_to(ROOT)) for page in WRITTEN]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")
#: A path from the top of the project, with the name of something in it behind a colon.
_PATH = re.compile(r"((?:bus|services|projections|infra|tests|docs|\.ci)/[\w./-]*)(?::([\w.]+))?")
#: Files at the top that pages name.
_FRONT = ("README.md", "CHANGELOG.md", "LICENSE", "Makefile", "pyproject.toml", "constraints.txt")


def blocks(page: Path, *languages: str) -> list[str]:
    """The fenced blocks of a page in one of the languages."""
    return [body for language, body in _FENCE.findall(page.read_text()) if language in languages]


def codes(page: Path) -> list[str]:
    """What stands between backticks in the text of a page, outside of its blocks."""
    return [str(code) for code in _CODE.findall(_FENCE.sub("", page.read_text()))]


def commands(page: Path) -> Iterator[list[str]]:
    """Every ``systems …`` of a page, in its text and in its shell blocks, as words."""
    lines = codes(page) + [line for block in blocks(page, "sh", "") for line in block.splitlines()]
    for line in lines:
        bare = line.partition("   #")[0].strip()
        # The one command that stands inside of another: eval "$(systems env)"; nats …
        inner = re.match(r'eval "\$\((systems[^)]*)\)"', bare)
        found = inner or re.match(r"(systems(?: .*)?)$", bare)
        if found:
            yield shlex.split(found.group(1), comments=True)


@cache
def members(path: Path) -> frozenset[str]:
    """The names of a Python module: ``function``, ``Class``, ``Class.method``, ``CONSTANT``."""
    found: set[str] = set()

    def walk(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            match node:
                case ast.FunctionDef() | ast.AsyncFunctionDef():
                    found.add(prefix + node.name)
                case ast.ClassDef():
                    found.add(prefix + node.name)
                    walk(node.body, f"{prefix}{node.name}.")
                case ast.Assign(targets=targets):
                    found.update(prefix + target.id for target in targets if isinstance(target, ast.Name))
                case ast.AnnAssign(target=ast.Name(id=name)):
                    found.add(prefix + name)

    walk(ast.parse(path.read_text()).body, "")
    return frozenset(found)


def anchors(page: Path) -> set[str]:
    """The fragments that a page's headings give."""
    text = _FENCE.sub("", page.read_text())
    return {
        re.sub(r"[^\w\- ]", "", line.lstrip("#").strip().lower()).replace(" ", "-")
        for line in text.splitlines()
        if line.startswith("#")
    }


def rows(text: str) -> Iterator[list[str]]:
    """The rows of the tables in a text, as cells."""
    for line in text.splitlines():
        if line.startswith("| ") and not line.startswith("|---"):
            yield [cell.strip() for cell in line.strip("|").split(" | ")]


def options(app: App) -> set[str]:
    """The options that a command takes."""
    return {name for argument in app.assemble_argument_collection() for name in argument.names if name.startswith("-")}


@pytest.mark.parametrize("page", WRITTEN, ids=NAMES)
def test_page_names_only_files_that_are_there(page: Path) -> None:
    """Every path between backticks exists, and so does what it names inside the file."""
    for code in codes(page):
        found = _PATH.fullmatch(code)
        if found is None:
            assert code not in _FRONT or (ROOT / code).is_file(), f"{code} is not there"
            continue
        path = ROOT / found.group(1)
        assert path.exists(), f"{code}: there is no {found.group(1)}"
        if found.group(2):
            assert found.group(2) in members(path), f"{code}: {found.group(1)} has no {found.group(2)}"


@pytest.mark.parametrize("page", WRITTEN, ids=NAMES)
def test_page_names_only_commands_and_options_that_exist(page: Path) -> None:
    """Every `systems …` is a command of the program, with options that it takes."""
    for words in commands(page):
        app, rest = build(), words[1:]
        while rest and not rest[0].startswith("-"):
            if rest[0] not in list(app):
                break
            app, rest = app[rest[0]], rest[1:]
        name = " ".join(words[: len(words) - len(rest)])
        assert not rest or rest[0].startswith("-") or app.default_command is not None, f"{name} has no {rest[0]}"
        known = options(app) | {"--help", "--version"} if app.default_command is not None else {"--help", "--version"}
        for word in rest:
            if re.match(r"--?[a-z]", word):
                assert word.partition("=")[0] in known, f"`{' '.join(words)}`: {name} has no {word}"


@pytest.mark.parametrize("page", WRITTEN, ids=NAMES)
def test_page_names_only_make_targets_that_exist(page: Path) -> None:
    """Every `make …` is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    lines = codes(page) + [line for block in blocks(page, "sh") for line in block.splitlines()]
    named = {found.group(1) for line in lines if (found := re.match(r"make ([a-z]+)\b", line))}
    assert named <= targets, f"there is no make {', '.join(sorted(named - targets))}"


@pytest.mark.parametrize("page", WRITTEN, ids=NAMES)
def test_page_links_to_what_is_there(page: Path) -> None:
    """Every link inside the project leads to a file, and its fragment to a heading."""
    for link in _LINK.findall(_FENCE.sub("", page.read_text())):
        if "://" in link:
            continue
        file, _, fragment = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), f"{link} leads nowhere"
        assert not fragment or fragment in anchors(target), f"{link}: there is no such heading"


@pytest.mark.parametrize("page", WRITTEN, ids=NAMES)
def test_page_can_be_reached_from_the_readme(page: Path) -> None:
    """Whoever follows the links from the README comes to every page."""
    seen: set[Path] = set()
    ahead = [ROOT / "README.md"]
    while ahead:
        at = ahead.pop()
        seen.add(at)
        if at.suffix != ".md":
            continue
        for link in _LINK.findall(at.read_text()):
            target = (at.parent / link.partition("#")[0]).resolve()
            if "://" not in link and target.is_file() and target not in seen:
                ahead.append(target)
    assert page in seen, "no page links to it"


@pytest.mark.parametrize("block", [block for page in WRITTEN for block in blocks(page, "toml")])
def test_fleet_file_in_a_page_loads(block: str, tmp_path: Path) -> None:
    """Every fleet file that a page shows is taken without a problem."""
    path = tmp_path / "fleet.toml"
    path.write_text(block)
    if "context" in tomllib.loads(block).get("server", {}) or "projects" in tomllib.loads(block):
        fleet_file.load(path)


def test_readme_shows_every_kind_of_handler() -> None:
    """The fleet file of the README has a role for each of the five kinds."""
    fleet = tomllib.loads(blocks(ROOT / "README.md", "toml")[0])
    shown = {role["handler"]["kind"] for project in fleet["projects"].values() for role in project["roles"].values()}
    assert shown == {str(kind.__struct_config__.tag) for kind in spec.Handler.__args__}


def test_changelog_names_every_command() -> None:
    """The list of commands in the changelog is the program's."""
    line = next(line for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if "*Command line.*" in line)
    assert {command.name for command in COMMANDS} == set(_CODE.findall(line)) - {"systems", "--output json"}


def test_events_page_lists_every_event_with_its_subject_and_fields() -> None:
    """The catalogue names exactly the types of the code, each with its own subject and exactly its Struct's fields."""
    listed = {row[0].strip("`"): row for row in rows((DOCS / "events.md").read_text()) if "`systems." in row[0]}
    assert set(listed) == set(events.CATALOGUE)
    for type_, struct in events.CATALOGUE.items():
        _, when, subject, fields = listed[type_]
        assert when
        pattern = re.sub(r"\\\{\w+\\\}", "<[^.>][^>]*>(?:[-_]<[^>]+>)*", re.escape(schema.address(type_)))
        assert re.fullmatch(pattern, subject.strip("`")), f"{type_}: expected {schema.address(type_)}, got: {subject}"
        assert [f.strip("` ") for f in fields.split(",")] == [f.name for f in msgspec.structs.fields(struct)], type_


def test_lifecycle_page_explains_every_state_event_and_reason() -> None:
    """Each state has a row, each event a row, and each reason that an event can give is named."""
    text = (DOCS / "lifecycle.md").read_text()
    firsts = {name for row in rows(text) for name in _CODE.findall(row[0])}
    assert {str(status) for status in Status} <= firsts
    assert set(ev.EVENTS) <= firsts
    reasons = [*ev.SweepReason, *ev.ReleaseReason, *ev.DeathReason, *schedule.MissReason]
    assert {str(reason) for reason in reasons} <= set(codes(DOCS / "lifecycle.md"))


def test_adrs_are_numbered_without_a_gap() -> None:
    """The numbers of the decisions are 0001, 0002 and so on, and each title carries its own."""
    for number, path in enumerate(ADRS, 1):
        assert path.name.startswith(f"{number:04d}-"), f"expected number {number:04d}, got: {path.name}"
        assert path.read_text().startswith(f"# ADR {number}: ")


def test_adr_index_lists_every_decision_by_its_title() -> None:
    """The index has one row for each decision, with its number, its title and its file, and no other."""
    wanted = [[path.name[:4], f"[{path.read_text().splitlines()[0].partition(': ')[2]}]({path.name})"] for path in ADRS]
    assert [row for row in rows((DOCS / "adr" / "README.md").read_text()) if row[0].isdigit()] == wanted


@pytest.mark.parametrize("path", ADRS, ids=[path.stem for path in ADRS])
def test_adr_has_the_form_of_the_others(path: Path) -> None:
    """A decision has its table of facts and its four sections, in that order."""
    text = path.read_text()
    facts = dict(row[:2] for row in rows(text) if row[0] in {"Date", "Author", "Status", "Tags"})
    assert list(facts) == ["Date", "Author", "Status", "Tags"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", facts["Date"])
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == [
        "Context and Problem Statement",
        "Design",
        "Decision",
        "Consequences",
    ]

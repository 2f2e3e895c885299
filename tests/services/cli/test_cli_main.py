"""The command line itself: parsing, sentences, exit codes, completion, and its page in docs/."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus import errors
from bus.invocation import Misfit, Refused
from services.cli import reference
from services.cli.common import NAMES
from services.cli.dlq import pause_of
from services.cli.exits import Exit, UsageError, status_of, status_of_kind
from services.cli.invoke import read_input
from services.cli.main import COMMANDS, build, hoisted, wants_json
from services.cli.output import age, aligned
from services.declaration import key_changes
from services.fleet.schema import NotJson

_TOKEN = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=6)


def test_help_imports_no_command() -> None:
    """`systems --help` imports neither a command nor a driver, so that it answers at once."""
    script = (
        "import sys\n"
        "from services.cli.main import main\n"
        "assert main(['--help']) == 0\n"
        "print([m for m in ('nats', 'structlog', 'jsonschema', 'bus.store', 'services.cli.fleet') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "[]"


def test_panel_imports_no_more_than_it_shows() -> None:
    """`systems status` imports neither tables, nor guards, nor what checks schemas and speaks HTTP: it answers at once."""
    script = (
        "import sys\n"
        "import services.cli.watch\n"
        "heavy = ('aiohttp.client', 'nats.js.api', 'duckdb', 'pyarrow', 'jsonschema', 'httpx', 'matplotlib', 'slack_sdk', 'apprise')\n"
        "ours = ('services.warden.warden', 'services.launcher.supervisor', 'services.replay')\n"
        "print([m for m in heavy + ours if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


def test_commands_can_all_be_imported_and_take_the_common_options() -> None:
    """Every command of the table exists, has a help text, and takes --home, --server, --context, --output and --debug."""
    app = build()
    heads = [app[command.name] for command in COMMANDS]
    leaves = [head for head in heads if head.default_command is not None]
    leaves += [head[name] for head in heads for name in head if not name.startswith("-")]
    assert len(leaves) > len(COMMANDS)
    for leaf in leaves:
        options = {name for argument in leaf.assemble_argument_collection() for name in argument.names}
        assert set(NAMES) <= options, leaf.name


def test_reference_is_what_the_commands_say() -> None:
    """docs/cli.md is what `python -m services.cli.reference` prints."""
    page = Path(__file__).parents[3] / "docs" / "cli.md"
    assert page.read_text() == "\n".join(reference.lines()) + "\n", (
        "run: python -m services.cli.reference > docs/cli.md"
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["stats"], "unknown command 'stats', did you mean 'status'?; see `systems --help`"),
        (["dlq", "lst"], "unknown command 'lst', did you mean 'ls'?; see `systems dlq --help`"),
        (["show", "--hme", "x", "y"], "unknown option: --hme. Did you mean --home?; see `systems show --help`"),
        (["--hoem", "x", "show"], "unknown option '--hoem', did you mean '--home'?; see `systems --help`"),
        (["cancel"], 'command "cancel" parameter ID requires an argument; see `systems cancel --help`'),
        (["invoke", "shop/echo", "--in", "soon"], "expected a duration: a number of seconds"),
        (["invoke", "shop/echo", "--at", "noon"], "expected --at in RFC 3339"),
        (["invoke", "shop/echo", "--at", "2030-01-01T00:00:00"], "expected --at with a time zone"),
        (["invoke", "shop/echo", "--in", "1s", "--at", "2030-01-01T00:00:00Z"], "expected --in or --at, got both"),
        (["invoke", "shop"], "expected a role to match PROJECT/ROLE"),
        (["invoke", "shop/echo", "--input", "{"], "expected the input to be JSON"),
        (["invoke", "shop/echo", "--input", "@/nowhere"], "expected a file to read the input from, got: '/nowhere'"),
        (["tail", "progress.>", "--since", "1m"], "expected --since with a subject of the log"),
        (["dlq", "ls", "--role", "shop"], "expected a role to match PROJECT/ROLE or PROJECT/*"),
        (["dlq", "redrive", "--reason", " "], "expected --reason to say why, got: nothing"),
        (["dlq", "redrive", "x", "--limit", "1", "--reason", "y"], "expected ids or a filter, got both"),
        (["dlq", "discard", "--rate", "fast", "--reason", "y"], "expected --rate as a number with a unit"),
    ],
)
async def test_usage_error_is_one_sentence(cli: Any, arguments: list[str], sentence: str) -> None:
    """What the command line gets wrong is one sentence with its remedy on stderr, and 64."""
    done = await cli(*arguments)
    assert done.status == 64
    assert done.err.startswith(f"systems: {sentence}")
    assert done.err.count("\n") == 1
    assert done.out == ""


async def test_error_is_json_too(cli: Any) -> None:
    """With --output json an error is also an object on stdout, wherever the option stands."""
    for arguments in (["--output", "json", "stats"], ["show", "abc", "--output=json"]):
        done = await cli(*arguments)
        assert done.status in (64, 69)
        assert set(done.json["error"]) == {"kind", "message"}
        assert done.err == f"systems: {done.json['error']['message']}\n"


async def test_absent_fleet_is_unreachable(cli: Any) -> None:
    """A home in which no fleet runs, and a server that does not answer, end a command with 69 and no traceback."""
    for arguments in (["roles"], ["env"], ["show", "x", "--server", "nats://127.0.0.1:9"]):
        done = await cli(*arguments)
        assert done.status == 69, done
        assert done.err.startswith("systems: no NATS server answers at ")
        assert "Traceback" not in done.err


async def test_debug_shows_the_traceback(cli: Any) -> None:
    """With --debug the traceback comes before the sentence."""
    done = await cli("--debug", "roles")
    assert done.err.startswith("Traceback")
    assert done.err.splitlines()[-1].startswith("systems: no NATS server")


async def test_closed_pipe_is_quiet(cli: Any) -> None:
    """A reader that goes away early ends a command without a word."""
    script = f"{sys.executable} -m services.cli completion bash | head -n 1"
    process = await asyncio.create_subprocess_shell(
        script, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=cli.environment
    )
    out, err = await process.communicate()
    assert out.count(b"\n") == 1
    assert err == b""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_completion_names_the_commands(cli: Any, shell: str) -> None:
    """The completion script of each shell knows the commands and their options."""
    done = await cli("completion", shell)
    assert done.status == 0
    assert all(word in done.out for word in ("redrive", "invoke", "key"))


def test_completion_is_a_script_that_bash_can_read() -> None:
    """The completion script of bash has no syntax error."""
    script = build().generate_completion(shell="bash")  # noqa: S604 (the name of a shell; none is started)
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


async def test_completion_is_installed_where_the_shell_looks(cli: Any, tmp_path: Path) -> None:
    """--install writes the script below the person's own directory and says where."""
    done = await cli("completion", "fish", "--install", "--output", "json", env={"HOME": str(tmp_path)})
    path = Path(done.json["path"])
    assert path.is_relative_to(tmp_path)
    assert "redrive" in path.read_text()


async def test_check_shows_every_problem(cli: Any, tmp_path: Path) -> None:
    """A fleet file with problems gives all of them with their lines, and 64; a good one gives 0."""
    file = tmp_path / "fleet.toml"
    file.write_text(
        '[projects.shop.roles.a]\nhandlr = 3\n[projects.shop.roles.b]\nhandler = { kind = "trace" }\nspeed = 1\n'
    )
    bad = await cli("check", str(file), "--output", "json")
    assert bad.status == 64
    assert [problem["line"] for problem in bad.json["problems"]] == [1, 2, 5]
    assert "did you mean 'handler'?" in bad.err
    file.write_text('[projects.shop.roles.b]\nhandler = { kind = "trace" }\n')
    good = await cli("check", str(file), "--output", "json")
    assert (good.status, good.json["roles"], good.json["ok"]) == (0, 1, True)


async def test_limits_need_no_fleet(cli: Any) -> None:
    """`systems limits` prints its facts without a server, with the numbers of the code."""
    done = await cli("limits", "--output", "json")
    sentences = {fact["topic"]: fact["sentence"] for fact in done.json["limits"]}
    assert "900 follow-up" in sentences["follow-ups"]
    assert "15 minutes" in sentences["silent holders"]
    assert {fact["kind"] for fact in done.json["limits"]} == {"stays with a person", "bounded by code", "not promised"}


def test_status_follows_the_error_tree() -> None:
    """Statuses go by class, also by a base's, and a class that is not named is a failure."""
    assert status_of(errors.UnknownName("role", "a/b", ())) == Exit.USAGE
    assert status_of(errors.Unanswered("a request", 1)) == Exit.UNREACHABLE
    assert status_of(errors.StreamFrozen("a publish", 10077, "full")) == Exit.LATER
    assert status_of(Refused(Misfit.ENDED, None)) == Exit.REFUSED
    assert status_of(errors.HomeUnusable("x")) == Exit.FAILED
    assert status_of(ValueError("x")) == Exit.FAILED
    assert status_of_kind("InputMismatch") == Exit.REFUSED


@given(
    st.lists(st.sampled_from(["--home=x", "--output=json", "--debug"]), max_size=3),
    st.lists(_TOKEN, min_size=1, max_size=4),
)
def test_leading_options_are_moved_behind_the_command(front: list[str], rest: list[str]) -> None:
    """Options of every command may stand before the command: they are moved behind it and nothing is lost."""
    assert hoisted([*front, *rest]) == [*rest, *front]
    assert hoisted(front) == []
    assert hoisted(["--home", "x", *front, *rest, "--", "y"]) == [*rest, "--home", "x", *front, "--", "y"]


def test_json_is_recognised_before_parsing() -> None:
    """JSON is wanted by both spellings of the option and by nothing else."""
    assert wants_json(["x", "--output", "json"])
    assert wants_json(["--output=json", "x"])
    assert not wants_json(["x", "json", "--output", "text"])


def test_input_is_read_from_where_it_is_said(tmp_path: Path) -> None:
    """An input is JSON itself or a file's, checked before anything is sent."""
    file = tmp_path / "input.json"
    file.write_text(' {"a": 1}\n')
    assert read_input(f"@{file}") == b'{"a": 1}'
    assert read_input("-5") == b"-5"
    with pytest.raises(NotJson, match="line 1"):
        read_input("{'a': 1}")


@pytest.mark.parametrize(("rate", "pause"), [(None, 0.0), ("10/s", 0.1), ("4", 0.25), ("30/m", 2.0), ("7200/h", 0.5)])
def test_rate_is_a_pause(rate: str | None, pause: float) -> None:
    """A rate becomes the seconds between two letters."""
    assert pause_of(rate) == pytest.approx(pause)


@pytest.mark.parametrize("rate", ["", "0/s", "-1/s", "nan", "inf", "3/d", "x/s"])
def test_rate_refuses_what_is_none(rate: str) -> None:
    """A rate that is no positive number of a known unit is refused."""
    with pytest.raises(UsageError, match="--rate"):
        pause_of(rate)


@given(st.lists(st.lists(st.text(max_size=20), min_size=3, max_size=3), max_size=5))
def test_table_has_one_line_for_each_row(rows: list[list[str]]) -> None:
    """A plain table has a line for its names and one for each row, whatever the cells hold."""
    lines = aligned(["a", "b", "c"], [[cell.replace("\r", "") for cell in row] for row in rows], right=["b"])
    assert len(lines) == 1 + len(rows)
    assert not any("\n" in line for line in lines)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "never"), (0.0004, "0 ms"), (0.25, "250 ms"), (4.2, "4.2 s"), (80, "80 s"), (600, "10 min"), (9000, "2.5 h"), (-2, "-2.0 s")],
)  # fmt: skip
def test_age_is_said_as_a_person_would(seconds: float | None, text: str) -> None:
    """Durations are shown with the unit that fits."""
    assert age(seconds) == text


@given(
    st.dictionaries(_TOKEN, st.binary(max_size=4), max_size=5),
    st.dictionaries(_TOKEN, st.binary(max_size=4), max_size=5),
)
def test_registry_difference_leads_from_one_to_the_other(present: dict[str, bytes], wanted: dict[str, bytes]) -> None:
    """Carrying out the shown changes makes the wanted registry, and none are shown for what is the same."""
    reached: dict[str, Any] = dict(present)
    for change in key_changes(present, wanted):
        assert present.get(change.key) != wanted.get(change.key)
        if change.action == "delete":
            del reached[change.key]
        else:
            reached[change.key] = wanted[change.key]
    assert reached == wanted


def test_registry_difference_names_the_fields() -> None:
    """A role that changed shows the fields that did, before and after."""
    (change,) = key_changes({"roles.a.b": b'{"x":1,"y":2}'}, {"roles.a.b": b'{"x":1,"y":3,"z":[]}'})
    assert [(c.field, c.before, c.after) for c in change.changes] == [("y", "2", "3"), ("z", "null", "[]")]


#: Begins a command, and presses Ctrl-C when it comes to import what it runs.
INTERRUPTED = """
import os, signal, sys

class Press:
    def find_spec(self, name, *_more):
        if name == "services.cli.main":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Press())
from services.cli.__main__ import start
start()
"""


def test_ctrl_c_before_it_has_begun_ends_a_command_with_130() -> None:
    """Ctrl-C while a command still imports ends it like any other: status 130, and no traceback."""
    ended = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, check=False, timeout=60)
    assert (ended.returncode, ended.stderr) == (130, b"")

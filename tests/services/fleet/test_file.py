"""The fleet file: what it may say, and what is said about its faults."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.fleet import reading
from services.fleet.daemons import Restart
from services.fleet.file import FleetFileError, load
from services.fleet.spec import Backoff, ExecHandler, Overlap, Projector, Prompt, Schedule, Server

ROLE = '[projects.shop.roles.coder]\nhandler = { kind = "trace" }\n'


def write(folder: Path, text: str | bytes) -> Path:
    """A fleet file with this content."""
    path = folder / "fleet.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def faults(folder: Path, text: str | bytes) -> list[str]:
    """Everything that is said about a file, without the file's name."""
    path = write(folder, text)
    with pytest.raises(FleetFileError) as caught:
        load(path)
    lines = str(caught.value).splitlines()
    assert len(lines) == len(caught.value.problems)
    assert all(line.startswith(f"{path}:") for line in lines)
    return [line.removeprefix(f"{path}:").strip() for line in lines]


def test_file_is_read_with_all_its_tables(tmp_path: Path) -> None:
    """Every kind of table and every way to write a duration arrives as data in seconds."""
    (tmp_path / "p.txt").write_text("be kind")
    loaded = load(
        write(
            tmp_path,
            """
            [server]
            port = 4333
            [daemons]
            restart = { exits = 2, period = "10m" }
            [drills]
            every = "1d"
            [projector]
            memory_mb = 400
            publish = "1500ms"
            [prompts]
            a.text = "be brief"
            b.file = "p.txt"
            [projects.shop]
            owners = ["ann"]
            [projects.shop.roles.x]
            handler = { kind = "exec", command = ["./x", "-v"] }
            timeout = "1h30m"
            progress_timeout = 45
            ack_wait = "15m"
            grace = "250ms"
            backoff = { base = "2s", cap = 60 }
            asks = ["shop/*", "ledger/y"]
            prompt = "b"
            [projects.shop.roles.x.schedules.nightly]
            cron = "0 30 2 * * MON-FRI"
            time_zone = "Europe/Paris"
            input = { deep = [1, { a = true }] }
            overlap = "cancel_previous"
            catch_up = "1d"
            [projects.ledger.roles]
            y.handler = { kind = "function", target = "handlers:book" }
            """,
        )
    )
    fleet = loaded.fleet
    role = fleet.projects["shop"].roles["x"]
    assert loaded.fleet.projector == Projector(memory_mb=400, publish=1.5)
    assert fleet.server == Server(port=4333)
    assert fleet.daemons.restart == Restart(exits=2, period=600)
    assert fleet.drills.every == 86_400
    assert role.handler == ExecHandler(command=("./x", "-v"))
    assert (role.timeout, role.progress_timeout, role.ack_wait, role.grace) == (5400, 45, 900, 0.25)
    assert role.backoff == Backoff(base=2, cap=60)
    assert role.schedules["nightly"] == Schedule(
        cron="0 30 2 * * MON-FRI",
        time_zone="Europe/Paris",
        input={"deep": [1, {"a": True}]},
        overlap=Overlap.CANCEL_PREVIOUS,
        catch_up=86_400,
    )
    assert fleet.prompts == {"a": Prompt(text="be brief"), "b": Prompt(text="be kind")}
    assert loaded.prompts == {"a": "be brief", "b": "be kind"}
    assert loaded.folder == tmp_path.resolve()


def test_file_digest_follows_content_not_layout(tmp_path: Path) -> None:
    """Comments and spelling of durations leave the digest, a prompt's text or a limit changes it."""
    (tmp_path / "p.txt").write_text("one")
    text = ROLE + "timeout = 60\n[prompts.p]\nfile = 'p.txt'\n"
    first = load(write(tmp_path, text)).digest
    assert load(write(tmp_path, "# c\r\n" + text.replace("60", '"1m"'))).digest == first
    assert load(write(tmp_path, text.replace("60", "61"))).digest != first
    (tmp_path / "p.txt").write_text("two")
    assert load(write(tmp_path, text)).digest != first


def test_file_reports_all_faults_at_once_in_the_order_of_lines(tmp_path: Path) -> None:
    """Faults of every kind in one file are one error each, with line and key."""
    text = """\
colour = "red"
[projects.shop]
slak_channel = "#x"
[projects.shop.roles.Coder_1]
handler = { kind = "exce", command = ["x"] }
[projects.shop.roles.a]
handler = { kind = "exec", command = [], environ = ["PATH"] }
concurrency = 10
max_in_flight = 5
max_attempts = 0
timeout = "5 minutes"
ack_wait = "16m"
asks = ["shop/b",
        "ledgr/x", "shop"]
prompt = "rule"
[projects.shop.roles.a.schedules.s]
cron = "* * * * *"
time_zone = "Europe/Pari"
overlap = "skp"
[projects.shop.roles.c]
concurrency = "4"
[projects.ledger.roles.x.handler]
kind = "function"
target = "handlers.book"
[prompts.rules]
[server]
port = 70000
"""
    assert faults(tmp_path, text) == [
        "1: colour: unknown key 'colour', expected one of: archive, daemons, deploy, drills, escalation, hours, incidents, loop, monitor, people, projector, projects, prompts, queries, quota, reload, rotations, server, slack",
        "3: projects.shop.slak_channel: unknown key 'slak_channel', did you mean 'slack_channel'?",
        (
            "4: projects.shop.roles.Coder_1: expected a role name of 1 to 40 lower-case letters, digits and '-', "
            "got: 'Coder_1'; call it 'coder-1'"
        ),
        "5: projects.shop.roles.Coder_1.handler.kind: unknown kind 'exce', did you mean 'exec'?",
        "7: projects.shop.roles.a.handler.command: expected an array with a length of at least 1, got: []",
        "7: projects.shop.roles.a.handler.environ: unknown key 'environ', did you mean 'env'?",
        (
            "9: projects.shop.roles.a.max_in_flight: expected at least concurrency (10), got: 5; "
            "it counts the work of the whole fleet"
        ),
        "10: projects.shop.roles.a.max_attempts: expected a whole number of at least 1, got: 0",
        (
            "11: projects.shop.roles.a.timeout: expected a duration: a number of seconds, or a text like "
            "'250ms', '90s', '15m', '2h', '1d', got: '5 minutes'"
        ),
        (
            "12: projects.shop.roles.a.ack_wait: expected a number of at most 900.0, got: 960.0; "
            "that long a dead holder keeps its work, and within it a living one renews its claim; "
            "a handler that takes longer than it need only report progress"
        ),
        "13: projects.shop.roles.a.asks[0]: unknown role 'shop/b', did you mean 'shop/c'?",
        "14: projects.shop.roles.a.asks[1]: unknown project 'ledgr', did you mean 'ledger'?",
        "14: projects.shop.roles.a.asks[2]: expected PROJECT/ROLE or PROJECT/*, got: 'shop'",
        "15: projects.shop.roles.a.prompt: unknown prompt 'rule', did you mean 'rules'?",
        (
            "18: projects.shop.roles.a.schedules.s.time_zone: expected an IANA time zone such as 'Europe/Paris' or 'UTC', "
            "got: 'Europe/Pari', did you mean 'Europe/Paris'?"
        ),
        "19: projects.shop.roles.a.schedules.s.overlap: unknown overlap 'skp', did you mean 'skip'?",
        (
            "20: projects.shop.roles.c: expected the key 'handler', got none; "
            "say what runs it, as handler = { kind = 'function', … }"
        ),
        "21: projects.shop.roles.c.concurrency: expected a whole number, got: '4'",
        "24: projects.ledger.roles.x.handler.target: expected module:callable, as 'handlers:report', got: 'handlers.book'",
        "25: prompts.rules: expected either text or file, with something in it, got: neither",
        "27: server.port: expected a whole number of at most 65535, got: 70000",
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            ROLE + "[projects.shop.roles.coder.schedules.s]\ncron = '* * * * *'\n",
            (
                "4: projects.shop.roles.coder.schedules.s.cron: expected a cron with 6 fields (second, minute, hour, day of "
                "month, month, day of week), got: 5 in '* * * * *'; put the second in front: '0 * * * * *'"
            ),
        ),
        (
            ROLE + "schedules.s = { cron = '@every 500ms' }\n",
            (
                "3: projects.shop.roles.coder.schedules.s.cron: expected '@every' and a whole number of seconds of at least "
                "1s, as '@every 10s', got: '@every 500ms'"
            ),
        ),
        (
            ROLE + "schedules.s = { cron = '@hourly', input = { at = 2026-01-01 } }\n",
            (
                "3: projects.shop.roles.coder.schedules.s.input.at: expected a JSON value, got a date or time: 2026-01-01; "
                "put it in quotes"
            ),
        ),
        (
            ROLE + "schedules.s = { cron = '@hourly', input = [1, nan] }\n",
            "3: projects.shop.roles.coder.schedules.s.input[1]: expected a finite number, got: nan",
        ),
        (
            ROLE + "schedules.s = { cron = '@hourly' }\ninput_schema = { type = 'object' }\n",
            (
                "3: projects.shop.roles.coder.schedules.s.input: does not fit the role's input_schema: "
                "expected $ of the input to be of type object, got: null"
            ),
        ),
        (
            ROLE + "input_schema = { type = 'objekt' }\n",
            (
                "3: projects.shop.roles.coder.input_schema: expected a JSON Schema (2020-12), got something else at $.type: "
                "unknown type 'objekt', did you mean 'object'?"
            ),
        ),
        (
            ROLE + "backoff = { base = '10m' }\n",
            ("3: projects.shop.roles.coder.backoff.base: expected cap to be at least base (600 s), got: 300 s"),
        ),
        (
            ROLE + "backoff.jitter = 2\n",
            "3: projects.shop.roles.coder.backoff.jitter: expected a number of at most 1.0, got: 2",
        ),
        (ROLE + "timeout = 0\n", "3: projects.shop.roles.coder.timeout: expected a number above 0.0, got: 0.0"),
        (ROLE + "idempotent = 'no'\n", "3: projects.shop.roles.coder.idempotent: expected true or false, got: 'no'"),
        (ROLE + "asks = ['shop/coder', 1]\n", "3: projects.shop.roles.coder.asks[1]: expected a text, got: 1"),
        (
            ROLE + "prompt = 'x'\n",
            ("3: projects.shop.roles.coder.prompt: unknown prompt 'x'; define it as a table [prompts.x]"),
        ),
        ("[projects.shop]\nroles = 1\n", "2: projects.shop.roles: expected a table, got: 1"),
        ("projects = []\n", "1: projects: expected a table, got: []"),
        (
            "[projects.shop]\nowners = 'ann'\n",
            (
                "2: projects.shop.owners: expected an array, got: 'ann'; "
                "write them as an array: owners = ['ann@example.com']"
            ),
        ),
        (
            "[projects.shop.roles.a]\nhandler = 'x'\n",
            "2: projects.shop.roles.a.handler: expected a table with a kind, got: 'x'",
        ),
        (
            "[projects.shop.roles.a]\nhandler = {}\n",
            (
                "2: projects.shop.roles.a.handler: expected the key 'kind', "
                "one of exec, function, http, llm, trace, got none"
            ),
        ),
        (
            "[projects.shop.roles.a]\nhandler = { kind = 'http', url = 'host/x' }\n",
            ("2: projects.shop.roles.a.handler.url: expected an address such as 'https://host/path', got: 'host/x'"),
        ),
        (
            "[projects.shop.roles.a]\nhandler = { kind = 'http', url = 'http://h', headers = { a = 1 } }\n",
            "2: projects.shop.roles.a.handler.headers: expected each value to be a text, got: {'a': 1}",
        ),
        (
            "[projects.shop.roles.a]\nhandler = { kind = 'llm', model = 'm', api = 'openia' }\n",
            "2: projects.shop.roles.a.handler.api: unknown api 'openia', did you mean 'openai'?",
        ),
        (
            "[projects.shop.roles.a]\nhandler = { kind = 'trace', speed = 0 }\n",
            "2: projects.shop.roles.a.handler.speed: expected a number above 0.0, got: 0",
        ),
        (
            "[server]\nurl = 'nats://x'\nport = 1\n",
            ("3: server.port: expected no port beside url, got: 1; it is the embedded server's, which url replaces"),
        ),
        (
            "[prompts.p]\ntext = 'a'\nfile = 'b'\n",
            "1: prompts.p: expected either text or file, with something in it, got: both",
        ),
        (
            "[prompts.p]\nfile = 'rulez.txt'\n",
            (
                "2: prompts.p.file: expected a file that can be read, got: 'rulez.txt': "
                "No such file or directory, did you mean 'rules.txt'?"
            ),
        ),
        (
            "[prompts.p]\nfile = 'large.txt'\n",
            (
                "2: prompts.p.file: expected a prompt of at most 524,288 bytes, "
                "got: 524,289; pass the bulk as input instead"
            ),
        ),
        (
            "[prompts.p]\nfile = 'latin.txt'\n",
            (
                "2: prompts.p.file: expected UTF-8, got: byte 0xe9 at column 4; "
                "save the file as UTF-8 (line 1 of latin.txt)"
            ),
        ),
        ("[prompts.p]\nfile = 'empty.txt'\n", "2: prompts.p.file: expected a prompt in 'empty.txt', got: nothing"),
        ("a = 1\nb = = 2\n", "2: expected TOML, got an error at column 5: Invalid value"),
        ("[a\n", "1: expected TOML, got an error at column 3: Expected ']' at the end of a table declaration"),
        ("a = [1,\n\n", "2: expected TOML, got an error: Invalid value"),
        ("a = 1\na = 2\n", "2: expected TOML, got an error at column 6: Cannot overwrite a value"),
        (b"a = 1\n# caf\xe9\n", "2: expected UTF-8, got: byte 0xe9 at column 6; save the file as UTF-8"),
        ("a = " + "[" * 100_000, "expected TOML, got values nested too deep"),
    ],
)
def test_file_with_one_fault_is_one_sentence(tmp_path: Path, text: str | bytes, fault: str) -> None:
    """Line, key, what was expected, what came, and the remedy."""
    (tmp_path / "rules.txt").write_text("x")
    (tmp_path / "empty.txt").touch()
    (tmp_path / "latin.txt").write_bytes("café".encode("latin-1"))
    (tmp_path / "large.txt").write_bytes(b"x" * (reading.PROMPT_LIMIT + 1))
    assert faults(tmp_path, text) == [fault]


def test_file_that_is_missing_says_what_to_do(tmp_path: Path) -> None:
    """A missing file names the remedy; a folder is told plainly."""
    with pytest.raises(FleetFileError, match=r"expected a fleet file, got none; name another with --fleet FILE"):
        load(tmp_path / "none.toml")
    with pytest.raises(FleetFileError, match="expected a fleet file that can be read, got: Is a directory"):
        load(tmp_path)


def test_file_without_anything_is_an_empty_fleet(tmp_path: Path) -> None:
    """An empty file is a fleet of nothing, with the defaults of its server and daemons."""
    fleet = load(write(tmp_path, "")).fleet
    assert (fleet.roles(), fleet.server, fleet.daemons.agent_runner.instances) == ({}, Server(), 1)

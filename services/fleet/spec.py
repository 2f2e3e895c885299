"""What a fleet consists of: projects, roles, handlers, schedules, as data.

The same Structs are the fleet file's tables (:mod:`services.fleet.file`) and the values of the ``registry`` bucket, so what
a person writes is what a runner reads. Durations are seconds; the fleet file also takes ``"90s"``, ``"15m"``, ``"2h"``.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from bus import invocation
from services.fleet.daemons import Daemons
from services.fleet.duty import Escalation, Hours, Incidents, Person, Rotation
from services.fleet.operations import Deploying, Drills, Reload
from services.fleet.slack import Slack
from services.fleet.table import Count, Name, Positive, Variable

#: The longest that a claim may lie with a silent holder: 15 minutes.
MAX_ACK_WAIT_S = 900.0
#: The shortest: a runner renews its claims five times a second, and a claim must outlive a slow append.
MIN_ACK_WAIT_S = 1.0


#: The shortest hot window: schedules look for what they have asked for within their catch-up window, 10 minutes by default.
MIN_HOT_S = 3600.0
#: The least megabytes that DuckDB can fold a full batch in.
MIN_MEMORY_MB = 64
#: The project of drills, which no fleet file may name: the fleet's runners leave it alone, because its work kills runners.
SANDBOX = "drill"


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A table of the fleet file: unknown keys are errors."""


class FunctionHandler(_Table, frozen=True, tag_field="kind", tag="function"):
    """A Python callable in the runner: async on its loop, sync in a thread."""

    #: ``module:callable``; modules are looked up beside the fleet file first.
    target: str


class ExecHandler(_Table, frozen=True, tag_field="kind", tag="exec"):
    """Any command: JSON in on stdin, JSON lines out on stdout."""

    #: Program and arguments; no shell. A relative program path is taken from the fleet file's folder.
    command: Annotated[tuple[str, ...], Meta(min_length=1)]
    #: Names of environment variables passed through from the runner; nothing else is.
    env: tuple[str, ...] = ("PATH", "HOME", "LANG")
    #: Working directory, relative to the fleet file's folder.
    cwd: str = "."


class HttpHandler(_Table, frozen=True, tag_field="kind", tag="http"):
    """A POST of the input as JSON; the answer's JSON body is the result."""

    url: str
    headers: dict[str, str] = {}
    #: Environment variable that holds the bearer token; empty for none.
    token_env: str = ""


class LlmApi(StrEnum):
    """The wire format of a model provider."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"


class LlmHandler(_Table, frozen=True, tag_field="kind", tag="llm"):
    """One call of a language model, with the role's prompt as system text."""

    model: str
    api: LlmApi = LlmApi.OPENAI
    #: Without the trailing path: ``https://api.openai.com/v1``, ``https://api.anthropic.com``.
    base_url: str = ""
    #: Environment variable that holds the key; empty for a server that asks for none.
    key_env: str = ""
    max_output_tokens: Count = 1024
    temperature: float | None = None


class TraceHandler(_Table, frozen=True, tag_field="kind", tag="trace"):
    """Replays recorded work: takes as long as a model with these rates would, divided by `speed`, and uses the recorded tokens."""

    speed: Positive = 1.0
    #: Tokens a second; the defaults are of the order that the trace's paper reports for one 8-GPU machine.
    prefill_rate: Positive = 8000.0
    decode_rate: Positive = 40.0


Handler = FunctionHandler | ExecHandler | HttpHandler | LlmHandler | TraceHandler


class Backoff(_Table, frozen=True):
    """How long a retry waits: ``min(cap, base * factor**(n-1))``, of which the last `jitter` part is random."""

    base: Positive = 1.0
    factor: Annotated[float, Meta(ge=1)] = 2.0
    cap: Positive = 300.0
    jitter: Annotated[float, Meta(ge=0, le=1)] = 0.5


class Overlap(StrEnum):
    """What a due time does while the invocation before it still runs."""

    SKIP = "skip"
    ALLOW = "allow"
    CANCEL_PREVIOUS = "cancel_previous"


class Schedule(_Table, frozen=True):
    """When a role is asked by the clock; kept and fired by the server, not by a client's timer."""

    #: Cron with 6 fields, seconds first (``0 */5 * * * *``), or ``@every 10s``.
    cron: str
    #: IANA time zone of the cron fields.
    time_zone: str = "UTC"
    #: JSON value that is asked with.
    input: Any = None
    overlap: Overlap = Overlap.SKIP
    #: Seconds after which a due time that nobody handled is missed instead of run late.
    catch_up: Positive = 600.0


class Unit(StrEnum):
    """What a cap counts."""

    TOKENS = "tokens"
    USD = "usd"


class Window(StrEnum):
    """Over which time a cap counts; calendar windows begin in the quota's time zone."""

    HOUR = "hour"
    FIVE_HOURS = "5h"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    #: A run tree: an invocation and all that it caused, without end.
    TREE = "tree"


class Cap(_Table, frozen=True):
    """A bound on spend."""

    #: Tokens, or US dollars.
    cap: Annotated[float, Meta(ge=0)]
    window: Window
    unit: Unit = Unit.TOKENS


class OnFreeze(StrEnum):
    """What a running handler does when the kill switch is thrown. Either way nothing of it is written until the thaw."""

    FINISH = "finish"
    STOP = "stop"


class Role(_Table, frozen=True):
    """A kind of agent: handler, prompt, limits."""

    handler: Handler
    #: Handlers at once in each runner process.
    concurrency: Count = 4
    #: Work held by the whole fleet, running or waiting for a retry; None is ``max(100, 4 * concurrency)``.
    max_in_flight: Count | None = None
    max_attempts: Count = 3
    max_crashes: Count = 3
    #: Seconds that one attempt may take.
    timeout: Positive = 900.0
    #: Seconds without progress (a line, a token, ``ctx.progress``) after which a handler counts as hung.
    progress_timeout: Positive = 300.0
    #: Seconds that a silent holder keeps its claim.
    ack_wait: Annotated[float, Meta(ge=MIN_ACK_WAIT_S, le=MAX_ACK_WAIT_S)] = MAX_ACK_WAIT_S
    #: Seconds between SIGTERM and SIGKILL, and what a draining runner gives a handler.
    grace: Annotated[float, Meta(ge=0)] = 10.0
    backoff: Backoff = Backoff()
    #: False: never run twice; an orphan is dead-lettered for a person.
    idempotent: bool = True
    #: Roles that this one may ask, as ``project/role`` or ``project/*``; None is its own project.
    asks: tuple[str, ...] | None = None
    #: JSON Schema (2020-12) of the input.
    input_schema: dict[str, Any] | None = None
    #: Name of a prompt of the fleet.
    prompt: Name | None = None
    schedules: dict[Name, Schedule] = {}
    #: What its claims may spend together.
    caps: tuple[Cap, ...] = ()
    #: The most that one attempt may use; must be named where a cap covers the role and its handler cannot tell.
    max_tokens: Annotated[int, Meta(ge=0)] | None = None
    #: The same in US dollars.
    max_usd: Annotated[float, Meta(ge=0)] | None = None
    on_freeze: OnFreeze = OnFreeze.FINISH
    description: str = ""

    @property
    def limits(self) -> invocation.Limits:
        """What ``decide`` needs to know of the role."""
        return invocation.Limits(
            max_attempts=self.max_attempts, max_crashes=self.max_crashes, idempotent=self.idempotent
        )

    @property
    def in_flight(self) -> int:
        """`max_in_flight` with its default filled in: the consumer's ``max_ack_pending``."""
        return self.max_in_flight if self.max_in_flight is not None else max(100, 4 * self.concurrency)


class Project(_Table, frozen=True):
    """A tenant: name, owners, channel."""

    description: str = ""
    owners: tuple[str, ...] = ()
    slack_channel: str = ""
    #: Policy by which people are called for it; empty for that of ``[incidents]``.
    escalation: str = ""
    #: Variables that hold apprise addresses which are told of its incidents, beside the channel; see ``[people]``.
    tell: tuple[Variable, ...] = ()
    #: What all its roles may spend together.
    caps: tuple[Cap, ...] = ()
    roles: dict[Name, Role] = {}


class Prompt(_Table, frozen=True):
    """A named text that roles share. Exactly one of the two is given in the file; the registry holds the text."""

    text: str = ""
    #: Path relative to the fleet file.
    file: str = ""


class Server(_Table, frozen=True):
    """The embedded NATS server, or another one."""

    #: An existing server; empty starts an embedded one.
    url: str = ""
    #: Client port of the embedded server; 0 picks a free one and keeps it.
    port: Annotated[int, Meta(ge=0, le=65535)] = 0
    #: NATS context file or name with the credentials of `url`.
    context: str = ""
    #: The embedded server flushes every write to the disk before it acknowledges it: nothing acknowledged is lost with
    #: the power, at the price of speed.
    sync_always: bool = False


class Price(_Table, frozen=True):
    """What a model costs, in US dollars per million tokens."""

    input: Annotated[float, Meta(ge=0)]
    output: Annotated[float, Meta(ge=0)]


class Quota(_Table, frozen=True):
    """What is spent: prices, and the caps of the whole system."""

    #: IANA time zone in which calendar windows begin.
    time_zone: str = "UTC"
    #: By the model's name as the provider reports it.
    prices: dict[str, Price] = {}
    caps: tuple[Cap, ...] = ()


class LoopLimits(_Table, frozen=True):
    """How deep, wide, large and repetitive a run tree may become before it is stopped."""

    #: Distance from the root.
    depth: Count = 16
    #: Requests made by one invocation, follow-ups not counted apart.
    fan_out: Count = 1000
    #: Invocations that a root has caused.
    descendants: Count = 5000
    #: Times that one role is asked for the same input in one tree.
    same_input: Count = 5
    #: Times that two roles answer one another in a row.
    ping_pong: Count = 12
    #: Tokens that a tree spends without anything new: no role and no input that it has not seen before.
    tokens_without_progress: Count = 200_000


class Projector(_Table, frozen=True):
    """The tables that answer questions: every event in DuckDB."""

    #: Whether the fleet has any.
    enabled: bool = True
    #: Megabytes that DuckDB may use; what does not fit is written beside its file.
    memory_mb: Annotated[int, Meta(ge=MIN_MEMORY_MB)] = 160
    #: Seconds between two published copies, at least, while something changes.
    publish: Annotated[float, Meta(ge=0.1)] = 2.0


class NamedQueries(_Table, frozen=True):
    """Named queries of one's own, beside those in the fleet's state directory."""

    #: A folder of .sql files, relative to the fleet file's folder; empty for none.
    folder: str = ""


class Archive(_Table, frozen=True):
    """History for ever: how long messages stay in the stream, and where copies of the archive's files go."""

    #: Seconds that messages of INVOCATIONS stay in the stream at least; what came before is in the archive alone.
    hot: Annotated[float, Meta(ge=MIN_HOT_S)] = 7 * 86_400.0
    #: Messages in one file; a day that is over closes one as well.
    segment_rows: Annotated[int, Meta(ge=1000)] = 250_000
    #: Where copies go, ``s3://BUCKET/PREFIX`` or ``file:///FOLDER``; empty for ``HOME/archive`` alone.
    url: str = ""
    #: Address of a store that is not AWS: ``https://s3.example.com``.
    endpoint: str = ""
    region: str = "us-east-1"
    #: Names of the environment variables of the projector that hold the login.
    key_env: str = "AWS_ACCESS_KEY_ID"
    secret_env: str = "AWS_SECRET_ACCESS_KEY"  # noqa: S105 (the name of a variable)
    token_env: str = "AWS_SESSION_TOKEN"  # noqa: S105 (the name of a variable)


class Monitor(_Table, frozen=True):
    """When the monitor looks at the whole fleet, and from where on something is wrong. Times are seconds."""

    #: Between two sweeps of the server's schedule; in between, what happens is looked at as it happens.
    every: Annotated[float, Meta(ge=1)] = 7200.0
    #: How late a sweep may be before that is a finding of the launcher.
    grace: Positive = 300.0
    #: Between two looks in between; they are written down only when they find that something has changed.
    look: Annotated[float, Meta(ge=0.1)] = 10.0
    #: Address of an outside dead man's switch that is called at every sweep; empty for none.
    ping_url: str = ""
    #: How late a daemon's event loop may run before it counts as slow.
    loop_lag: Positive = 2.0
    #: Work of one role that waits to be handed out.
    backlog: Count = 10_000
    #: Age of a claim that its role's own timeout does not explain.
    claim_age: Positive = 3600.0
    #: Dead letters of one look-back window (`lately`) from which a backlog is ultra, and the age of the oldest from which it is.
    dead_letter_surge: Count = 25
    dead_letter_age: Positive = 3 * 86_400.0
    #: The window over which rates and single events are looked at.
    lately: Positive = 3600.0
    #: Failures of one kind in that window that are worth a finding, and how many times the usual they must be.
    errors: Count = 10
    error_factor: Positive = 3.0
    #: How far the tables may be behind the log.
    projection_lag: Positive = 60.0
    #: Parts of disk, store and memory that are left: below the first a concern, below the second ultra.
    storage_left: Annotated[float, Meta(ge=0, le=1)] = 0.10
    storage_gone: Annotated[float, Meta(ge=0, le=1)] = 0.03
    memory_left: Annotated[float, Meta(ge=0, le=1)] = 0.05
    #: Difference between the server's clock and ours.
    clock_skew: Positive = 2.0
    #: Before the end of the server's certificate.
    certificate: Positive = 21 * 86_400.0
    #: Age of the last proof of a guard.
    drill_age: Positive = 30 * 86_400.0
    #: Concerns that one role may raise in an hour, and how long one stands that nobody raises again.
    raises: Count = 6
    raise_stands: Positive = 86_400.0
    #: Role that gets each new finding for triage, as ``project/role``; empty for nobody.
    triage: str = ""
    #: What a triage may have done without a person, as ``ACTION TARGET`` with ``*`` for any: ``restart agent_runner-*``.
    allow: tuple[str, ...] = ()


class Fleet(_Table, frozen=True):
    """A whole fleet file."""

    projects: dict[Name, Project] = {}
    prompts: dict[Name, Prompt] = {}
    quota: Quota = Quota()
    loop: LoopLimits = LoopLimits()
    drills: Drills = Drills()
    server: Server = Server()
    daemons: Daemons = Daemons()
    projector: Projector = Projector()
    queries: NamedQueries = NamedQueries()
    archive: Archive = Archive()
    monitor: Monitor = Monitor()
    slack: Slack = Slack()
    reload: Reload = Reload()
    deploy: Deploying = Deploying()
    incidents: Incidents = Incidents()
    people: dict[Name, Person] = {}
    rotations: dict[Name, Rotation] = {}
    hours: dict[Name, Hours] = {}
    escalation: dict[Name, Escalation] = {}

    def roles(self) -> dict[tuple[str, str], Role]:
        """(project, role) -> Role, in the file's order."""
        return {(p, r): role for p, project in self.projects.items() for r, role in project.roles.items()}

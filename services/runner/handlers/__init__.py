"""The five kinds of handler, one module each: ``function``, ``exec``, ``http``, ``llm``, ``trace``.

A kind is imported when a role first needs it, so a runner without ``http`` roles never pays for an HTTP client.
"""

from __future__ import annotations

from pathlib import Path
from typing import assert_never

from services.fleet import spec
from services.runner.handler import Handler


def build(role: spec.Role, folder: Path) -> Handler:
    """The role's handler, ready to be called. Imports the role's module (which may block) and opens no connection.

    Args:
        role: what to build for; its limits (concurrency, timeout, grace) become the handler's.
        folder: the fleet file's folder, from which relative programs, working directories and modules are taken.

    Raises:
        Permanent: the handler cannot work here, whatever the input: its module, program, folder, address or environment
            variable is missing or unusable. The sentence says which, and what would mend it.
    """
    match role.handler:
        case spec.FunctionHandler() as function:
            from services.runner.handlers.function import FunctionRunner  # noqa: PLC0415 - see above

            return FunctionRunner(function, role, folder)
        case spec.ExecHandler() as command:
            from services.runner.handlers.exec import ExecRunner  # noqa: PLC0415 - see above

            return ExecRunner(command, role, folder)
        case spec.HttpHandler() as post:
            from services.runner.handlers.http import HttpRunner  # noqa: PLC0415 - see above

            return HttpRunner(post, role)
        case spec.LlmHandler() as model:
            from services.runner.handlers.llm import LlmRunner  # noqa: PLC0415 - see above

            return LlmRunner(model, role)
        case spec.TraceHandler() as trace:
            from services.runner.handlers.trace import TraceRunner  # noqa: PLC0415 - see above

            return TraceRunner(trace, role)
        case never:
            assert_never(never)

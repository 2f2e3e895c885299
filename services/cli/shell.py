"""``systems env`` and ``systems completion``: what a shell needs."""

from __future__ import annotations

import shlex
from typing import Annotated, Literal

from cyclopts import Parameter

from services.cli import output
from services.cli.common import DEFAULTS, Common, Flag
from services.cli.exits import Exit, UsageError


def env(*, common: Common = DEFAULTS) -> int:
    r"""Print shell exports for the plain tools: server, login, state directory, published tables.

    Use it as: eval "$(systems env)"; nats sub 'inv.>'; duckdb -readonly "$SYSTEMS_DUCKDB"

    Args:
        common: Which fleet, and how to print.
    """
    from bus import context  # noqa: PLC0415 (completion, beside it, needs none of this)
    from services.cli.session import locate  # noqa: PLC0415

    home, where = locate(common)
    variables = context.exports(where, home.path) | {"SYSTEMS_DUCKDB": str(home.path.resolve() / home.tables.name)}
    if common.json:
        output.json(variables)
        return Exit.DONE
    for name, value in variables.items():
        print(f"export {name}={shlex.quote(value)}")
    return Exit.DONE


def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], Parameter(show_choices=True)],
    /,
    *,
    install: Flag = False,
    common: Common = DEFAULTS,
) -> int:
    """Print the completion script of a shell, or install it for this user.

    Args:
        shell: Which shell.
        install: Write it where the shell looks for it, and add a line to its startup file if need be.
        common: How to print.
    """
    from services.cli.main import build  # noqa: PLC0415 (this module is imported by what it builds)

    app = build()
    if not install:
        script = app.generate_completion(shell=shell)
        if common.json:
            output.json({"shell": shell, "script": script})
        else:
            print(script)
        return Exit.DONE
    try:
        path = app.install_completion(shell=shell)
    except OSError as exc:
        raise UsageError(
            f"expected to write the completion of {shell}, got: {exc}; print it and put it where it belongs"
        ) from exc
    if common.json:
        output.json({"shell": shell, "path": str(path)})
    else:
        print(f"installed as {path}; it works in the next shell")
    return Exit.DONE

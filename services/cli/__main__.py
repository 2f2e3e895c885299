"""The process of one command: ``systems``, and ``python -m services.cli``.

What is here is there for speed alone. A command lives for a fraction of a second, and a third of that would go to looking for
garbage among the modules that it has just imported, and to taking them apart again at the end.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from typing import NoReturn

#: New objects between two looks for garbage: fewer than all imports together make, few enough for `systems watch`.
_GARBAGE = 50_000


def start() -> NoReturn:
    """Run one command, and end the process with its status.

    Everything that a command opens it has closed when it returns; what is left to do is to write out what it printed.
    """
    gc.set_threshold(_GARBAGE, 20, 20)
    try:
        from services.cli.main import main  # noqa: PLC0415 (with the threshold in effect)

        status = main()
    except KeyboardInterrupt:  # during the imports: what has begun ends itself
        from services.cli.exits import Exit  # noqa: PLC0415

        status = Exit.INTERRUPTED
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BrokenPipeError):  # whoever read has seen enough
            stream.flush()
    os._exit(status)


if __name__ == "__main__":
    start()

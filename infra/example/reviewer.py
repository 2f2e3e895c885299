"""An agent's own command line program, as an ``exec`` role runs it: JSON on stdin, JSON lines on stdout.

Needs nothing but Python, and knows nothing of the fleet. Try it alone::

    echo '{"text": "TODO: think", "rules": "never TODO: unfinished"}' | python3 reviewer.py
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any

#: EX_DATAERR of sysexits.h: the input is at fault, so trying again is of no use.
DATA_ERROR = 65


def say(**line: Any) -> None:
    """One line to the runner, at once: it also shows that the work goes on."""
    print(json.dumps(line), flush=True)  # noqa: T201 - stdout is its port


def fail(why: str) -> int:
    """Tell a person on stderr, and the runner by the exit code."""
    print(why, file=sys.stderr)  # noqa: T201 - and stderr its log
    return DATA_ERROR


def rules_of(text: str) -> list[tuple[re.Pattern[str], str]]:
    """The lines ``never PATTERN: why`` of the rules, as pattern and reason."""
    found = []
    for line in text.splitlines():
        if line.startswith("never "):
            pattern, _, why = line[len("never ") :].rpartition(": ")
            found.append((re.compile(pattern or why), why))
    return found


def main() -> int:
    """Review the text on stdin: the exit code."""
    try:
        question = json.load(sys.stdin)
        text, rules = str(question["text"]), rules_of(question.get("rules", ""))
    except (ValueError, KeyError, TypeError, AttributeError, re.error) as exc:
        return fail(f'expected {{"text": "…", "rules": "never PATTERN: why"}} on stdin, got something else: {exc!r}')
    lines = text.splitlines()
    findings: list[dict[str, Any]] = []
    for number, (pattern, why) in enumerate(rules, start=1):
        say(progress=f"rule {number} of {len(rules)}: {why}")
        findings += [{"line": at, "why": why} for at, line in enumerate(lines, start=1) if pattern.search(line)]
    # This reviewer is no model; it counts words as tokens, so that there is something to book.
    read, written = len(text.split()), sum(len(finding["why"].split()) for finding in findings)
    say(usage={"input_tokens": read, "output_tokens": written, "model": "rules"})
    entry = {"project": "shop", "for": f"review of {len(lines)} lines", "input_tokens": read, "output_tokens": written}
    # Asked for in the same atomic step in which this work completes: if it fails, nothing was asked.
    say(request={"role": "ledger/bookkeeper", "input": entry})
    say(result={"verdict": "changes" if findings else "approved", "findings": findings})
    return 0


if __name__ == "__main__":
    sys.exit(main())

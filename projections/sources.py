"""Which events a row was made of: SQL over ``events`` for each table, so that any number can be opened. Pure.

A row names sequences of its streams itself; where it sums up more events than it can name, the table is listed in
:data:`MADE_OF` with the condition that finds all of them. Parameters are the row's own columns.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from bus.store import CONTROL, DEAD_LETTERS, INVOCATIONS
from projections.log import STREAMS

_INVOCATION = "noun = 'invocation' AND key = $id"
_CLAIM = f"{_INVOCATION} AND seq BETWEEN $claimed_seq AND coalesce($ended_seq, 9223372036854775807)"
_TREE = "noun = 'invocation' AND key IN (SELECT id FROM invocations WHERE root = $root)"
_HOUR = (
    "noun = 'invocation' AND project = $project AND role = $role AND seq BETWEEN $first_seq AND $last_seq "
    "AND date_trunc('hour', stored_at) = $hour::TIMESTAMP AND coalesce(model, '') = $model "
    "AND (input_tokens IS NOT NULL OR settled_tokens IS NOT NULL)"
)
#: Table -> condition that finds the events of a row.
MADE_OF: dict[str, str] = {
    "invocations": _INVOCATION,
    "claims": _CLAIM,
    "attempts": _CLAIM,
    "v_slow": _INVOCATION,
    "v_claims_overdue": _INVOCATION,
    "v_cost_by_tree": _TREE,
    "v_failure_bill": _TREE,
    "spend": _HOUR,
    "v_spend": _HOUR,
    "freezes": "noun = 'freeze' AND key = $id",
    "daemons": "noun = 'daemon' AND key = $seat",
    "sweeps": "noun = 'sweep' AND key = $id",
    "findings": "noun = 'finding' AND key = $fingerprint AND seq BETWEEN $first_seq AND $last_seq",
    "incidents": "noun = 'incident' AND key = CAST($number AS VARCHAR)",
    "cards": "noun = 'card' AND key = $seat AND seq BETWEEN $first_seq AND $last_seq",
    "ops_actions": "noun = 'ops' AND key = $id",
    "schedules": (
        "(noun = 'schedule' AND key = $project || '_' || $role || '_' || $name) OR (noun = 'invocation' AND "
        "event IN ('requested', 'scheduled') AND project = $project AND role = $role AND schedule = $name)"
    ),
}
#: Tables whose sequences are of CONTROL, where the row does not say which stream.
_OF_CONTROL = frozenset({"freezes", "drills", "daemons", "registry_versions", "prices", "decisions"})
#: Columns whose stream is not that of their table.
_OTHER = {"kept_seq": DEAD_LETTERS, "last_missed_seq": CONTROL}


def find(table: str, columns: Mapping[str, str], keys: Sequence[str]) -> tuple[str, dict[str, str]]:
    """SQL for the rows of a table that fit all keys, and its parameters.

    Args:
        table: its name, known to exist.
        columns: its columns, with their types.
        keys: each is the text of one of the row's columns, the beginning of a time, or ``project/role``.
    """
    texts = [f'CAST("{name}" AS VARCHAR)' for name, type_ in columns.items() if not type_.endswith("[]")]
    if {"project", "role"} <= columns.keys():
        texts.append("project || '/' || role")
    times = [f'CAST("{name}" AS VARCHAR)' for name, type_ in columns.items() if type_.startswith("TIMESTAMP")]
    wanted = []
    for place in range(len(keys)):
        fits = f"list_contains([{', '.join(texts)}], $key{place})"
        begins = "".join(f" OR starts_with({time}, replace($key{place}, 'T', ' '))" for time in times)
        wanted.append(f"({fits}{begins})")
    sql = f'SELECT * FROM "{table}" WHERE {" AND ".join(wanted)}'  # noqa: S608 (names of the catalogue)
    return sql, {f"key{place}": key for place, key in enumerate(keys)}


def events_of(table: str, row: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The condition that finds the events of a row, and its parameters."""
    made_of = MADE_OF.get(table)
    if made_of is not None:
        names = dict.fromkeys(re.findall(r"\$([a-z_]+)", made_of))
        return made_of, {name: _plain(row[name]) for name in names}
    stream = row.get("stream") or (CONTROL if table in _OF_CONTROL else INVOCATIONS)
    named: dict[str, list[int]] = {}
    for column, value in row.items():
        if value is not None and (column == "seq" or column.endswith("_seq")):
            named.setdefault(_OTHER.get(column, stream), []).append(value)
    return at(named)


def at(named: Mapping[str, Sequence[int]]) -> tuple[str, dict[str, Any]]:
    """The condition that finds events by their streams and sequences, and its parameters."""
    parts = []
    parameters: dict[str, Any] = {}
    for stream in STREAMS:
        if named.get(stream):
            parts.append(f"(stream = '{stream}' AND list_contains($seqs_{stream.lower()}, seq))")
            parameters[f"seqs_{stream.lower()}"] = sorted(set(named[stream]))
    return " OR ".join(parts) or "false", parameters


def _plain(value: Any) -> Any:
    return value.isoformat(sep=" ") if isinstance(value, datetime) else value

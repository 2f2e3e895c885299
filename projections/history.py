"""What was moved out of the primary file: the log into the archive, and rows that have gone cold into files of their own.

An invocation that has completed, was cancelled or was discarded gets no more events. When more than `rows` of them are hot,
the oldest are written to ``HOME/history/<tables>/{invocations,claims}/<from>-<to>.parquet`` with the claims that ended by
then, and leave the tables in the transaction that registers the files. So the primary, and with it each published copy, stays
small however long the history is. Unlike the archive these files can be made again at any time: they belong to the tables
that wrote them (named by when those were made), and go with them. Should an event come all the same, the fold brings the row
back (``projections/fold/recall.sql``).
"""

from __future__ import annotations

import shutil
from pathlib import Path

import duckdb
import structlog

from projections import fold
from projections.archive import files, register
from projections.archive.segment import Step
from projections.database import Database, transaction
from projections.quoting import quoted

log = structlog.get_logger()

#: Ended invocations that stay hot.
COLD_ROWS = 200_000
_ENDED = "state IN ('completed', 'cancelled', 'discarded')"


class Cold:
    """The cold files of one home."""

    def __init__(self, home: Path, rows: int = COLD_ROWS, step: Step = lambda _name: None) -> None:
        self._home = home
        self._rows = rows
        self._step = step
        #: Tables of the last look, and those whose leftovers were removed.
        self._seen = self._tidied = ""

    async def tend(self, database: Database) -> None:
        """Move out what may be. The published copy that follows reads it from the files.

        Raises:
            PrimaryError: see :mod:`projections.faults`.
            OSError: the disk is full; nothing has changed.
        """
        await database.run(self.move)
        await database.run(self.tidy)

    def tidy(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Remove what belongs to no tables, once, and not at the first look at them.

        Until the copy that follows the first look is published, the files of former tables are read.
        """
        present = name(connection)
        if present == self._seen and present != self._tidied:
            tidy(connection, self._home)
            self._tidied = present
        self._seen = present

    def move(self, connection: duckdb.DuckDBPyConnection) -> int:
        """The same, on the writing connection: rows that were moved. At least a quarter more than stays must be there."""
        folder = self._home / "history" / name(connection)
        count = _number(connection, f"SELECT count(*) FROM hot.invocations WHERE {_ENDED}")  # noqa: S608
        if count <= self._rows + self._rows // 4:
            return 0
        up_to = _number(
            connection,
            f"SELECT last_seq FROM hot.invocations WHERE {_ENDED} ORDER BY last_seq LIMIT 1 OFFSET {count - self._rows - 1}",  # noqa: S608
        )
        since = _number(connection, "SELECT coalesce(max(to_seq), 0) FROM cold_files") + 1
        kinds = {
            "invocations": (f"hot.invocations WHERE {_ENDED} AND last_seq <= {up_to}", "first_seq"),
            "claims": (f"hot.claims WHERE ended_seq <= {up_to}", "claimed_seq"),
        }
        written = {kind: self._write(connection, folder, kind, *source, since, up_to) for kind, source in kinds.items()}
        self._step("register")
        with transaction(connection):
            for kind, (source, _) in kinds.items():
                file, rows = written[kind]
                if rows:
                    key = file.relative_to(self._home / "history").as_posix()
                    row = [kind, key, since, up_to, rows, file.stat().st_size]
                    connection.execute("INSERT INTO cold_files VALUES (?, ?, ?, ?, ?, ?)", row)
                connection.execute(f"DELETE FROM {source}")  # noqa: S608 (our own words)
            publish(connection, self._home)
        log.info("rows_gone_cold", invocations=written["invocations"][1], claims=written["claims"][1], up_to=up_to)
        return written["invocations"][1]

    def _write(
        self,
        connection: duckdb.DuckDBPyConnection,
        folder: Path,
        kind: str,
        source: str,
        order: str,
        since: int,
        up_to: int,
    ) -> tuple[Path, int]:
        """The rows of a source as a file: its path, and how many."""
        file = folder / kind / f"{since:012d}-{up_to:012d}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_name(f"{file.name}.part")
        self._step(f"write {kind}")
        connection.execute(
            f"COPY (SELECT * FROM {source} ORDER BY {order}) TO {quoted(draft)} (FORMAT parquet, COMPRESSION zstd)"  # noqa: S608
        )
        rows = _number(connection, f"SELECT count(*) FROM read_parquet({quoted(draft)}, hive_partitioning = false)")  # noqa: S608
        self._step(f"name {kind}")
        files.settle(draft, file)
        return file, rows


def name(connection: duckdb.DuckDBPyConnection) -> str:
    """What the present tables are called on the disk: when their making began."""
    ((made,),) = connection.execute("SELECT strftime(made_at, '%Y%m%dT%H%M%S%f') FROM hot.made").fetchall()
    return str(made)


def publish(connection: duckdb.DuckDBPyConnection, home: Path) -> None:
    """Make the views anew over the tables and the files beside them, inside the caller's transaction.

    Raises:
        duckdb.IOException: a file is not there.
    """
    cold = connection.execute("SELECT kind, key FROM cold_files ORDER BY kind, from_seq").fetchall()
    paths = {
        kind: tuple(home / "history" / key for each, key in cold if each == kind) for kind in ("invocations", "claims")
    }
    archived = tuple(map(Path, register.paths(connection, home / "archive")))
    fold.publish_views(connection, fold.Files(log=archived, **paths))


def tidy(connection: duckdb.DuckDBPyConnection, home: Path) -> None:
    """Remove what belongs to no tables: files that were not registered, and those of former tables."""
    root = home / "history"
    known = {key for (key,) in connection.execute("SELECT key FROM cold_files").fetchall()}
    mine = name(connection)
    for folder in root.iterdir() if root.is_dir() else ():
        if folder.name != mine:
            log.info("cold_files_of_former_tables_removed", folder=str(folder))
            shutil.rmtree(folder)
            continue
        for file in folder.glob("*/*"):
            if file.relative_to(root).as_posix() not in known:
                file.unlink()


def _number(connection: duckdb.DuckDBPyConnection, statement: str) -> int:
    # To its end: a connection with a result that was not read to the end takes no batch.
    ((number,),) = connection.execute(statement).fetchall()
    return int(number)

"""Where the projector is asked, and the headers of its answers; knows nothing of DuckDB, so that everybody can read it."""

from __future__ import annotations

SQL, QUERY, QUERIES, TABLES, CANCEL = (
    "projections.sql",
    "projections.query",
    "projections.queries",
    "projections.tables",
    "projections.cancel",
)

#: Header that asks for a format where the body is plain SQL.
FORMAT = "Systems-Format"
#: Headers of an answer.
ROWS, CUT, TOOK, PART = "Systems-Rows", "Systems-Cut", "Systems-Took-Ms", "Systems-Part"
#: How far the tables are behind the streams: events, and seconds.
LAG_EVENTS, LAG_SECONDS = "Systems-Lag-Events", "Systems-Lag-Seconds"

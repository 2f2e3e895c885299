-- reads: card.*
MERGE INTO cards AS t
USING (
    WITH before AS (
        SELECT seat, max(opening) AS openings, arg_max(state, opening) = 'open' AS stands FROM cards GROUP BY seat
    ),
    told AS (
        -- Whether the seat had a card when it was said: by the last word before it in the batch, else by the table.
        SELECT
            b.key AS seat, b.event, b.seq, b.stored_at, b.raw, coalesce(o.openings, 0) AS openings,
            coalesce(last_value(b.event = 'opened') OVER earlier, o.stands, false) AS stood
        FROM batch AS b LEFT JOIN before AS o ON o.seat = b.key
        WHERE b.noun = 'card'
        WINDOW earlier AS (PARTITION BY b.key ORDER BY b.seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
    ),
    placed AS (
        -- A card that is handed while one waits says it anew; the end of a card that nobody opened is none.
        SELECT *, openings + count(*) FILTER (event = 'opened' AND NOT stood) OVER so_far AS opening
        FROM told
        WHERE stood OR event = 'opened'
        WINDOW so_far AS (PARTITION BY seat ORDER BY seq ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
    )
    SELECT
        seat, opening,
        arg_min({stored_at: stored_at, seq: seq}, seq) FILTER (event = 'opened') AS opened,
        arg_max(
            {
                instance: said(raw, 'instance'), host: said(raw, 'host'), reason: said(raw, 'reason'), why: said(raw, 'why'),
                command: said(raw, 'command'), since: said_time(raw, 'since'), pid: nullif(TRY_CAST(said(raw, 'pid') AS BIGINT), 0),
                boot_id: coalesce(said(raw, 'boot_id'), ''), by_: coalesce(said(raw, 'by'), ''), operation: coalesce(said(raw, 'operation'), '')
            }, seq
        ) FILTER (event = 'opened') AS told,
        arg_max(
            {
                reason: said(raw, 'reason'), boot_id: coalesce(said(raw, 'boot_id'), ''),
                waited_s: coalesce(TRY_CAST(said(raw, 'waited_s') AS DOUBLE), 0), stored_at: stored_at, seq: seq
            }, seq
        ) FILTER (event = 'closed') AS closed,
        max(seq) AS last_seq
    FROM placed
    GROUP BY seat, opening
) AS c
ON t.seat = c.seat AND t.opening = c.opening
WHEN MATCHED THEN UPDATE SET
    state = CASE WHEN c.closed IS NULL THEN 'open' ELSE 'closed' END,
    instance = CASE WHEN c.told IS NULL THEN t.instance ELSE c.told.instance END,
    host = CASE WHEN c.told IS NULL THEN t.host ELSE c.told.host END,
    reason = CASE WHEN c.told IS NULL THEN t.reason ELSE c.told.reason END,
    why = CASE WHEN c.told IS NULL THEN t.why ELSE c.told.why END,
    command = CASE WHEN c.told IS NULL THEN t.command ELSE c.told.command END,
    since = CASE WHEN c.told IS NULL THEN t.since ELSE c.told.since END,
    pid = CASE WHEN c.told IS NULL THEN t.pid ELSE c.told.pid END,
    boot_id = CASE WHEN c.told IS NULL THEN t.boot_id ELSE c.told.boot_id END,
    handed_by = CASE WHEN c.told IS NULL THEN t.handed_by ELSE c.told.by_ END,
    operation = CASE WHEN c.told IS NULL THEN t.operation ELSE c.told.operation END,
    closed_because = c.closed.reason,
    closed_by = c.closed.boot_id,
    waited_s = c.closed.waited_s,
    closed_at = c.closed.stored_at,
    closed_seq = c.closed.seq,
    last_seq = c.last_seq
WHEN NOT MATCHED THEN INSERT VALUES (
    c.seat, c.opening, CASE WHEN c.closed IS NULL THEN 'open' ELSE 'closed' END,
    c.told.instance, c.told.host, c.told.reason, c.told.why, c.told.command, c.told.since, c.told.pid, c.told.boot_id, c.told.by_, c.told.operation,
    c.closed.reason, c.closed.boot_id, c.closed.waited_s, c.opened.stored_at, c.closed.stored_at, c.closed.seq, c.opened.seq, c.last_seq
);

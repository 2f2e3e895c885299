-- reads: daemon.*
MERGE INTO daemons AS t
USING (
    SELECT
        key AS seat,
        arg_max(said(raw, 'daemon'), seq) AS daemon,
        arg_max(said(raw, 'host'), seq) FILTER (event <> 'stopped') AS host,
        arg_max({event: event, stored_at: stored_at}, seq) AS last,
        arg_max(
            {
                boot_id: said(raw, 'boot_id'), pid: TRY_CAST(said(raw, 'pid') AS BIGINT), version: coalesce(said(raw, 'version'), ''),
                stored_at: stored_at
            }, seq
        ) FILTER (event = 'started') AS started,
        count(*) FILTER (event = 'started') AS starts,
        count(*) FILTER (event = 'stopped') AS stops,
        count(*) FILTER (event = 'exited') AS exits,
        arg_max(
            {
                stored_at: stored_at, status: coalesce(TRY_CAST(said(raw, 'status') AS BIGINT), 0),
                restart_in_s: TRY_CAST(said(raw, 'restart_in_s') AS DOUBLE)
            }, seq
        ) FILTER (event = 'exited') AS exited,
        arg_max(said(raw, 'command'), seq) FILTER (event = 'gave_up') AS command,
        min(seq) AS first_seq,
        max(seq) AS last_seq
    FROM batch
    WHERE noun = 'daemon'
    GROUP BY ALL
) AS c
ON t.seat = c.seat
WHEN MATCHED THEN UPDATE SET
    daemon = coalesce(c.daemon, t.daemon),
    host = coalesce(c.host, t.host),
    state = c.last.event,
    since = c.last.stored_at,
    boot_id = CASE WHEN c.started IS NULL THEN t.boot_id ELSE c.started.boot_id END,
    pid = CASE WHEN c.started IS NULL THEN t.pid ELSE c.started.pid END,
    version = CASE WHEN c.started IS NULL THEN t.version ELSE c.started.version END,
    started_at = CASE WHEN c.started IS NULL THEN t.started_at ELSE c.started.stored_at END,
    starts = t.starts + c.starts,
    stops = t.stops + c.stops,
    exits = t.exits + c.exits,
    exited_at = CASE WHEN c.exited IS NULL THEN t.exited_at ELSE c.exited.stored_at END,
    exit_status = CASE WHEN c.exited IS NULL THEN t.exit_status ELSE c.exited.status END,
    restart_in_s = CASE WHEN c.exited IS NULL THEN t.restart_in_s ELSE c.exited.restart_in_s END,
    command = coalesce(c.command, t.command),
    last_seq = c.last_seq
WHEN NOT MATCHED THEN INSERT VALUES (
    c.seat, c.daemon, c.host, c.last.event, c.last.stored_at, c.started.boot_id, c.started.pid, c.started.version, c.started.stored_at,
    c.starts, c.stops, c.exits, c.exited.stored_at, c.exited.status, c.exited.restart_in_s, c.command, c.first_seq, c.last_seq
);

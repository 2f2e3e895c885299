-- name: daemons that ended by themselves or were killed
-- param since: timestamp = moment() - INTERVAL 1 DAY: how far back to look
SELECT
    key AS seat,
    count(*) AS exits,
    max(stored_at) AS last_at,
    CAST(arg_max(data->>'$.status', seq) AS INTEGER) AS last_status,
    CAST(arg_max(data->>'$.pid', seq) AS BIGINT) AS last_pid,
    TRY_CAST(arg_max(data->>'$.restart_in_s', seq) AS DOUBLE) AS restart_in_s,
    any_value(d.state) AS now,
    max(e.seq) AS seq
FROM events AS e LEFT JOIN daemons AS d ON d.seat = e.key
WHERE e.noun = 'daemon' AND e.event = 'exited' AND e.stored_at >= $since
GROUP BY key
ORDER BY last_at DESC

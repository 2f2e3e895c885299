-- reads: invocation.requested, schedule.missed
MERGE INTO schedules AS t
USING (
    SELECT
        project, role, schedule AS name,
        count(*) FILTER (noun = 'invocation') AS requests,
        arg_max({stored_at: stored_at, due: due, id: key, seq: seq}, seq) FILTER (noun = 'invocation') AS asked,
        count(*) FILTER (noun = 'schedule') AS missed,
        arg_max({stored_at: stored_at, due: due, reason: reason, seq: seq}, seq) FILTER (noun = 'schedule') AS passed
    FROM batch
    WHERE (noun = 'invocation' AND event = 'requested' AND generation = 0 AND schedule <> '') OR (noun = 'schedule' AND event = 'missed')
    GROUP BY ALL
) AS c
ON t.project = c.project AND t.role = c.role AND t.name = c.name
WHEN MATCHED THEN UPDATE SET
    requests = t.requests + c.requests,
    last_requested_at = CASE WHEN c.asked IS NULL THEN t.last_requested_at ELSE c.asked.stored_at END,
    last_due = CASE WHEN c.asked IS NULL THEN t.last_due ELSE c.asked.due END,
    last_id = CASE WHEN c.asked IS NULL THEN t.last_id ELSE c.asked.id END,
    last_seq = CASE WHEN c.asked IS NULL THEN t.last_seq ELSE c.asked.seq END,
    missed = t.missed + c.missed,
    last_missed_at = CASE WHEN c.passed IS NULL THEN t.last_missed_at ELSE c.passed.stored_at END,
    last_missed_due = CASE WHEN c.passed IS NULL THEN t.last_missed_due ELSE c.passed.due END,
    last_missed_reason = CASE WHEN c.passed IS NULL THEN t.last_missed_reason ELSE c.passed.reason END,
    last_missed_seq = CASE WHEN c.passed IS NULL THEN t.last_missed_seq ELSE c.passed.seq END
WHEN NOT MATCHED THEN INSERT VALUES (
    c.project, c.role, c.name, c.requests, c.asked.stored_at, c.asked.due, c.asked.id, c.asked.seq,
    c.missed, c.passed.stored_at, c.passed.due, c.passed.reason, c.passed.seq
);

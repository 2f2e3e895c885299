-- reads: ops.*
MERGE INTO ops_actions AS t
USING (
    SELECT
        key AS id,
        arg_max(event, seq) AS state,
        arg_max(
            {
                action: said(raw, 'action'), target: said(raw, 'target'), who: said(raw, 'who'), why: coalesce(said(raw, 'why'), ''),
                decision: nullif(TRY_CAST(said(raw, 'decision') AS BIGINT), 0), stored_at: stored_at, seq: seq
            }, seq
        ) FILTER (event = 'requested') AS requested,
        arg_max(
            {reason: said(raw, 'reason'), command: coalesce(said(raw, 'command'), ''), stored_at: stored_at, seq: seq}, seq
        ) FILTER (event = 'refused') AS refused,
        arg_max(
            {lock: coalesce(said(raw, 'lock'), ''), limit_s: TRY_CAST(said(raw, 'limit_s') AS DOUBLE), stored_at: stored_at, seq: seq}, seq
        ) FILTER (event = 'started') AS started,
        arg_max(
            {
                ok: TRY_CAST(said(raw, 'ok') AS BOOLEAN), took_s: TRY_CAST(said(raw, 'took_s') AS DOUBLE),
                evidence: said_json(raw, 'evidence'), stored_at: stored_at, seq: seq
            }, seq
        ) FILTER (event = 'finished') AS finished,
        min(seq) AS first_seq,
        max(seq) AS last_seq
    FROM batch
    WHERE noun = 'ops'
    GROUP BY ALL
) AS c
ON t.id = c.id
WHEN MATCHED THEN UPDATE SET
    state = c.state,
    action = CASE WHEN c.requested IS NULL THEN t.action ELSE c.requested.action END,
    target = CASE WHEN c.requested IS NULL THEN t.target ELSE c.requested.target END,
    who = CASE WHEN c.requested IS NULL THEN t.who ELSE c.requested.who END,
    why = CASE WHEN c.requested IS NULL THEN t.why ELSE c.requested.why END,
    decision = CASE WHEN c.requested IS NULL THEN t.decision ELSE c.requested.decision END,
    refused_because = CASE WHEN c.refused IS NULL THEN t.refused_because ELSE c.refused.reason END,
    command = CASE WHEN c.refused IS NULL THEN t.command ELSE c.refused.command END,
    lock = CASE WHEN c.started IS NULL THEN t.lock ELSE c.started.lock END,
    limit_s = CASE WHEN c.started IS NULL THEN t.limit_s ELSE c.started.limit_s END,
    ok = CASE WHEN c.finished IS NULL THEN t.ok ELSE c.finished.ok END,
    took_s = CASE WHEN c.finished IS NULL THEN t.took_s ELSE c.finished.took_s END,
    evidence = CASE WHEN c.finished IS NULL THEN t.evidence ELSE c.finished.evidence END,
    requested_at = CASE WHEN c.requested IS NULL THEN t.requested_at ELSE c.requested.stored_at END,
    requested_seq = CASE WHEN c.requested IS NULL THEN t.requested_seq ELSE c.requested.seq END,
    refused_at = CASE WHEN c.refused IS NULL THEN t.refused_at ELSE c.refused.stored_at END,
    refused_seq = CASE WHEN c.refused IS NULL THEN t.refused_seq ELSE c.refused.seq END,
    started_at = CASE WHEN c.started IS NULL THEN t.started_at ELSE c.started.stored_at END,
    started_seq = CASE WHEN c.started IS NULL THEN t.started_seq ELSE c.started.seq END,
    finished_at = CASE WHEN c.finished IS NULL THEN t.finished_at ELSE c.finished.stored_at END,
    finished_seq = CASE WHEN c.finished IS NULL THEN t.finished_seq ELSE c.finished.seq END,
    last_seq = c.last_seq
WHEN NOT MATCHED THEN INSERT VALUES (
    c.id, c.state, c.requested.action, c.requested.target, c.requested.who, c.requested.why, c.requested.decision,
    c.refused.reason, c.refused.command, c.started.lock, c.started.limit_s, c.finished.ok, c.finished.took_s, c.finished.evidence,
    c.requested.stored_at, c.requested.seq, c.refused.stored_at, c.refused.seq,
    c.started.stored_at, c.started.seq, c.finished.stored_at, c.finished.seq, c.first_seq, c.last_seq
);

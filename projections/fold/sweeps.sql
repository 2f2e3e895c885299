-- reads: sweep.*
MERGE INTO sweeps AS t
USING (
    SELECT
        key AS id,
        arg_max({trigger_: said(raw, 'trigger'), why: coalesce(said(raw, 'why'), '')}, seq) AS asked,
        arg_max({stored_at: stored_at, seq: seq}, seq) FILTER (event = 'started') AS started,
        arg_max(
            {
                verdict: said(raw, 'verdict'),
                new: TRY_CAST(said(raw, 'counts.new') AS BIGINT), still: TRY_CAST(said(raw, 'counts.still') AS BIGINT),
                worse: TRY_CAST(said(raw, 'counts.worse') AS BIGINT), better: TRY_CAST(said(raw, 'counts.better') AS BIGINT),
                gone: TRY_CAST(said(raw, 'counts.gone') AS BIGINT), muted: TRY_CAST(said(raw, 'counts.muted') AS BIGINT),
                silenced: TRY_CAST(said(raw, 'counts.silenced') AS BIGINT), open: TRY_CAST(said(raw, 'counts.open') AS BIGINT),
                unseen: TRY_CAST(coalesce(said_json(raw, 'unseen'), '[]') AS VARCHAR[]),
                findings: TRY_CAST(coalesce(said_json(raw, 'findings'), '[]') AS VARCHAR[]),
                positions: said_json(raw, 'positions'),
                took_ms: TRY_CAST(said(raw, 'took_ms') AS DOUBLE), next_at: said_time(raw, 'next_at'), stored_at: stored_at, seq: seq
            }, seq
        ) FILTER (event = 'finished') AS finished,
        min(seq) AS first_seq,
        max(seq) AS last_seq
    FROM batch
    WHERE noun = 'sweep'
    GROUP BY ALL
) AS c
ON t.id = c.id
WHEN MATCHED THEN UPDATE SET
    "trigger" = c.asked.trigger_,
    why = c.asked.why,
    verdict = CASE WHEN c.finished IS NULL THEN t.verdict ELSE c.finished.verdict END,
    open = CASE WHEN c.finished IS NULL THEN t.open ELSE c.finished.open END,
    new = CASE WHEN c.finished IS NULL THEN t.new ELSE c.finished.new END,
    still = CASE WHEN c.finished IS NULL THEN t.still ELSE c.finished.still END,
    worse = CASE WHEN c.finished IS NULL THEN t.worse ELSE c.finished.worse END,
    better = CASE WHEN c.finished IS NULL THEN t.better ELSE c.finished.better END,
    gone = CASE WHEN c.finished IS NULL THEN t.gone ELSE c.finished.gone END,
    muted = CASE WHEN c.finished IS NULL THEN t.muted ELSE c.finished.muted END,
    silenced = CASE WHEN c.finished IS NULL THEN t.silenced ELSE c.finished.silenced END,
    unseen = CASE WHEN c.finished IS NULL THEN t.unseen ELSE c.finished.unseen END,
    findings = CASE WHEN c.finished IS NULL THEN t.findings ELSE c.finished.findings END,
    positions = CASE WHEN c.finished IS NULL THEN t.positions ELSE c.finished.positions END,
    took_ms = CASE WHEN c.finished IS NULL THEN t.took_ms ELSE c.finished.took_ms END,
    next_at = CASE WHEN c.finished IS NULL THEN t.next_at ELSE c.finished.next_at END,
    started_at = CASE WHEN c.started IS NULL THEN t.started_at ELSE c.started.stored_at END,
    started_seq = CASE WHEN c.started IS NULL THEN t.started_seq ELSE c.started.seq END,
    finished_at = CASE WHEN c.finished IS NULL THEN t.finished_at ELSE c.finished.stored_at END,
    finished_seq = CASE WHEN c.finished IS NULL THEN t.finished_seq ELSE c.finished.seq END,
    last_seq = c.last_seq
WHEN NOT MATCHED THEN INSERT VALUES (
    c.id, c.asked.trigger_, c.asked.why, c.finished.verdict,
    c.finished.open, c.finished.new, c.finished.still, c.finished.worse, c.finished.better, c.finished.gone,
    c.finished.muted, c.finished.silenced, c.finished.unseen, c.finished.findings, c.finished.positions,
    c.finished.took_ms, c.finished.next_at, c.started.stored_at, c.started.seq, c.finished.stored_at, c.finished.seq,
    c.first_seq, c.last_seq
);

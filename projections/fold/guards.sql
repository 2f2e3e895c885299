-- reads: freeze.*, quota.tripped, quota.reset, loop.*, guard.*, drill.*
INSERT INTO hot.trips (guard, scope, key, project, reason, tripped_at, until, stream, seq, actor)
SELECT
    CASE noun WHEN 'freeze' THEN 'kill_switch' WHEN 'guard' THEN 'pause' ELSE noun END,
    CASE noun WHEN 'freeze' THEN 'system' WHEN 'loop' THEN 'tree ' || key WHEN 'quota' THEN split_part(said(raw, 'key'), '.', 1) ELSE said(raw, 'role') END,
    CASE noun WHEN 'quota' THEN said(raw, 'key') WHEN 'guard' THEN said(raw, 'role') ELSE key END,
    project,
    CASE
        WHEN noun = 'quota' THEN said(raw, 'used') || ' of ' || said(raw, 'cap') || ' used of ' || said(raw, 'key')
        WHEN noun = 'loop' THEN reason || ': ' || said(raw, 'count') || ', allowed are ' || said(raw, 'limit')
        ELSE reason
    END,
    stored_at, said_time(raw, 'until'), stream, seq, coalesce(nullif(said(raw, 'by'), ''), actor)
FROM batch
WHERE (noun, event) IN (('freeze', 'frozen'), ('quota', 'tripped'), ('loop', 'tripped'), ('guard', 'paused'))
    AND (noun NOT IN ('quota', 'guard') OR said(raw, CASE noun WHEN 'quota' THEN 'key' ELSE 'role' END) IS NOT NULL);

-- A trip is cleared by the first event that clears its kind and key after it.
UPDATE hot.trips AS t
SET cleared_at = r.stored_at, cleared_by = r.event, cleared_seq = r.seq
FROM (
    SELECT o.stream, o.seq AS tripped_seq, unnest(arg_min({event: c.event, stored_at: c.stored_at, seq: c.seq}, c.seq))
    FROM hot.trips AS o
    JOIN (
        SELECT
            stream, seq, stored_at, event,
            CASE noun WHEN 'freeze' THEN 'kill_switch' WHEN 'guard' THEN 'pause' ELSE noun END AS guard,
            CASE noun WHEN 'quota' THEN said(raw, 'key') WHEN 'guard' THEN said(raw, 'role') ELSE key END AS key
        FROM batch
        WHERE (noun, event) IN (('freeze', 'thawed'), ('quota', 'reset'), ('loop', 'cleared'), ('guard', 'resumed'))
    ) AS c ON c.guard = o.guard AND c.key = o.key AND c.stream = o.stream AND c.seq > o.seq
    WHERE o.cleared_seq IS NULL
    GROUP BY o.stream, o.seq
) AS r
WHERE t.stream = r.stream AND t.seq = r.tripped_seq;

MERGE INTO freezes AS t
USING (
    SELECT
        key AS id,
        arg_max(said(raw, 'mode'), seq) FILTER (event IN ('frozen', 'changed')) AS mode,
        arg_max(
            {
                seq: seq, reason: reason, thrown_by: coalesce(said(raw, 'by'), ''), until: said_time(raw, 'until'), frozen_at: stored_at,
                after_seq: TRY_CAST(said(raw, 'seq') AS UBIGINT),
                owed: TRY(json_array_length(decode(raw), '$.data.owe'))
            }, seq
        ) FILTER (event = 'frozen') AS frozen,
        count(*) FILTER (event = 'receipt' AND said(raw, 'stage') = 'freeze') AS receipts,
        count(*) FILTER (event = 'receipt' AND said(raw, 'stage') = 'thaw') AS thaw_receipts,
        arg_max(said(raw, 'instances'), seq) FILTER (event = 'missing') AS missing,
        arg_max(stored_at, seq) FILTER (event = 'thawing') AS thawing_at,
        arg_max(
            {
                thawed_at: stored_at, frozen_s: TRY_CAST(said(raw, 'frozen_s') AS DOUBLE),
                written: coalesce(TRY_CAST(said(raw, 'written') AS BIGINT), 0)
            }, seq
        ) FILTER (event = 'thawed') AS thawed,
        min(seq) AS first_seq,
        max(seq) AS last_seq
    FROM batch
    WHERE noun = 'freeze'
    GROUP BY ALL
) AS c
ON t.id = c.id
WHEN MATCHED THEN UPDATE SET
    mode = coalesce(c.mode, t.mode),
    reason = CASE WHEN c.frozen IS NULL THEN t.reason ELSE c.frozen.reason END,
    thrown_by = CASE WHEN c.frozen IS NULL THEN t.thrown_by ELSE c.frozen.thrown_by END,
    until = CASE WHEN c.frozen IS NULL THEN t.until ELSE c.frozen.until END,
    frozen_at = CASE WHEN c.frozen IS NULL THEN t.frozen_at ELSE c.frozen.frozen_at END,
    after_seq = CASE WHEN c.frozen IS NULL THEN t.after_seq ELSE c.frozen.after_seq END,
    owed = CASE WHEN c.frozen IS NULL THEN t.owed ELSE c.frozen.owed END,
    receipts = t.receipts + c.receipts,
    missing = coalesce(c.missing, t.missing),
    thaw_receipts = t.thaw_receipts + c.thaw_receipts,
    thawing_at = coalesce(c.thawing_at, t.thawing_at),
    thawed_at = coalesce(c.thawed.thawed_at, t.thawed_at),
    frozen_s = coalesce(c.thawed.frozen_s, t.frozen_s),
    written = coalesce(c.thawed.written, t.written),
    last_seq = c.last_seq
WHEN NOT MATCHED THEN INSERT VALUES (
    c.id, c.mode, c.frozen.reason, c.frozen.thrown_by, c.frozen.until, c.frozen.frozen_at, c.frozen.after_seq, c.frozen.owed,
    c.receipts, c.missing, c.thaw_receipts, c.thawing_at, c.thawed.thawed_at, c.thawed.frozen_s, c.thawed.written,
    c.first_seq, c.last_seq
);

INSERT INTO drills
SELECT
    coalesce(said(raw, 'guard'), key), event, stored_at, TRY_CAST(said(raw, 'took_s') AS DOUBLE), said(raw, 'expected'), said(raw, 'got'),
    said(raw, 'evidence'), seq
FROM batch
WHERE noun = 'drill';

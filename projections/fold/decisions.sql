-- reads: decision.recorded
INSERT INTO decisions
SELECT
    TRY_CAST(said(raw, 'number') AS BIGINT), said(raw, 'title'), said(raw, 'by'), coalesce(said(raw, 'context'), ''),
    coalesce(said(raw, 'decision'), ''), coalesce(said(raw, 'consequences'), ''), nullif(TRY_CAST(said(raw, 'supersedes') AS BIGINT), 0),
    NULL, stored_at, seq, NULL
FROM batch
WHERE noun = 'decision' AND event = 'recorded';

-- The last one that takes its place. There are few decisions: all are looked at.
UPDATE decisions AS d
SET superseded_by = s.number, superseded_seq = s.seq
FROM (
    SELECT supersedes, unnest(arg_max({number: number, seq: seq}, seq)) FROM decisions WHERE supersedes IS NOT NULL GROUP BY supersedes
) AS s
WHERE d.number = s.supersedes AND d.superseded_seq IS DISTINCT FROM s.seq;

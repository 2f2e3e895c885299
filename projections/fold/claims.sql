-- reads: invocation.*
-- Everything that makes or ends a claim, each with what comes next in the same invocation: a claim is ended by that.
CREATE OR REPLACE TEMP TABLE step AS
SELECT
    project, role, key, seq, event,
    lag(seq) OVER w IS NULL AS first,
    lead(seq) OVER w AS next
FROM batch
WHERE noun = 'invocation' AND event NOT IN ('scheduled', 'redriven', 'discarded')
WINDOW w AS (PARTITION BY key, role, project ORDER BY seq);

-- Claims that end in this batch, made before it or in it.
INSERT INTO hot.claims
SELECT
    c.* EXCLUDE (end_seq),
    e.seq, e.stored_at, e.event, e.reason, e.duration_ms, e.input_tokens, e.output_tokens, e.model,
    e.error_kind, e.error_fingerprint, e.error_message, e.retry_at,
    e.settled_tokens, e.settled_usd_micros, e.assumed
FROM (
    SELECT t.*, s.seq AS end_seq
    FROM hot.standing AS t JOIN step AS s ON s.first AND s.key = t.id AND s.role = t.role AND s.project = t.project
    UNION ALL
    SELECT
        b.project, b.role, b.key, coalesce(nullif(b.correlation_id, ''), b.key), b.seq, b.stored_at, b.attempt, b.delivery,
        b.holder, b.runner, b.registry_revision, b.prompt_digest, b.hold_tokens, b.hold_usd_micros, s.next
    FROM step AS s JOIN batch AS b ON b.seq = s.seq AND b.noun = 'invocation' AND b.event = 'claimed'
    WHERE s.event = 'claimed' AND s.next IS NOT NULL
) AS c (
    project, role, id, root, claimed_seq, claimed_at, attempt, delivery, holder, runner, registry_revision, prompt_digest,
    hold_tokens, hold_usd_micros, end_seq
)
JOIN batch AS e ON e.seq = c.end_seq AND e.noun = 'invocation';

DELETE FROM hot.standing AS t
USING step AS s
WHERE s.first AND s.key = t.id AND s.role = t.role AND s.project = t.project;

INSERT INTO hot.standing
SELECT
    b.project, b.role, b.key, coalesce(nullif(b.correlation_id, ''), b.key), b.seq, b.stored_at, b.attempt, b.delivery,
    b.holder, b.runner, b.registry_revision, b.prompt_digest, b.hold_tokens, b.hold_usd_micros
FROM step AS s JOIN batch AS b ON b.seq = s.seq AND b.noun = 'invocation' AND b.event = 'claimed'
WHERE s.event = 'claimed' AND s.next IS NULL;

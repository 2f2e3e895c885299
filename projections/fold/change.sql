-- reads: invocation.*
-- What the batch says of each invocation in it, whatever was before.
CREATE OR REPLACE TEMP TABLE change AS
WITH redriven AS (
    -- Seldom there: errors and crashes are counted from the last of them on.
    SELECT project, role, key, max(seq) AS seq FROM batch WHERE noun = 'invocation' AND event = 'redriven' GROUP BY ALL
)
SELECT
    b.project, b.role, b.key AS id,
    arg_min(
        {seq: b.seq, stored_at: b.stored_at, event: b.event, actor: b.actor, generation: b.generation}, b.seq
    ) AS first,
    arg_max({seq: b.seq, stored_at: b.stored_at, event: b.event, reason: b.reason}, b.seq) AS last,
    max(b.seq) FILTER (b.event = 'requested') AS requested_seq,
    arg_max(
        {parent: b.parent, root: b.root, depth: b.depth, schedule: b.schedule, due: b.due, generation: b.generation}, b.seq
    ) FILTER (b.event IN ('requested', 'scheduled')) AS request,
    arg_min(b.stored_at, b.seq) FILTER (b.event = 'claimed') AS first_claimed_at,
    arg_max(
        {
            seq: b.seq, stored_at: b.stored_at, holder: b.holder, runner: b.runner, delivery: b.delivery,
            registry_revision: b.registry_revision, prompt_digest: b.prompt_digest
        }, b.seq
    ) FILTER (b.event = 'claimed') AS claim,
    -- Every event but these makes or ends a claim, and sets or clears the next try.
    max(b.seq) FILTER (b.event NOT IN ('scheduled', 'redriven', 'discarded')) AS hold_seq,
    max(b.seq) FILTER (b.event NOT IN ('scheduled', 'redriven', 'discarded', 'completed', 'swept')) AS retry_seq,
    arg_max(
        {
            seq: b.seq, kind: b.error_kind, fingerprint: b.error_fingerprint, message: b.error_message, retry_at: b.retry_at
        }, b.seq
    ) FILTER (b.event = 'failed') AS error,
    any_value(r.seq) IS NOT NULL AS reset,
    count(*) FILTER (b.event = 'claimed') AS attempts,
    count(*) FILTER (b.event = 'failed' AND b.seq > coalesce(r.seq, 0)) AS errors,
    count(*) FILTER (b.event = 'swept' AND b.seq > coalesce(r.seq, 0)) AS crashes,
    count(*) FILTER (b.event = 'redriven') AS redrives,
    count(*) FILTER (b.event = 'released') AS releases,
    coalesce(sum(micros(coalesce(b.duration_ms * 1000, b.age_s * 1000000))), 0) AS run_us,
    coalesce(sum(b.input_tokens), 0) AS input_tokens,
    coalesce(sum(b.output_tokens), 0) AS output_tokens,
    arg_max(b.model, b.seq) FILTER (b.model <> '') AS model,
    coalesce(sum(b.input_tokens) FILTER (b.settled_tokens IS NULL), 0) AS unsettled_input_tokens,
    coalesce(sum(b.output_tokens) FILTER (b.settled_tokens IS NULL), 0) AS unsettled_output_tokens,
    coalesce(sum(greatest(b.settled_tokens, 0)), 0) AS settled_tokens,
    coalesce(sum(greatest(b.settled_usd_micros, 0)), 0) AS settled_usd_micros,
    coalesce(sum(greatest(b.settled_usd_micros, 0)) FILTER (b.assumed), 0) AS assumed_usd_micros
FROM batch AS b
LEFT JOIN redriven AS r USING (project, role, key)
WHERE b.noun = 'invocation'
GROUP BY ALL;

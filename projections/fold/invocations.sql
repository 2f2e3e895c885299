-- reads: invocation.*
-- What the batch says of each invocation in it, whatever was before.
CREATE OR REPLACE TEMP TABLE change AS
WITH redriven AS (
    -- Seldom there: errors and crashes are counted from the last of them on.
    SELECT project, role, key, max(seq) AS seq FROM batch WHERE noun = 'invocation' AND event = 'redriven' GROUP BY ALL
)
SELECT
    b.project, b.role, b.key AS id,
    arg_min({seq: b.seq, stored_at: b.stored_at, actor: b.actor}, b.seq) AS first,
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

MERGE INTO hot.invocations AS t
USING change AS c
ON t.id = c.id AND t.role = c.role AND t.project = c.project
WHEN MATCHED THEN UPDATE SET
    state = state_after(c.last.event),
    reason = coalesce(c.last.reason, ''),
    since = c.last.stored_at,
    first_claimed_at = coalesce(t.first_claimed_at, c.first_claimed_at),
    last_claimed_at = coalesce(c.claim.stored_at, t.last_claimed_at),
    retry_at = CASE WHEN c.retry_seq IS NULL THEN t.retry_at WHEN c.retry_seq = c.error.seq THEN c.error.retry_at END,
    due = CASE WHEN c.request IS NULL THEN t.due ELSE c.request.due END,
    attempts = t.attempts + c.attempts,
    errors = CASE WHEN c.reset THEN 0 ELSE t.errors END + c.errors,
    crashes = CASE WHEN c.reset THEN 0 ELSE t.crashes END + c.crashes,
    redrives = t.redrives + c.redrives,
    releases = t.releases + c.releases,
    deliveries = coalesce(c.claim.delivery, t.deliveries),
    generation = coalesce(c.request.generation, t.generation),
    holder = CASE WHEN c.hold_seq IS NULL THEN t.holder WHEN c.hold_seq = c.claim.seq THEN c.claim.holder ELSE '' END,
    runner = CASE WHEN c.hold_seq IS NULL THEN t.runner WHEN c.hold_seq = c.claim.seq THEN c.claim.runner ELSE '' END,
    run_us = bounded(t.run_us::HUGEINT + c.run_us),
    input_tokens = bounded(t.input_tokens::HUGEINT + c.input_tokens),
    output_tokens = bounded(t.output_tokens::HUGEINT + c.output_tokens),
    model = coalesce(c.model, t.model),
    unsettled_input_tokens = bounded(t.unsettled_input_tokens::HUGEINT + c.unsettled_input_tokens),
    unsettled_output_tokens = bounded(t.unsettled_output_tokens::HUGEINT + c.unsettled_output_tokens),
    settled_tokens = bounded(t.settled_tokens::HUGEINT + c.settled_tokens),
    settled_usd_micros = bounded(t.settled_usd_micros::HUGEINT + c.settled_usd_micros),
    assumed_usd_micros = bounded(t.assumed_usd_micros::HUGEINT + c.assumed_usd_micros),
    error_kind = coalesce(c.error.kind, t.error_kind),
    error_fingerprint = coalesce(c.error.fingerprint, t.error_fingerprint),
    error_message = coalesce(c.error.message, t.error_message),
    parent = coalesce(c.request.parent, t.parent),
    root = CASE WHEN c.request IS NULL THEN t.root ELSE coalesce(nullif(c.request.root, ''), c.id) END,
    depth = coalesce(c.request.depth, t.depth),
    schedule = coalesce(c.request.schedule, t.schedule),
    registry_revision = coalesce(c.claim.registry_revision, t.registry_revision),
    prompt_digest = coalesce(c.claim.prompt_digest, t.prompt_digest),
    last_seq = c.last.seq,
    requested_seq = coalesce(c.requested_seq, t.requested_seq),
    claimed_seq = coalesce(c.claim.seq, t.claimed_seq),
    error_seq = coalesce(c.error.seq, t.error_seq)
WHEN NOT MATCHED THEN INSERT (
    project, role, id, state, reason, since, requested_at, first_claimed_at, last_claimed_at, retry_at, due,
    attempts, errors, crashes, redrives, releases, deliveries, generation, holder, runner, run_us,
    input_tokens, output_tokens, model, unsettled_input_tokens, unsettled_output_tokens,
    settled_tokens, settled_usd_micros, assumed_usd_micros, error_kind, error_fingerprint, error_message,
    parent, root, depth, schedule, actor, registry_revision, prompt_digest,
    first_seq, last_seq, requested_seq, claimed_seq, error_seq
) VALUES (
    c.project, c.role, c.id, state_after(c.last.event), coalesce(c.last.reason, ''), c.last.stored_at, c.first.stored_at,
    c.first_claimed_at, c.claim.stored_at, CASE WHEN c.retry_seq = c.error.seq THEN c.error.retry_at END, c.request.due,
    c.attempts, c.errors, c.crashes, c.redrives, c.releases,
    coalesce(c.claim.delivery, 0), coalesce(c.request.generation, 0),
    CASE WHEN c.hold_seq = c.claim.seq THEN c.claim.holder ELSE '' END,
    CASE WHEN c.hold_seq = c.claim.seq THEN c.claim.runner ELSE '' END,
    bounded(c.run_us), bounded(c.input_tokens), bounded(c.output_tokens), coalesce(c.model, ''),
    bounded(c.unsettled_input_tokens), bounded(c.unsettled_output_tokens),
    bounded(c.settled_tokens), bounded(c.settled_usd_micros), bounded(c.assumed_usd_micros),
    c.error.kind, c.error.fingerprint, c.error.message,
    coalesce(c.request.parent, ''), coalesce(nullif(c.request.root, ''), c.id), coalesce(c.request.depth, 0),
    coalesce(c.request.schedule, ''), coalesce(c.first.actor, ''), c.claim.registry_revision, c.claim.prompt_digest,
    c.first.seq, c.last.seq, coalesce(c.requested_seq, 0), c.claim.seq, c.error.seq
);

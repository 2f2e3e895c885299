-- reads: invocation.*
-- The whole rows, as they are after the batch; `place` is where the old one lies.
CREATE OR REPLACE TEMP TABLE folded AS
SELECT
    c.project,
    c.role,
    c.id,
    state_after(c.last.event) AS state,
    coalesce(c.last.reason, '') AS reason,
    c.last.stored_at AS since,
    coalesce(t.requested_at, c.first.stored_at) AS requested_at,
    coalesce(t.first_claimed_at, c.first_claimed_at) AS first_claimed_at,
    coalesce(c.claim.stored_at, t.last_claimed_at) AS last_claimed_at,
    CASE WHEN c.retry_seq IS NULL THEN t.retry_at WHEN c.retry_seq = c.error.seq THEN c.error.retry_at END AS retry_at,
    CASE WHEN c.request IS NULL THEN t.due ELSE c.request.due END AS due,
    coalesce(t.attempts, 0) + c.attempts AS attempts,
    CASE WHEN c.reset OR t.errors IS NULL THEN 0 ELSE t.errors END + c.errors AS errors,
    CASE WHEN c.reset OR t.crashes IS NULL THEN 0 ELSE t.crashes END + c.crashes AS crashes,
    coalesce(t.redrives, 0) + c.redrives AS redrives,
    coalesce(t.releases, 0) + c.releases AS releases,
    coalesce(c.claim.delivery, t.deliveries, 0) AS deliveries,
    coalesce(c.request.generation, t.generation, 0) AS generation,
    CASE WHEN c.hold_seq IS NULL THEN coalesce(t.holder, '') WHEN c.hold_seq = c.claim.seq THEN c.claim.holder ELSE '' END AS holder,
    CASE WHEN c.hold_seq IS NULL THEN coalesce(t.runner, '') WHEN c.hold_seq = c.claim.seq THEN c.claim.runner ELSE '' END AS runner,
    bounded(coalesce(t.run_us, 0)::HUGEINT + c.run_us) AS run_us,
    bounded(coalesce(t.input_tokens, 0)::HUGEINT + c.input_tokens) AS input_tokens,
    bounded(coalesce(t.output_tokens, 0)::HUGEINT + c.output_tokens) AS output_tokens,
    coalesce(c.model, t.model, '') AS model,
    bounded(coalesce(t.unsettled_input_tokens, 0)::HUGEINT + c.unsettled_input_tokens) AS unsettled_input_tokens,
    bounded(coalesce(t.unsettled_output_tokens, 0)::HUGEINT + c.unsettled_output_tokens) AS unsettled_output_tokens,
    bounded(coalesce(t.settled_tokens, 0)::HUGEINT + c.settled_tokens) AS settled_tokens,
    bounded(coalesce(t.settled_usd_micros, 0)::HUGEINT + c.settled_usd_micros) AS settled_usd_micros,
    bounded(coalesce(t.assumed_usd_micros, 0)::HUGEINT + c.assumed_usd_micros) AS assumed_usd_micros,
    coalesce(c.error.kind, t.error_kind) AS error_kind,
    coalesce(c.error.fingerprint, t.error_fingerprint) AS error_fingerprint,
    coalesce(c.error.message, t.error_message) AS error_message,
    coalesce(c.request.parent, t.parent, '') AS parent,
    coalesce(nullif(c.request.root, ''), CASE WHEN c.request IS NULL THEN t.root END, c.id) AS root,
    coalesce(c.request.depth, t.depth, 0) AS depth,
    coalesce(c.request.schedule, t.schedule, '') AS schedule,
    coalesce(t.actor, c.first.actor, '') AS actor,
    coalesce(c.claim.registry_revision, t.registry_revision) AS registry_revision,
    coalesce(c.claim.prompt_digest, t.prompt_digest) AS prompt_digest,
    coalesce(t.first_seq, c.first.seq) AS first_seq,
    c.last.seq AS last_seq,
    coalesce(c.requested_seq, t.requested_seq, 0) AS requested_seq,
    coalesce(c.claim.seq, t.claimed_seq) AS claimed_seq,
    coalesce(c.error.seq, t.error_seq) AS error_seq,
    t.rowid AS place,
    -- Nothing hot before it: it may be a cold one, unless it begins under an id that was made for it alone (a UUID of version 7;
    -- those of idempotency keys are of version 8, and come again when the stream has forgotten them).
    t.id IS NULL AND NOT (
        coalesce(c.first.event = 'scheduled' OR (c.first.event = 'requested' AND c.first.generation = 0), false)
        AND c.id LIKE '________-____-7___-%'
    ) AS stranger
FROM change AS c
LEFT JOIN hot.invocations AS t ON t.id = c.id AND t.role = c.role AND t.project = c.project;

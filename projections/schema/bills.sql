-- What work cost, along its causes.
CREATE OR REPLACE VIEW v_cost_by_tree AS
SELECT
    root,
    arg_min(project || '/' || role, {depth: depth, seq: first_seq}) AS asked,
    arg_min(actor, {depth: depth, seq: first_seq}) AS actor,
    min(requested_at) AS requested_at,
    max(since) AS last_at,
    count(*) AS invocations,
    count(*) FILTER (ended_at IS NULL) AS unfinished,
    count(*) FILTER (state = 'dead_lettered') AS dead,
    max(depth) AS depth,
    list_sort(list(DISTINCT project)) AS projects,
    sum(attempts) AS attempts,
    sum(input_tokens) AS input_tokens,
    sum(output_tokens) AS output_tokens,
    sum(cost_usd) AS cost_usd,
    sum(assumed_usd) AS assumed_usd,
    count(*) FILTER (cost_usd IS NULL) AS unpriced,
    min(first_seq) AS first_seq,
    max(last_seq) AS last_seq
FROM invocations
GROUP BY root;
COMMENT ON VIEW v_cost_by_tree IS 'What each request cost with everything that it caused, across projects';
COMMENT ON COLUMN v_cost_by_tree.asked IS 'Role that the root asked, as project/role';
COMMENT ON COLUMN v_cost_by_tree.requested_at IS 'When the first of it was asked for';
COMMENT ON COLUMN v_cost_by_tree.last_at IS 'When its last event was stored';
COMMENT ON COLUMN v_cost_by_tree.invocations IS 'Invocations in the tree';
COMMENT ON COLUMN v_cost_by_tree.unfinished IS 'Of these, those that go on';
COMMENT ON COLUMN v_cost_by_tree.dead IS 'Of these, dead letters that wait for a person';
COMMENT ON COLUMN v_cost_by_tree.depth IS 'Longest chain of causes below the root';
COMMENT ON COLUMN v_cost_by_tree.projects IS 'Projects that worked for it';
COMMENT ON COLUMN v_cost_by_tree.cost_usd IS 'US dollars of all of it that has a price';
COMMENT ON COLUMN v_cost_by_tree.assumed_usd IS 'Of that, whole holds of claims whose holder died';
COMMENT ON COLUMN v_cost_by_tree.unpriced IS 'Invocations whose cost is not known, because their model has no price';
COMMENT ON COLUMN v_cost_by_tree.first_seq IS 'Sequence in INVOCATIONS of its first event';
COMMENT ON COLUMN v_cost_by_tree.last_seq IS 'Sequence in INVOCATIONS of its last event';

CREATE OR REPLACE VIEW v_failure_bill AS
WITH spoilt AS (
    SELECT
        root,
        count(*) FILTER (outcome = 'failed') AS errors,
        count(*) FILTER (outcome = 'swept') AS crashes,
        count(*) AS attempts,
        count(DISTINCT id) AS invocations,
        list_sort(list(DISTINCT project)) AS projects,
        sum(input_tokens) AS input_tokens,
        sum(output_tokens) AS output_tokens,
        sum(cost_usd) AS cost_usd,
        count(*) FILTER (cost_usd IS NULL) AS unpriced,
        sum(run_ms) / 1000 AS run_s,
        mode({kind: error_kind, fingerprint: error_fingerprint} ORDER BY ended_seq DESC) FILTER (error_kind IS NOT NULL) AS error,
        arg_max(error_message, ended_seq) AS error_message,
        min(claimed_at) AS first_at,
        max(ended_at) AS last_at,
        min(claimed_seq) AS first_seq,
        max(ended_seq) AS last_seq
    FROM attempts
    WHERE outcome IN ('failed', 'swept', 'dead_lettered', 'cancelled')
    GROUP BY root
),
looped AS (
    SELECT key AS root, count(*) AS trips, min(seq) AS trip_seq, max(reason) AS reason FROM hot.trips WHERE guard = 'loop' GROUP BY ALL
),
dead AS (SELECT root, count(*) AS deaths, min(died_seq) AS died_seq FROM dead_letters WHERE died_at IS NOT NULL GROUP BY ALL),
tree AS (
    SELECT root, count(*) AS members, sum(cost_usd) AS tree_usd, list_sort(list(DISTINCT project)) AS projects, min(first_seq) AS first_seq, max(last_seq) AS last_seq
    FROM invocations
    WHERE root IN (SELECT root FROM spoilt UNION SELECT root FROM looped UNION SELECT root FROM dead)
    GROUP BY root
)
SELECT
    CASE WHEN l.root IS NOT NULL THEN 'loop' WHEN d.root IS NOT NULL THEN 'poison' WHEN s.crashes > s.errors THEN 'crash' ELSE 'error' END AS cause,
    t.root, t.projects,
    t.members AS invocations,
    coalesce(s.invocations, 0) AS spoilt,
    coalesce(s.errors, 0) AS errors,
    coalesce(s.crashes, 0) AS crashes,
    coalesce(d.deaths, 0) AS deaths,
    coalesce(l.trips, 0) AS trips,
    CASE WHEN l.root IS NOT NULL THEN t.tree_usd ELSE coalesce(s.cost_usd, 0) END AS lost_usd,
    t.tree_usd,
    coalesce(s.unpriced, 0) AS unpriced,
    coalesce(s.input_tokens, 0) AS input_tokens,
    coalesce(s.output_tokens, 0) AS output_tokens,
    coalesce(s.run_s, 0) AS run_s,
    s.error.kind AS error_kind, s.error.fingerprint AS error_fingerprint, coalesce(s.error_message, l.reason) AS error_message,
    s.first_at, s.last_at,
    t.first_seq, t.last_seq
FROM tree AS t
LEFT JOIN spoilt AS s USING (root)
LEFT JOIN looped AS l USING (root)
LEFT JOIN dead AS d USING (root)
ORDER BY lost_usd DESC NULLS LAST, errors + crashes DESC;
COMMENT ON VIEW v_failure_bill IS 'What failures cost: each run tree in which attempts failed, messages were poison or a loop was stopped, across projects, the dearest first';
COMMENT ON COLUMN v_failure_bill.cause IS 'loop (the breaker stopped the tree), poison (something in it was given up on), crash or error';
COMMENT ON COLUMN v_failure_bill.projects IS 'Projects that worked for the tree';
COMMENT ON COLUMN v_failure_bill.invocations IS 'Invocations in the tree';
COMMENT ON COLUMN v_failure_bill.spoilt IS 'Of these, those with attempts that came to nothing';
COMMENT ON COLUMN v_failure_bill.errors IS 'Attempts that ended with an error';
COMMENT ON COLUMN v_failure_bill.crashes IS 'Claims that were swept';
COMMENT ON COLUMN v_failure_bill.deaths IS 'Dead letters';
COMMENT ON COLUMN v_failure_bill.trips IS 'How often the loop breaker stopped the tree';
COMMENT ON COLUMN v_failure_bill.lost_usd IS 'US dollars that came to nothing: attempts without a result, and for a loop the whole tree';
COMMENT ON COLUMN v_failure_bill.tree_usd IS 'US dollars of the whole tree';
COMMENT ON COLUMN v_failure_bill.unpriced IS 'Attempts without a result whose cost is not known';
COMMENT ON COLUMN v_failure_bill.input_tokens IS 'Input tokens of attempts without a result';
COMMENT ON COLUMN v_failure_bill.output_tokens IS 'Output tokens of attempts without a result';
COMMENT ON COLUMN v_failure_bill.run_s IS 'Seconds that attempts without a result ran';
COMMENT ON COLUMN v_failure_bill.error_kind IS 'Class of the most frequent error';
COMMENT ON COLUMN v_failure_bill.error_fingerprint IS 'Fingerprint of the most frequent error';
COMMENT ON COLUMN v_failure_bill.error_message IS 'The last error, or why the loop breaker tripped';
COMMENT ON COLUMN v_failure_bill.first_at IS 'When the first of these attempts began';
COMMENT ON COLUMN v_failure_bill.last_at IS 'When the last of them ended';
COMMENT ON COLUMN v_failure_bill.first_seq IS 'Sequence in INVOCATIONS of the tree''s first event';
COMMENT ON COLUMN v_failure_bill.last_seq IS 'Sequence in INVOCATIONS of the tree''s last event';

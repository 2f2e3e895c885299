-- name: each prompt and revision of a role compared: errors, speed, tokens, money
-- param role: varchar = '': only this PROJECT/ROLE; empty for all that have a prompt
-- param since: timestamp = moment() - INTERVAL 30 DAY: how far back to look
SELECT
    c.project || '/' || c.role AS role, c.registry_revision AS revision, left(c.prompt_digest, 20) AS prompt,
    min(c.claimed_at) AS first_at, max(c.claimed_at) AS last_at,
    count(*) AS attempts,
    round(100.0 * count(*) FILTER (a.outcome IN ('failed', 'swept')) / nullif(count(a.ended_at), 0), 1) AS failed_percent,
    round(quantile_cont(a.run_ms, 0.5), 1) AS p50_ms,
    round(avg(a.input_tokens), 1) AS input_tokens, round(avg(a.output_tokens), 1) AS output_tokens,
    sum(a.cost_usd) / nullif(count(*) FILTER (a.outcome = 'completed'), 0) AS usd_each,
    min(c.claimed_seq) AS first_seq, max(c.claimed_seq) AS last_seq
FROM claims AS c JOIN attempts AS a USING (claimed_seq)
WHERE c.claimed_at >= $since AND (c.prompt_digest <> '' OR $role <> '') AND ($role = '' OR c.project || '/' || c.role = $role)
GROUP BY ALL
ORDER BY role, last_at DESC

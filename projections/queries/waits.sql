-- name: how long work of each role waited for a runner
-- param since: timestamp = moment() - INTERVAL 1 DAY: requests from then on
SELECT
    project || '/' || role AS role,
    count(*) AS claimed,
    round(quantile_cont(wait_ms, 0.5), 1) AS p50_ms,
    round(quantile_cont(wait_ms, 0.95), 1) AS p95_ms,
    round(max(wait_ms), 1) AS longest_ms,
    arg_max(id, {wait_ms: wait_ms, seq: claimed_seq}) AS longest,
    arg_max(claimed_seq, {wait_ms: wait_ms, seq: claimed_seq}) AS seq
FROM invocations
WHERE requested_at >= $since AND wait_ms IS NOT NULL
GROUP BY ALL
ORDER BY p95_ms DESC, role

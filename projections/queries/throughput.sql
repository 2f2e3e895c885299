-- name: what was asked, completed and failed in each minute
-- param since: timestamp = moment() - INTERVAL 1 HOUR: how far back to look
-- param role: varchar = '': only this PROJECT/ROLE; empty for all
SELECT
    date_trunc('minute', stored_at) AS minute,
    count(*) FILTER (event = 'requested' AND generation = 0) AS requested,
    count(*) FILTER (event = 'claimed') AS claimed,
    count(*) FILTER (event = 'completed') AS completed,
    count(*) FILTER (event = 'failed') AS failed,
    count(*) FILTER (event = 'dead_lettered') AS dead,
    sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens,
    min(seq) AS first_seq, max(seq) AS last_seq
FROM events
WHERE noun = 'invocation' AND stored_at >= $since AND ($role = '' OR project || '/' || role = $role)
GROUP BY ALL
ORDER BY minute DESC

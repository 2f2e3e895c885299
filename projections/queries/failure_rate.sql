-- name: how many attempts of each role failed, of all that ended
-- param since: timestamp = moment() - INTERVAL 1 DAY: how far back to look
SELECT
    project || '/' || role AS role,
    count(*) AS ended,
    count(*) FILTER (outcome = 'completed') AS completed,
    count(*) FILTER (outcome = 'failed') AS failed,
    count(*) FILTER (outcome = 'swept') AS swept,
    round(100.0 * count(*) FILTER (outcome IN ('failed', 'swept')) / count(*), 1) AS percent,
    mode(error_kind) AS usual_error,
    max(ended_seq) FILTER (outcome IN ('failed', 'swept')) AS last_seq
FROM attempts
WHERE ended_at >= $since AND outcome IN ('completed', 'failed', 'swept')
GROUP BY ALL
ORDER BY percent DESC, ended DESC

-- name: the attempts that took longest
-- param since: timestamp = moment() - INTERVAL 1 DAY: how far back to look
-- param most: bigint = 20: how many to show
SELECT project || '/' || role AS role, id, attempt, outcome, ended_at, run_ms, input_tokens, output_tokens, model, runner, ended_seq AS seq
FROM attempts
WHERE ended_at >= $since AND run_ms IS NOT NULL
ORDER BY run_ms DESC, ended_seq DESC
LIMIT $most

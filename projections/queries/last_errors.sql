-- name: the last attempts that failed or were swept, the newest first
-- param since: timestamp = moment() - INTERVAL 1 DAY: how far back to look
-- param role: varchar = '': only this PROJECT/ROLE; empty for all
-- param most: bigint = 20: how many to show
SELECT
    ended_at, project || '/' || role AS role, id, attempt,
    coalesce(error_kind, reason) AS error, error_message AS message, error_fingerprint AS fingerprint, runner, ended_seq AS seq
FROM attempts
WHERE outcome IN ('failed', 'swept') AND ended_at >= $since AND ($role = '' OR project || '/' || role = $role)
ORDER BY ended_seq DESC
LIMIT $most

-- name: what has waited longest for a runner
-- param role: varchar = '': only this PROJECT/ROLE; empty for all
-- param most: bigint = 20: how many to show
SELECT project || '/' || role AS role, id, seconds_since(since) AS waits_s, requested_at, attempts, generation, actor, requested_seq AS seq
FROM invocations
WHERE state = 'queued' AND ($role = '' OR project || '/' || role = $role)
ORDER BY since, requested_seq
LIMIT $most

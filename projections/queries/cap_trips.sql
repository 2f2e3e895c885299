-- name: spend caps that were reached, and when they were free again
-- param since: timestamp = moment() - INTERVAL 30 DAY: how far back to look
SELECT scope, key, reason, tripped_at, cleared_at, cleared_by, seq, cleared_seq
FROM guard_trips
WHERE guard = 'quota' AND tripped_at >= $since
ORDER BY tripped_at DESC

-- name: each time that a guard acted: kill switch, quota, loop, pause, sweep, poison
-- param since: timestamp = moment() - INTERVAL 1 DAY: how far back to look
-- param most: bigint = 50: how many to show
SELECT tripped_at, guard, scope, key, reason, cleared_at, cleared_by, stream, seq
FROM guard_trips
WHERE tripped_at >= $since
ORDER BY tripped_at DESC, seq DESC
LIMIT $most

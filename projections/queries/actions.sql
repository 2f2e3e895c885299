-- name: what was done to the fleet, by whom and why
-- param since: timestamp = moment() - INTERVAL 7 DAY: how far back to look
SELECT requested_at, action, target, who, why, state, ok, coalesce(refused_because, '') AS refused_because, took_s, first_seq, last_seq
FROM ops_actions
WHERE requested_at >= $since
ORDER BY requested_at DESC

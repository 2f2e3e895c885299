-- name: what waits for a person, and what has waited
-- param since: timestamp = moment() - INTERVAL 7 DAY: how far back to look for cards that are closed
SELECT state, instance, host, reason, why, command, opened_at, closed_because, closed_at, waited_s, operation, first_seq, last_seq
FROM cards
WHERE state = 'open' OR closed_at >= $since
ORDER BY state DESC, opened_at

-- name: roles whose work waits while nobody claims it, and what may explain it
SELECT project || '/' || role AS role, waiting, oldest_queued_at, last_claimed_at, quiet_s, deaf, why, seq
FROM v_deaf_consumers
ORDER BY deaf DESC, quiet_s DESC

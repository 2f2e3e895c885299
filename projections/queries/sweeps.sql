-- name: the monitor's last sweeps, and what they could not see
-- param most: bigint = 50: how many to show
SELECT coalesce(started_at, finished_at) AS swept_at, "trigger", verdict, open, new, gone, unseen, took_ms, why, first_seq, last_seq
FROM sweeps
ORDER BY first_seq DESC
LIMIT $most

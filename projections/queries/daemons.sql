-- name: every seat of a daemon, and what was last heard of it
SELECT seat, daemon, state, since, pid, version, starts, exits, exited_at, exit_status, last_seq AS seq
FROM daemons
ORDER BY state = 'stopped', seat

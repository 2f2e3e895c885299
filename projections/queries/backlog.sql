-- name: unfinished work by role, and when it will be done at the present pace
SELECT project || '/' || role AS role, queued, running, waiting, scheduled, oldest_queued_s, completed_5m, drained_in_s, oldest_queued_id, oldest_queued_seq AS seq
FROM v_backlog
ORDER BY queued DESC, role

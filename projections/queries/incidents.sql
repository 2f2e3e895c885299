-- name: which incidents there were, who had them, and how quickly, the newest first
-- param since: timestamp = moment() - INTERVAL 30 DAY: incidents declared from then on
SELECT
    number, severity, state, title, projects, acknowledged_by, commander, declared_at,
    epoch(declared_at - since) AS noticed_after_s,
    epoch(first_called_at - declared_at) AS called_after_s,
    epoch(first_acknowledged_at - declared_at) AS acknowledged_after_s,
    epoch(closed_at - declared_at) AS closed_after_s,
    calls, failed_calls, overdue_updates, cause, first_seq, last_seq
FROM incidents
WHERE declared_at >= $since
ORDER BY number DESC

-- name: due times of schedules that passed without a request, and why
-- param since: timestamp = moment() - INTERVAL 7 DAY: how far back to look
SELECT
    stored_at AS missed_at, (data->>'$.project') || '/' || (data->>'$.role') AS role, data->>'$.schedule' AS schedule,
    data->>'$.due' AS due, data->>'$.reason' AS reason, data->>'$.running' AS running, seq
FROM events
WHERE noun = 'schedule' AND event = 'missed' AND stored_at >= $since
ORDER BY seq DESC

-- name: messages on the streams that are no events of ours, and why
-- param since: timestamp = moment() - INTERVAL 7 DAY: how far back to look
SELECT stored_at, stream, seq, subject, problem, left(text, 80) AS begins
FROM rejected
WHERE stored_at >= $since
ORDER BY stored_at DESC, seq DESC

-- name: each time that the kill switch was thrown, by whom, and how it ended
-- param since: timestamp = moment() - INTERVAL 30 DAY: how far back to look
SELECT id, mode, thrown_by, reason, frozen_at, thawed_at, frozen_s, owed, receipts, missing, written, first_seq, last_seq
FROM freezes
WHERE frozen_at >= $since
ORDER BY frozen_at DESC

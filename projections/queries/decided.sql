-- name: decisions, and which of them still stand
SELECT number, title, decided_by, decided_at, decision, superseded_by, superseded_by IS NOT NULL AS superseded, seq, superseded_seq
FROM decisions
ORDER BY number

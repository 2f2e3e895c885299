-- name: decisions, and which of them still stand
SELECT number, title, decided_by, decided_at, decision,
    EXISTS (FROM decisions AS later WHERE later.supersedes = d.number) AS superseded, seq
FROM decisions AS d
ORDER BY number

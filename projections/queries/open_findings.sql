-- name: what is wrong now and speaks for itself, the worst first
SELECT severity, kind, subject, title, opened_at, command, fingerprint, raised, first_seq, last_seq
FROM findings
WHERE speaks
ORDER BY severity DESC, opened_at

-- name: what is wrong now and speaks for itself, the worst first
SELECT severity, kind, subject, title, opened_at, command, fingerprint, raised, first_seq, last_seq
FROM findings
WHERE state = 'open' AND coalesce(cause, '') = '' AND coalesce(silenced_by, '') = ''
ORDER BY severity DESC, opened_at

-- name: claims that stand longer than they may, or whose holder is gone
SELECT project || '/' || role AS role, id, attempt, runner, claimed_at, held_s, allowed_s, holder_state, seq
FROM v_claims_overdue
ORDER BY claimed_at

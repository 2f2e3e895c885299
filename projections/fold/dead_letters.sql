-- reads: invocation.dead_lettered, invocation.redriven, invocation.discarded, invocation.cancelled, deadletter.kept
MERGE INTO dead_letters AS t
USING (
    SELECT project, role, key, seq, stored_at, reason, coalesce(nullif(correlation_id, ''), key) AS root, error_kind, error_fingerprint, error_message
    FROM batch
    WHERE noun = 'invocation' AND event = 'dead_lettered'
) AS c
ON t.died_seq = c.seq
WHEN MATCHED THEN UPDATE SET
    project = c.project, role = c.role, id = c.key, died_at = c.stored_at, reason = c.reason, root = c.root,
    error_kind = c.error_kind, error_fingerprint = c.error_fingerprint, error_message = c.error_message
WHEN NOT MATCHED THEN INSERT (
    project, role, id, died_seq, died_at, reason, root, error_kind, error_fingerprint, error_message
) VALUES (
    c.project, c.role, c.key, c.seq, c.stored_at, c.reason, c.root, c.error_kind, c.error_fingerprint, c.error_message
);

MERGE INTO dead_letters AS t
USING (
    SELECT
        TRY_CAST(said(raw, 'died_seq') AS UBIGINT) AS died_seq,
        arg_max(
            {
                project: project, role: role, id: key, root: coalesce(nullif(root, ''), key), reason: reason, kind: error_kind,
                fingerprint: error_fingerprint, message: error_message, at_: stored_at, seq: seq
            }, seq
        ) AS kept
    FROM batch
    WHERE noun = 'deadletter' AND event = 'kept'
    GROUP BY ALL
    HAVING died_seq IS NOT NULL
) AS c
ON t.died_seq = c.died_seq
WHEN MATCHED THEN UPDATE SET kept_at = c.kept.at_, kept_seq = c.kept.seq
WHEN NOT MATCHED THEN INSERT (
    project, role, id, died_seq, reason, root, error_kind, error_fingerprint, error_message, kept_at, kept_seq
) VALUES (
    c.kept.project, c.kept.role, c.kept.id, c.died_seq, c.kept.reason, c.kept.root,
    c.kept.kind, c.kept.fingerprint, c.kept.message, c.kept.at_, c.kept.seq
);

-- A death is resolved by the first of these that comes after it.
UPDATE dead_letters AS t
SET resolution = r.event, resolved_at = r.stored_at, resolved_seq = r.seq, resolved_by = r.actor, resolved_why = r.reason
FROM (
    SELECT d.died_seq, unnest(arg_min({event: b.event, stored_at: b.stored_at, seq: b.seq, actor: b.actor, reason: b.reason}, b.seq))
    FROM dead_letters AS d
    JOIN batch AS b ON b.key = d.id AND b.role = d.role AND b.project = d.project AND b.seq > d.died_seq
    WHERE d.resolution IS NULL AND d.died_at IS NOT NULL
        AND b.noun = 'invocation' AND b.event IN ('redriven', 'discarded', 'cancelled')
    GROUP BY d.died_seq
) AS r
WHERE t.died_seq = r.died_seq;

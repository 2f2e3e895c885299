-- What a person on call opens first. All of it is read from hot tables and small ones, so it is quick however long the history is.
-- Columns that name one row between them are ordered by its whole key: of rows that tie, each column might name another.
CREATE OR REPLACE VIEW v_backlog AS
WITH recent AS (
    SELECT project, role, count(*) AS ends FROM hot.claims WHERE ended_at > moment() - INTERVAL 5 MINUTE AND outcome = 'completed' GROUP BY ALL
)
SELECT
    i.project, i.role,
    count(*) FILTER (state = 'queued') AS queued,
    count(*) FILTER (state = 'running') AS running,
    count(*) FILTER (state = 'waiting') AS waiting,
    count(*) FILTER (state = 'scheduled') AS scheduled,
    min(since) FILTER (state = 'queued') AS oldest_queued_at,
    seconds_since(min(since) FILTER (state = 'queued')) AS oldest_queued_s,
    arg_min(id, {since: since, seq: last_seq}) FILTER (state = 'queued') AS oldest_queued_id,
    arg_min(last_seq, {since: since, seq: last_seq}) FILTER (state = 'queued') AS oldest_queued_seq,
    min(retry_at) FILTER (state = 'waiting') AS next_retry_at,
    coalesce(any_value(r.ends), 0) AS completed_5m,
    count(*) FILTER (state = 'queued') * 300.0 / nullif(any_value(r.ends), 0) AS drained_in_s
FROM hot.invocations AS i LEFT JOIN recent AS r USING (project, role)
-- The first condition lets the scan pass over most rows without reading them; a list of values does not.
WHERE state <> 'completed' AND state IN ('queued', 'running', 'waiting', 'scheduled')
GROUP BY ALL
ORDER BY queued DESC, i.project, i.role;
COMMENT ON VIEW v_backlog IS 'Work that is not finished, by role, the longest queue first';
COMMENT ON COLUMN v_backlog.queued IS 'Invocations that wait for a runner';
COMMENT ON COLUMN v_backlog.running IS 'Invocations that a runner holds';
COMMENT ON COLUMN v_backlog.waiting IS 'Invocations that wait for their next attempt';
COMMENT ON COLUMN v_backlog.scheduled IS 'Invocations that are not due yet';
COMMENT ON COLUMN v_backlog.oldest_queued_at IS 'Since when the oldest of the queue waits';
COMMENT ON COLUMN v_backlog.oldest_queued_s IS 'The same in seconds';
COMMENT ON COLUMN v_backlog.oldest_queued_id IS 'Which invocation that is';
COMMENT ON COLUMN v_backlog.oldest_queued_seq IS 'Sequence in INVOCATIONS of its last event';
COMMENT ON COLUMN v_backlog.next_retry_at IS 'When the first of those that wait is tried again';
COMMENT ON COLUMN v_backlog.completed_5m IS 'Invocations of the role that completed within 5 minutes';
COMMENT ON COLUMN v_backlog.drained_in_s IS 'Seconds until the queue is worked off at that rate; NULL when nothing completes';

CREATE OR REPLACE VIEW v_last_errors AS
WITH last AS (
    SELECT * FROM hot.all_claims WHERE outcome IN ('failed', 'swept') ORDER BY ended_seq DESC LIMIT 100
)
SELECT
    l.ended_at AS failed_at, l.project, l.role, l.id, l.attempt, l.outcome,
    coalesce(l.error_kind, l.reason) AS error_kind,
    coalesce(l.error_message, 'the claim of ' || l.runner || ' was swept: ' || l.reason) AS error_message,
    l.error_fingerprint,
    count(*) OVER (PARTITION BY l.error_fingerprint, l.project, l.role) AS alike,
    l.retry_at, l.runner, l.root, l.ended_seq AS seq
FROM last AS l
ORDER BY seq DESC;
COMMENT ON VIEW v_last_errors IS 'The last 100 attempts that failed or were swept, the newest first';
COMMENT ON COLUMN v_last_errors.failed_at IS 'When the attempt ended';
COMMENT ON COLUMN v_last_errors.outcome IS 'failed, or swept';
COMMENT ON COLUMN v_last_errors.error_kind IS 'Class of the error, or why it was swept';
COMMENT ON COLUMN v_last_errors.error_message IS 'The error in one sentence';
COMMENT ON COLUMN v_last_errors.alike IS 'How many of the 100 are of this role and cause';
COMMENT ON COLUMN v_last_errors.seq IS 'Sequence in INVOCATIONS of the event that tells it';

CREATE OR REPLACE VIEW v_slow AS
WITH usual AS (
    SELECT
        project, role, count(*) AS completed,
        quantile_cont(duration_ms, 0.5) AS p50_ms, quantile_cont(duration_ms, 0.95) AS p95_ms, quantile_cont(duration_ms, 0.99) AS p99_ms
    FROM hot.claims
    WHERE outcome = 'completed' AND ended_at > moment() - INTERVAL 1 DAY
    GROUP BY ALL
),
timed AS (
    SELECT project, role, id, outcome, ended_at, duration_ms AS run_ms, runner, claimed_seq, ended_seq AS seq
    FROM hot.claims
    WHERE outcome = 'completed' AND ended_at > moment() - INTERVAL 1 DAY
    UNION ALL
    SELECT project, role, id, 'running', NULL, seconds_since(claimed_at) * 1000, runner, claimed_seq, claimed_seq FROM hot.standing
)
SELECT t.project, t.role, t.id, t.outcome, t.ended_at, t.run_ms, u.p50_ms, u.p95_ms, u.p99_ms, t.run_ms / nullif(u.p50_ms, 0) AS times, u.completed, t.runner, t.claimed_seq, t.seq
FROM timed AS t JOIN usual AS u USING (project, role)
WHERE t.run_ms > u.p95_ms
ORDER BY times DESC NULLS LAST, seq DESC
LIMIT 100;
COMMENT ON VIEW v_slow IS 'Attempts of the last day, and those under way, that take longer than 95 of 100 of their role; the most unusual first';
COMMENT ON COLUMN v_slow.outcome IS 'completed, or running';
COMMENT ON COLUMN v_slow.run_ms IS 'Milliseconds that it ran, or runs';
COMMENT ON COLUMN v_slow.p50_ms IS 'Half of the role''s completed attempts take at most that';
COMMENT ON COLUMN v_slow.p95_ms IS '95 of 100 take at most that';
COMMENT ON COLUMN v_slow.p99_ms IS '99 of 100 take at most that';
COMMENT ON COLUMN v_slow.times IS 'How many times as long as half of them';
COMMENT ON COLUMN v_slow.completed IS 'Completed attempts of the role that this is compared with';
COMMENT ON COLUMN v_slow.seq IS 'Sequence in INVOCATIONS of its end, or of its claim while it runs';

CREATE OR REPLACE VIEW hot.roles AS
SELECT
    split_part(key, '.', 2) AS project, split_part(key, '.', 3) AS role, revision, seq,
    coalesce(TRY_CAST(value ->> 'timeout' AS DOUBLE), 900) AS timeout_s,
    coalesce(TRY_CAST(value ->> 'grace' AS DOUBLE), 10) AS grace_s
FROM (SELECT * FROM registry_versions WHERE key LIKE 'roles.%' QUALIFY row_number() OVER (PARTITION BY key ORDER BY seq DESC) = 1)
WHERE NOT removed;
COMMENT ON VIEW hot.roles IS 'Roles as they are registered now, and how long an attempt may take';
COMMENT ON COLUMN hot.roles.project IS 'Project of the role';
COMMENT ON COLUMN hot.roles.role IS 'Role within the project';
COMMENT ON COLUMN hot.roles.revision IS 'Registry revision of the role';
COMMENT ON COLUMN hot.roles.seq IS 'Sequence in CONTROL of the event that tells it';
COMMENT ON COLUMN hot.roles.timeout_s IS 'Seconds that one attempt may take';
COMMENT ON COLUMN hot.roles.grace_s IS 'Seconds that a handler is given to end';

CREATE OR REPLACE VIEW v_claims_overdue AS
SELECT
    s.project, s.role, s.id, s.attempt, s.runner, s.holder, s.claimed_at,
    seconds_since(s.claimed_at) AS held_s,
    coalesce(r.timeout_s + r.grace_s, 910) AS allowed_s,
    coalesce(d.state, 'unknown') AS holder_state,
    d.since AS holder_since,
    s.claimed_seq AS seq
FROM hot.standing AS s
LEFT JOIN hot.roles AS r USING (project, role)
LEFT JOIN daemons AS d ON d.boot_id = s.holder
WHERE seconds_since(s.claimed_at) > coalesce(r.timeout_s + r.grace_s, 910) OR (d.state IS NOT NULL AND d.state <> 'started')
ORDER BY s.claimed_at;
COMMENT ON VIEW v_claims_overdue IS 'Claims that stand longer than their role allows, or whose holder is gone: what the sweep has to take';
COMMENT ON COLUMN v_claims_overdue.held_s IS 'Seconds that it stands';
COMMENT ON COLUMN v_claims_overdue.allowed_s IS 'Seconds that an attempt of the role may take, with its grace; 910 for a role that is not registered';
COMMENT ON COLUMN v_claims_overdue.holder_state IS 'What was last heard of the holder''s seat: started, stopped, exited, gave_up; unknown when another boot sits there or none was heard of';
COMMENT ON COLUMN v_claims_overdue.holder_since IS 'Since when';
COMMENT ON COLUMN v_claims_overdue.seq IS 'Sequence in INVOCATIONS of the claim';

CREATE OR REPLACE VIEW hot.last_claim AS
SELECT project, role, max(claimed_at) AS last_claimed_at, max(claimed_seq) AS seq
FROM (
    SELECT project, role, claimed_at, claimed_seq FROM hot.standing
    UNION ALL
    SELECT project, role, claimed_at, claimed_seq FROM hot.claims
)
WHERE claimed_at > moment() - INTERVAL 1 HOUR
GROUP BY ALL;
COMMENT ON VIEW hot.last_claim IS 'When work of each role was last claimed, if that was within an hour';
COMMENT ON COLUMN hot.last_claim.project IS 'Project of the role';
COMMENT ON COLUMN hot.last_claim.role IS 'Role within the project';
COMMENT ON COLUMN hot.last_claim.last_claimed_at IS 'When that was stored';
COMMENT ON COLUMN hot.last_claim.seq IS 'Sequence in INVOCATIONS of the claim';

CREATE OR REPLACE VIEW v_deaf_consumers AS
WITH quiet AS (
    SELECT
        b.project, b.role, b.queued, b.running, b.oldest_queued_at, b.oldest_queued_id, l.last_claimed_at,
        coalesce(l.seq, b.oldest_queued_seq) AS seq,
        list_filter(
            (SELECT list({scope: scope, told: guard || ' of ' || scope || ' stands'} ORDER BY seq) FROM hot.trips WHERE cleared_seq IS NULL AND (until IS NULL OR until > moment())),
            lambda t: t.scope IN ('system', b.project, b.project || '/' || b.role, b.project || '_' || b.role)
        )[1].told AS guarded
    FROM v_backlog AS b LEFT JOIN hot.last_claim AS l USING (project, role)
    WHERE b.oldest_queued_at <= moment() - INTERVAL 1 MINUTE AND (l.last_claimed_at IS NULL OR l.last_claimed_at <= moment() - INTERVAL 1 MINUTE)
)
SELECT
    project, role, queued AS waiting, oldest_queued_at, oldest_queued_id, last_claimed_at,
    seconds_since(greatest(last_claimed_at, oldest_queued_at)) AS quiet_s,
    CASE
        WHEN guarded IS NOT NULL THEN guarded
        WHEN running > 0 THEN 'its runners are full'
        WHEN (SELECT count(*) FROM daemons WHERE daemon = 'agent_runner' AND state = 'started') = 0 THEN 'no agent_runner has started'
        ELSE 'runners are there, and nobody claims'
    END AS why,
    guarded IS NULL AND running = 0 AS deaf,
    seq
FROM quiet
ORDER BY deaf DESC, quiet_s DESC;
COMMENT ON VIEW v_deaf_consumers IS 'Roles whose work waits and of which nothing was claimed for a minute, and what may explain it';
COMMENT ON COLUMN v_deaf_consumers.waiting IS 'Invocations in its queue';
COMMENT ON COLUMN v_deaf_consumers.last_claimed_at IS 'When work of the role was last claimed; NULL if that was not within an hour';
COMMENT ON COLUMN v_deaf_consumers.quiet_s IS 'Seconds without a claim, while work waited';
COMMENT ON COLUMN v_deaf_consumers.why IS 'What explains it, as far as events tell';
COMMENT ON COLUMN v_deaf_consumers.deaf IS 'True: neither a guard nor work under way explains it';
COMMENT ON COLUMN v_deaf_consumers.seq IS 'Sequence in INVOCATIONS of the last claim, else of the oldest that waits';

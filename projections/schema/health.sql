-- The fleet's health as far as events tell it: one row for each thing that is looked at, the worst first.
CREATE OR REPLACE VIEW v_health AS
WITH backlog AS MATERIALIZED (FROM v_backlog),
found AS (
    SELECT
        'kill switch' AS looked_at,
        CASE WHEN bool_or(missing IS NOT NULL OR written > 0) THEN 'ultra' WHEN count(*) > 0 THEN 'concern' ELSE 'nominal' END AS verdict,
        count(*) AS number,
        arg_min(mode || ' freeze ' || id || ' by ' || thrown_by || ': ' || reason || CASE WHEN missing IS NULL THEN '' ELSE '; no receipt from ' || missing END, first_seq) AS what,
        min(frozen_at) AS since, 'CONTROL' AS stream, min(first_seq) AS seq
    FROM freezes WHERE thawed_at IS NULL
    UNION ALL
    SELECT
        CASE guard WHEN 'quota' THEN 'spend caps' WHEN 'loop' THEN 'run trees' ELSE 'paused roles' END,
        CASE WHEN count(t.seq) > 0 THEN 'concern' ELSE 'nominal' END, count(t.seq),
        string_agg(t.scope || ': ' || t.reason, '; ' ORDER BY t.seq), min(t.tripped_at), 'CONTROL', min(t.seq)
    FROM (VALUES ('quota'), ('loop'), ('pause')) AS g (guard)
    LEFT JOIN (SELECT * FROM hot.trips WHERE cleared_seq IS NULL AND (until IS NULL OR until > moment()) AND NOT drilled(project)) AS t USING (guard)
    GROUP BY guard
    UNION ALL
    SELECT
        'dead letters', CASE WHEN count(*) > 0 THEN 'concern' ELSE 'nominal' END, count(*),
        'the oldest is ' || arg_min(project || '/' || role || ' ' || id || ' (' || reason || ')', died_seq), min(died_at), 'INVOCATIONS', min(died_seq)
    FROM dead_letters WHERE resolution IS NULL AND NOT drilled(project)
    UNION ALL
    SELECT
        'daemons',
        CASE WHEN count(*) FILTER (state = 'gave_up') > 0 THEN 'ultra' WHEN count(*) > 0 THEN 'concern' ELSE 'nominal' END, count(*),
        string_agg(seat || ' ' || replace(state, '_', ' ') || CASE WHEN state = 'gave_up' THEN ': run ' || command ELSE '' END, '; ' ORDER BY last_seq),
        min(since), 'CONTROL', min(last_seq)
    FROM daemons
    WHERE state IN ('exited', 'gave_up') AND (state = 'gave_up' OR since > moment() - INTERVAL 1 DAY)
    UNION ALL
    SELECT
        'runners', CASE WHEN r.runners > 0 THEN 'nominal' WHEN q.queued > 0 THEN 'ultra' ELSE 'concern' END, r.runners,
        CASE WHEN r.runners = 0 THEN 'no agent_runner has started; ' || q.queued || ' invocations wait' END,
        q.oldest, 'INVOCATIONS', CASE WHEN r.runners = 0 THEN q.seq END
    FROM (SELECT count(*) AS runners FROM daemons WHERE daemon = 'agent_runner' AND state = 'started') AS r,
        (SELECT coalesce(sum(queued), 0) AS queued, min(oldest_queued_at) AS oldest, arg_min(oldest_queued_seq, {since: oldest_queued_at, seq: oldest_queued_seq}) AS seq FROM backlog) AS q
    UNION ALL
    SELECT
        'backlog', 'nominal', coalesce(sum(queued), 0),
        coalesce(sum(running), 0) || ' run, ' || coalesce(sum(waiting), 0) || ' wait for a retry, ' || coalesce(sum(scheduled), 0) || ' are not due',
        min(oldest_queued_at), 'INVOCATIONS', arg_min(oldest_queued_seq, {since: oldest_queued_at, seq: oldest_queued_seq})
    FROM backlog
    UNION ALL
    SELECT
        'deaf consumers', CASE WHEN count(*) > 0 THEN 'concern' ELSE 'nominal' END, count(*),
        string_agg(project || '/' || role || ' for ' || round(quiet_s)::BIGINT || ' s: ' || why, '; ' ORDER BY quiet_s DESC, project, role), min(oldest_queued_at), 'INVOCATIONS', min(seq)
    FROM v_deaf_consumers WHERE deaf
    UNION ALL
    SELECT
        'claims overdue', CASE WHEN count(*) > 0 THEN 'concern' ELSE 'nominal' END, count(*),
        'the oldest is ' || arg_min(project || '/' || role || ' ' || id || ' on ' || runner, seq), min(claimed_at), 'INVOCATIONS', min(seq)
    FROM v_claims_overdue
    UNION ALL
    SELECT
        'failures of the last hour',
        CASE WHEN count(*) FILTER (outcome <> 'completed') * 5 >= count(*) AND count(*) >= 10 THEN 'concern' ELSE 'nominal' END,
        count(*) FILTER (outcome <> 'completed'),
        'of ' || count(*) || ' attempts; most often ' || mode(coalesce(error_kind, reason)) FILTER (outcome <> 'completed'),
        min(ended_at) FILTER (outcome <> 'completed'), 'INVOCATIONS', max(ended_seq) FILTER (outcome <> 'completed')
    FROM hot.claims
    WHERE ended_at > moment() - INTERVAL 1 HOUR AND outcome IN ('completed', 'failed', 'swept')
    UNION ALL
    SELECT
        'findings', CASE WHEN bool_or(severity = 'ultra') THEN 'ultra' WHEN count(*) > 0 THEN 'concern' ELSE 'nominal' END, count(*),
        'the worst is ' || arg_min(CASE WHEN contains(subject, title) THEN subject ELSE subject || ': ' || title END, {severity: severity <> 'ultra', seq: opened_seq}),
        min(opened_at), 'CONTROL', arg_min(opened_seq, {severity: severity <> 'ultra', seq: opened_seq})
    FROM findings WHERE speaks
    UNION ALL
    SELECT
        'drills', CASE WHEN count(*) > 0 THEN 'concern' ELSE 'nominal' END, count(*),
        string_agg('the last of the ' || guard || ' failed: ' || got, '; ' ORDER BY seq), min(drilled_at), 'CONTROL', min(seq)
    FROM (SELECT * FROM drills QUALIFY row_number() OVER (PARTITION BY guard ORDER BY seq DESC) = 1)
    WHERE outcome = 'failed'
    UNION ALL
    SELECT
        'spend of this hour', 'nominal', coalesce(sum(input_tokens + output_tokens), 0)::BIGINT,
        'tokens, ' || coalesce(sum(cost_usd), 0) || ' US dollars'
        || CASE WHEN count(*) FILTER (cost_usd IS NULL) = 0 THEN '' ELSE ', and models without a price: ' || string_agg(DISTINCT coalesce(nullif(model, ''), 'one without a name'), ', ') FILTER (cost_usd IS NULL) END,
        min(hour), 'INVOCATIONS', max(last_seq)
    FROM v_spend WHERE hour = date_trunc('hour', moment())
    UNION ALL
    SELECT
        'rubbish of the last day', CASE WHEN count(*) > 0 THEN 'concern' ELSE 'nominal' END, count(*),
        'the last on ' || arg_max(subject || ': ' || problem, {stored_at: stored_at, stream: stream, seq: seq}), min(stored_at),
        arg_max(stream, {stored_at: stored_at, stream: stream, seq: seq}), arg_max(seq, {stored_at: stored_at, stream: stream, seq: seq})
    FROM hot.log WHERE problem IS NOT NULL AND stored_at > moment() - INTERVAL 1 DAY
    UNION ALL
    SELECT
        'tables behind', CASE WHEN coalesce(max(seconds), 0) > 10 THEN 'concern' ELSE 'nominal' END, coalesce(sum(behind), 0)::BIGINT,
        'events, by ' || round(coalesce(max(seconds), 0), 1) || ' s', NULL, arg_max(stream, {behind: behind, stream: stream}), arg_max(seq, {behind: behind, stream: stream})
    FROM projection_lag
)
SELECT looked_at, verdict, number, what, since, stream, seq
FROM found
ORDER BY CASE verdict WHEN 'ultra' THEN 0 WHEN 'concern' THEN 1 ELSE 2 END, looked_at;
COMMENT ON VIEW v_health IS 'How the fleet is, as far as events tell: one row for each thing that is looked at, the worst first. Who beats and who hears is in `systems status`';
COMMENT ON COLUMN v_health.looked_at IS 'What is looked at';
COMMENT ON COLUMN v_health.verdict IS 'nominal, concern (waits for a person) or ultra (needs one now)';
COMMENT ON COLUMN v_health.number IS 'How many there are';
COMMENT ON COLUMN v_health.what IS 'Which, in one sentence';
COMMENT ON COLUMN v_health.since IS 'Since when, for the oldest';
COMMENT ON COLUMN v_health.stream IS 'Stream of seq';
COMMENT ON COLUMN v_health.seq IS 'An event that made the number: where to begin to look';

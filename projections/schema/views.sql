-- What people ask. Columns that a view takes from a table have that table's comments; only the others are described here.
CREATE OR REPLACE VIEW events AS
SELECT
    * EXCLUDE (problem, raw),
    coalesce(TRY(decode(raw)), CAST(raw AS VARCHAR)) AS raw,
    TRY(json_extract(decode(raw), '$.data')) AS data
FROM hot.all_log
WHERE problem IS NULL;
COMMENT ON VIEW events IS 'Every event, from the first to the newest';
COMMENT ON COLUMN events.raw IS 'The event as it lay on the wire: CloudEvents JSON as text';
COMMENT ON COLUMN events.data IS 'The data of the event, as JSON: data->>''field''';

CREATE OR REPLACE VIEW rejected AS
SELECT stream, seq, stored_at, subject, problem, raw, CAST(raw AS VARCHAR) AS text FROM hot.all_log WHERE problem IS NOT NULL;
COMMENT ON VIEW rejected IS 'Messages on our subjects that are no events: broken, unknown, or on another''s subject';
COMMENT ON COLUMN rejected.text IS 'The body as text; bytes that are none are escaped';

CREATE OR REPLACE VIEW invocations AS
SELECT
    project, role, id, state, reason, since,
    CASE WHEN state IN ('completed', 'cancelled', 'discarded', 'dead_lettered') THEN since END AS ended_at,
    requested_at, first_claimed_at, last_claimed_at, retry_at, due,
    (epoch_us(first_claimed_at) - epoch_us(greatest(requested_at, coalesce(due, requested_at)))) / 1000 AS wait_ms,
    run_us / 1000 AS run_ms,
    attempts, errors, crashes, redrives, releases, deliveries, generation, holder, runner,
    input_tokens, output_tokens, model, settled_tokens,
    usd(settled_usd_micros + cost_micros(
        unsettled_input_tokens, unsettled_output_tokens, price_at((SELECT book FROM hot.price_book), model, since)
    )) AS cost_usd,
    usd(assumed_usd_micros) AS assumed_usd,
    error_kind, error_fingerprint, error_message,
    parent, root, depth, schedule, actor, registry_revision, prompt_digest,
    first_seq, last_seq, requested_seq, claimed_seq, error_seq
FROM hot.all_invocations;
COMMENT ON VIEW invocations IS 'One row for each invocation: the fold of its events';
COMMENT ON COLUMN invocations.ended_at IS 'When it ended, or was given up on; NULL while it goes on';
COMMENT ON COLUMN invocations.wait_ms IS 'Milliseconds from its request (or its due time) to its first claim; NULL before';
COMMENT ON COLUMN invocations.run_ms IS 'Milliseconds that its attempts ran, as the events that ended them say';
COMMENT ON COLUMN invocations.cost_usd IS 'US dollars: what its claims were settled at, and the rest at the price in force at its last event; NULL when that is not known';
COMMENT ON COLUMN invocations.assumed_usd IS 'Of that, what nobody knows: whole holds of claims whose holder died';

CREATE OR REPLACE VIEW hot.every_claim AS
SELECT * FROM hot.all_claims UNION ALL BY NAME SELECT * FROM hot.standing;
COMMENT ON VIEW hot.every_claim IS 'Claims that stand and claims that have ended';

CREATE OR REPLACE VIEW claims AS
SELECT
    project, role, id, root, attempt, delivery, claimed_at, claimed_seq, holder, runner, registry_revision, prompt_digest,
    hold_tokens, usd(hold_usd_micros) AS hold_usd,
    ended_seq IS NULL AS standing, ended_at, ended_seq, outcome, reason,
    (epoch_us(coalesce(ended_at, moment())) - epoch_us(claimed_at)) / 1e6 AS held_s
FROM hot.every_claim;
COMMENT ON VIEW claims IS 'One row for each claim: who held which invocation, from when to when, under which registry revision';
COMMENT ON COLUMN claims.hold_usd IS 'US dollars that it has reserved on spend caps; NULL where no cap covers the role';
COMMENT ON COLUMN claims.standing IS 'True: it stands now';
COMMENT ON COLUMN claims.held_s IS 'Seconds that it stood, or stands';

CREATE OR REPLACE VIEW attempts AS
SELECT
    project, role, id, root, attempt, claimed_at, ended_at, coalesce(outcome, 'running') AS outcome, reason,
    coalesce(duration_ms, (epoch_us(ended_at) - epoch_us(claimed_at)) / 1000) AS run_ms,
    input_tokens, output_tokens, model,
    usd(CASE
        WHEN settled_usd_micros IS NOT NULL THEN greatest(settled_usd_micros, 0)
        WHEN input_tokens IS NULL THEN 0
        ELSE cost_micros(input_tokens, output_tokens, price_at((SELECT book FROM hot.price_book), model, ended_at))
    END) AS cost_usd,
    coalesce(assumed, false) AS assumed,
    error_kind, error_fingerprint, error_message, retry_at, holder, runner, claimed_seq, ended_seq
FROM hot.every_claim;
COMMENT ON VIEW attempts IS 'One row for each try: from its claim to its end, with what it used, what it cost, and what went wrong';
COMMENT ON COLUMN attempts.outcome IS 'running, completed, failed, swept, released, cancelled or dead_lettered';
COMMENT ON COLUMN attempts.run_ms IS 'Milliseconds that it ran: by the runner''s clock, else from its claim to its end';
COMMENT ON COLUMN attempts.cost_usd IS 'US dollars: what it was settled at, else its use at the price in force at its end; NULL when that is not known';
COMMENT ON COLUMN attempts.assumed IS 'True: its holder died, and its whole hold counts as spent';

CREATE OR REPLACE VIEW v_spend AS
SELECT
    * EXCLUDE (settled_usd_micros, assumed_usd_micros),
    usd(settled_usd_micros + cost_micros(
        unsettled_input_tokens, unsettled_output_tokens, price_at((SELECT book FROM hot.price_book), model, hour + INTERVAL 3599 SECOND)
    )) AS cost_usd,
    usd(assumed_usd_micros) AS assumed_usd
FROM spend;
COMMENT ON VIEW v_spend IS 'What was used in each hour, and what that cost';
COMMENT ON COLUMN v_spend.cost_usd IS 'US dollars: what was settled, and the rest at the price in force at the end of the hour; NULL when that is not known';
COMMENT ON COLUMN v_spend.assumed_usd IS 'Of that, whole holds of claims whose holder died';

CREATE OR REPLACE VIEW guard_trips AS
SELECT * FROM hot.trips
UNION ALL BY NAME
SELECT
    'poison' AS guard, project || '/' || role AS scope, id AS key, project,
    reason || CASE WHEN error_kind IS NULL THEN '' ELSE ': ' || error_kind || ': ' || error_message END AS reason,
    died_at AS tripped_at, 'INVOCATIONS' AS stream, died_seq AS seq,
    resolved_at AS cleared_at, resolution AS cleared_by, resolved_seq AS cleared_seq
FROM dead_letters WHERE died_at IS NOT NULL
UNION ALL BY NAME
SELECT
    'sweep' AS guard, project || '/' || role AS scope, id AS key, project, reason, ended_at AS tripped_at, 'INVOCATIONS' AS stream, ended_seq AS seq,
    ended_at AS cleared_at, 'swept' AS cleared_by, ended_seq AS cleared_seq
FROM hot.all_claims WHERE outcome = 'swept';
COMMENT ON VIEW guard_trips IS 'Each time that a guard acted: kill switch, quota, loop, pause, sweep, poison';
COMMENT ON COLUMN guard_trips.guard IS 'kill_switch, quota, loop, pause, sweep or poison';
COMMENT ON COLUMN guard_trips.scope IS 'What it covers: system, a scope of spend, tree <root id>, or project/role';
COMMENT ON COLUMN guard_trips.key IS 'The freeze, the counter, the root, the role, or the invocation';
COMMENT ON COLUMN guard_trips.cleared_at IS 'When it was cleared; NULL while it stands. A sweep is over at once';

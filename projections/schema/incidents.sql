-- What an ultra opens and only a person closes: one row for each incident, from its events in the log itself.
CREATE OR REPLACE VIEW incidents AS
WITH told AS (
    SELECT key, event, stored_at, seq, raw FROM hot.all_log
    WHERE stream = 'CONTROL' AND noun = 'incident' AND problem IS NULL
),
hits AS (
    -- The last word about a project counts, a person's or the graph's; of one event that removes and adds it, the adding.
    SELECT key, project, arg_max(hit, {seq: seq, hit: hit}) AS hit FROM (
        SELECT key, seq, unnest(TRY(json_extract_string(decode(raw), '$.data.affected[*].project'))) AS project, true AS hit FROM told WHERE event = 'declared'
        UNION ALL
        SELECT key, seq, unnest(TRY(json_extract_string(decode(raw), '$.data.removed[*]'))), false FROM told WHERE event = 'affected'
        UNION ALL
        SELECT key, seq, unnest(TRY(json_extract_string(decode(raw), '$.data.added[*].project'))), true FROM told WHERE event = 'affected'
    ) GROUP BY ALL
),
turns AS (
    SELECT
        key,
        max(seq) FILTER (event IN ('declared', 'reopened')) AS opened,
        max(seq) FILTER (event = 'acknowledged') AS acknowledged,
        max(seq) FILTER (event = 'acknowledgement_expired') AS expired,
        max(seq) FILTER (event = 'mitigated') AS mitigated,
        max(seq) FILTER (event = 'closed') AS closed
    FROM told GROUP BY key HAVING bool_or(event = 'declared')
)
SELECT
    TRY_CAST(t.key AS BIGINT) AS number,
    max(said(raw, 'title')) FILTER (event = 'declared') AS title,
    CASE
        WHEN any_value(u.closed) > any_value(u.opened) THEN 'closed'
        WHEN any_value(u.mitigated) > any_value(u.opened) THEN 'mitigated'
        WHEN any_value(u.acknowledged) > greatest(any_value(u.opened), coalesce(any_value(u.expired), 0)) THEN 'acknowledged'
        ELSE 'declared'
    END AS state,
    arg_max(said(raw, 'severity'), seq) FILTER (event IN ('declared', 'severity_changed')) AS severity,
    max(said(raw, 'by')) FILTER (event = 'declared') AS declared_by,
    coalesce(max(said(raw, 'finding')) FILTER (event = 'declared'), '') AS finding,
    coalesce((SELECT list_sort(list(h.project)) FROM hits AS h WHERE h.key = t.key AND h.hit), []) AS projects,
    CASE
        WHEN any_value(u.acknowledged) > greatest(any_value(u.opened), coalesce(any_value(u.expired), 0))
            THEN arg_max(said(raw, 'by'), seq) FILTER (event = 'acknowledged')
    END AS acknowledged_by,
    arg_max(said(raw, 'commander'), seq) FILTER (event = 'assigned') AS commander,
    count(*) FILTER (event = 'joined') AS joined,
    count(*) FILTER (event = 'updated' AND said(raw, 'automatic') IS NULL) AS updates,
    count(*) FILTER (event = 'updated' AND said(raw, 'automatic') = 'true') AS overdue_updates,
    count(*) FILTER (event = 'paged' AND said(raw, 'ok') = 'true') AS calls,
    count(*) FILTER (event = 'paged' AND said(raw, 'ok') = 'false') AS failed_calls,
    count(*) FILTER (event = 'reopened') AS reopened,
    CASE WHEN any_value(u.closed) > any_value(u.opened) THEN arg_max(said(raw, 'by'), seq) FILTER (event = 'closed') END AS closed_by,
    coalesce(arg_max(said(raw, 'cause'), seq) FILTER (event = 'closed'), '') AS cause,
    max(said_time(raw, 'since')) FILTER (event = 'declared') AS since,
    min(stored_at) FILTER (event = 'declared') AS declared_at,
    min(stored_at) FILTER (event = 'paged' AND said(raw, 'ok') = 'true') AS first_called_at,
    min(stored_at) FILTER (event = 'acknowledged') AS first_acknowledged_at,
    CASE WHEN any_value(u.closed) > any_value(u.opened) THEN max(stored_at) FILTER (event = 'closed') END AS closed_at,
    min(seq) AS first_seq,
    max(seq) AS last_seq
FROM told AS t JOIN turns AS u USING (key) GROUP BY t.key ORDER BY first_seq DESC;
COMMENT ON VIEW incidents IS 'What an ultra opened or a person declared, the newest first';
COMMENT ON COLUMN incidents.number IS 'From 1, without a gap';
COMMENT ON COLUMN incidents.title IS 'What is wrong, as a sentence';
COMMENT ON COLUMN incidents.state IS 'declared (nobody has it), acknowledged, mitigated or closed';
COMMENT ON COLUMN incidents.severity IS 'concern or ultra, as it was told last; only ultra calls people';
COMMENT ON COLUMN incidents.declared_by IS 'monitor, or the person who declared it';
COMMENT ON COLUMN incidents.finding IS 'Fingerprint of the finding that it was opened for; empty for none';
COMMENT ON COLUMN incidents.projects IS 'Projects that it hits';
COMMENT ON COLUMN incidents.acknowledged_by IS 'Whose acknowledgement stands, or stood at the close; NULL for nobody''s';
COMMENT ON COLUMN incidents.commander IS 'Who leads; NULL for nobody';
COMMENT ON COLUMN incidents.joined IS 'Findings that joined it later, each time that one did';
COMMENT ON COLUMN incidents.updates IS 'News by people';
COMMENT ON COLUMN incidents.overdue_updates IS 'Times that the clock had to say that there was no news';
COMMENT ON COLUMN incidents.calls IS 'Calls that a way''s service has taken';
COMMENT ON COLUMN incidents.failed_calls IS 'Calls that failed';
COMMENT ON COLUMN incidents.reopened IS 'How often it was not over after all';
COMMENT ON COLUMN incidents.closed_by IS 'Who closed it; NULL while it is open';
COMMENT ON COLUMN incidents.cause IS 'What it was, as the one who closed it last says';
COMMENT ON COLUMN incidents.since IS 'When what is wrong began';
COMMENT ON COLUMN incidents.declared_at IS 'When it was opened';
COMMENT ON COLUMN incidents.first_called_at IS 'When the first call was taken; NULL for none';
COMMENT ON COLUMN incidents.first_acknowledged_at IS 'When somebody first had it; NULL for nobody';
COMMENT ON COLUMN incidents.closed_at IS 'When it was closed; NULL while it is open';
COMMENT ON COLUMN incidents.first_seq IS 'Sequence in CONTROL of its first event';
COMMENT ON COLUMN incidents.last_seq IS 'Sequence in CONTROL of its last event';

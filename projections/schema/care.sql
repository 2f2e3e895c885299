-- What is done about the fleet: sweeps, findings, actions, decisions. There are few of these events, so their tables are views
-- over the log itself, and always what it says.
CREATE OR REPLACE VIEW sweeps AS
SELECT
    key AS id,
    max(said(raw, 'trigger')) AS "trigger",
    max(said(raw, 'why')) AS why,
    max(said(raw, 'verdict')) FILTER (event = 'finished') AS verdict,
    max(TRY_CAST(said(raw, 'counts.open') AS BIGINT)) FILTER (event = 'finished') AS open,
    max(TRY_CAST(said(raw, 'counts.new') AS BIGINT)) FILTER (event = 'finished') AS new,
    max(TRY_CAST(said(raw, 'counts.gone') AS BIGINT)) FILTER (event = 'finished') AS gone,
    max(TRY_CAST(TRY(json_extract(decode(raw), '$.data.unseen')) AS VARCHAR[])) FILTER (event = 'finished') AS unseen,
    max(TRY_CAST(said(raw, 'took_ms') AS DOUBLE)) FILTER (event = 'finished') AS took_ms,
    min(stored_at) FILTER (event = 'started') AS started_at,
    min(stored_at) FILTER (event = 'finished') AS finished_at,
    min(seq) AS first_seq,
    max(seq) AS last_seq
FROM hot.all_log WHERE stream = 'CONTROL' AND noun = 'sweep' AND problem IS NULL
GROUP BY key ORDER BY first_seq DESC;
COMMENT ON VIEW sweeps IS 'Looks of the monitor at the whole fleet, the newest first';
COMMENT ON COLUMN sweeps.id IS 'Id of the sweep';
COMMENT ON COLUMN sweeps."trigger" IS 'What asked for it: schedule, demand, event, look, start';
COMMENT ON COLUMN sweeps.why IS 'The same in words: the person, or the subject of the event';
COMMENT ON COLUMN sweeps.verdict IS 'nominal, concern or ultra; NULL: it was cut off, or goes on';
COMMENT ON COLUMN sweeps.open IS 'Findings that were open after it';
COMMENT ON COLUMN sweeps.new IS 'Findings that it opened';
COMMENT ON COLUMN sweeps.gone IS 'Findings that it closed';
COMMENT ON COLUMN sweeps.unseen IS 'What could not be looked at';
COMMENT ON COLUMN sweeps.took_ms IS 'Milliseconds that it took';
COMMENT ON COLUMN sweeps.started_at IS 'When it began; NULL for a look that wrote nothing before it had found something';
COMMENT ON COLUMN sweeps.finished_at IS 'When it was over';
COMMENT ON COLUMN sweeps.first_seq IS 'Sequence in CONTROL of its first event';
COMMENT ON COLUMN sweeps.last_seq IS 'Sequence in CONTROL of its last event';

CREATE OR REPLACE VIEW findings AS
WITH said_of AS (
    SELECT
        key, event, stored_at, seq, raw,
        -- One row for each time that it was opened; what is raised before the first opening belongs to that.
        greatest(1, count(*) FILTER (event = 'opened') OVER (PARTITION BY key ORDER BY seq)) AS opening
    FROM hot.all_log WHERE stream = 'CONTROL' AND noun = 'finding' AND problem IS NULL
)
SELECT
    key AS fingerprint,
    opening,
    max(said(raw, 'kind')) FILTER (event = 'opened') AS kind,
    CASE WHEN bool_or(event = 'closed') THEN 'closed' ELSE 'open' END AS state,
    arg_max(said(raw, 'severity'), seq) FILTER (event IN ('opened', 'changed')) AS severity,
    arg_max(said(raw, 'title'), seq) FILTER (event IN ('opened', 'changed')) AS title,
    max(said(raw, 'subject')) FILTER (event = 'opened') AS subject,
    arg_max(coalesce(said(raw, 'detail'), ''), seq) FILTER (event IN ('opened', 'changed')) AS detail,
    arg_max(coalesce(said(raw, 'command'), ''), seq) FILTER (event IN ('opened', 'changed')) AS command,
    arg_max(coalesce(said(raw, 'cause'), ''), seq) FILTER (event IN ('opened', 'changed')) AS cause,
    arg_max(CASE WHEN event = 'silenced' THEN said(raw, 'owner') ELSE '' END, seq) FILTER (event IN ('silenced', 'unsilenced', 'opened')) AS silenced_by,
    max(coalesce(said(raw, 'by'), 'monitor')) FILTER (event = 'opened') AS found_by,
    max(said(raw, 'reason')) FILTER (event = 'closed') AS closed_because,
    min(stored_at) FILTER (event = 'opened') AS opened_at,
    max(stored_at) FILTER (event = 'changed') AS changed_at,
    max(stored_at) FILTER (event = 'closed') AS closed_at,
    count(*) FILTER (event = 'raised') AS raised,
    min(seq) AS first_seq,
    max(seq) AS last_seq
FROM said_of GROUP BY key, opening HAVING bool_or(event = 'opened') ORDER BY first_seq DESC;
COMMENT ON VIEW findings IS 'What is or was wrong: one row for each time that a finding was opened, the newest first';
COMMENT ON COLUMN findings.fingerprint IS 'The same for the same thing about the same subject';
COMMENT ON COLUMN findings.opening IS 'Which time it is, from 1';
COMMENT ON COLUMN findings.kind IS 'What is wrong, as a word';
COMMENT ON COLUMN findings.state IS 'open or closed';
COMMENT ON COLUMN findings.severity IS 'concern or ultra, as it was told last';
COMMENT ON COLUMN findings.title IS 'What is wrong, as a sentence';
COMMENT ON COLUMN findings.subject IS 'Role, daemon, stream, bucket or guard that it is about';
COMMENT ON COLUMN findings.detail IS 'More about it';
COMMENT ON COLUMN findings.command IS 'What a person runs; empty for nothing';
COMMENT ON COLUMN findings.cause IS 'Fingerprint of the finding that explains it; empty for none';
COMMENT ON COLUMN findings.silenced_by IS 'Whose silence stands; empty for none';
COMMENT ON COLUMN findings.found_by IS 'Who says so: monitor, a daemon of the watch ring, or whoever raised it';
COMMENT ON COLUMN findings.closed_because IS 'gone, closed by a person, or expired; NULL while it is open';
COMMENT ON COLUMN findings.opened_at IS 'When it was found';
COMMENT ON COLUMN findings.changed_at IS 'When it last got worse, better, muted or unmuted';
COMMENT ON COLUMN findings.closed_at IS 'When it was over';
COMMENT ON COLUMN findings.raised IS 'How often somebody has raised it';
COMMENT ON COLUMN findings.first_seq IS 'Sequence in CONTROL of its first event';
COMMENT ON COLUMN findings.last_seq IS 'Sequence in CONTROL of its last event';

CREATE OR REPLACE VIEW ops_actions AS
SELECT
    key AS id,
    max(said(raw, 'action')) FILTER (event = 'requested') AS action,
    max(said(raw, 'target')) FILTER (event = 'requested') AS target,
    max(said(raw, 'who')) FILTER (event = 'requested') AS who,
    max(coalesce(said(raw, 'why'), '')) FILTER (event = 'requested') AS why,
    max(TRY_CAST(said(raw, 'decision') AS BIGINT)) FILTER (event = 'requested') AS decision,
    arg_max(event, seq) AS state,
    bool_or(TRY_CAST(said(raw, 'ok') AS BOOLEAN)) FILTER (event = 'finished') AS ok,
    max(said(raw, 'reason')) FILTER (event = 'refused') AS refused_because,
    max(CAST(TRY(json_extract(decode(raw), '$.data.evidence')) AS VARCHAR)) FILTER (event = 'finished') AS evidence,
    max(TRY_CAST(said(raw, 'took_s') AS DOUBLE)) FILTER (event = 'finished') AS took_s,
    min(stored_at) AS requested_at,
    max(stored_at) FILTER (event IN ('refused', 'finished')) AS ended_at,
    min(seq) AS first_seq,
    max(seq) AS last_seq
FROM hot.all_log WHERE stream = 'CONTROL' AND noun = 'ops' AND problem IS NULL
GROUP BY key ORDER BY first_seq DESC;
COMMENT ON VIEW ops_actions IS 'What people and daemons did to the fleet, the newest first';
COMMENT ON COLUMN ops_actions.id IS 'Id of the action';
COMMENT ON COLUMN ops_actions.action IS 'restart, reload, config, rollback, apply';
COMMENT ON COLUMN ops_actions.target IS 'What it is done to';
COMMENT ON COLUMN ops_actions.who IS 'Who asked for it';
COMMENT ON COLUMN ops_actions.why IS 'In their words';
COMMENT ON COLUMN ops_actions.decision IS 'Number of the decision that it rests on; NULL for none';
COMMENT ON COLUMN ops_actions.state IS 'Its last event: requested, refused, started, finished';
COMMENT ON COLUMN ops_actions.ok IS 'Whether it was done; NULL while it goes on, and for a refused one';
COMMENT ON COLUMN ops_actions.refused_because IS 'Why it was refused';
COMMENT ON COLUMN ops_actions.evidence IS 'What was seen of it, as JSON';
COMMENT ON COLUMN ops_actions.took_s IS 'Seconds that it took';
COMMENT ON COLUMN ops_actions.requested_at IS 'When it was asked for';
COMMENT ON COLUMN ops_actions.ended_at IS 'When it was refused or over';
COMMENT ON COLUMN ops_actions.first_seq IS 'Sequence in CONTROL of its first event';
COMMENT ON COLUMN ops_actions.last_seq IS 'Sequence in CONTROL of its last event';

CREATE OR REPLACE VIEW decisions AS
SELECT
    TRY_CAST(said(raw, 'number') AS BIGINT) AS number,
    said(raw, 'title') AS title,
    said(raw, 'by') AS decided_by,
    coalesce(said(raw, 'context'), '') AS context,
    coalesce(said(raw, 'decision'), '') AS decision,
    coalesce(said(raw, 'consequences'), '') AS consequences,
    TRY_CAST(said(raw, 'supersedes') AS BIGINT) AS supersedes,
    stored_at AS decided_at,
    seq
FROM hot.all_log WHERE stream = 'CONTROL' AND noun = 'decision' AND event = 'recorded' AND problem IS NULL
ORDER BY number;
COMMENT ON VIEW decisions IS 'What people have decided about the bus and the fleet, and why';
COMMENT ON COLUMN decisions.number IS 'From 1, without a gap';
COMMENT ON COLUMN decisions.title IS 'What it is about';
COMMENT ON COLUMN decisions.decided_by IS 'Who decided it';
COMMENT ON COLUMN decisions.context IS 'What made a decision necessary';
COMMENT ON COLUMN decisions.decision IS 'What was decided';
COMMENT ON COLUMN decisions.consequences IS 'What follows from it';
COMMENT ON COLUMN decisions.supersedes IS 'Number of the decision that it takes the place of; NULL for none';
COMMENT ON COLUMN decisions.decided_at IS 'When it was recorded';
COMMENT ON COLUMN decisions.seq IS 'Sequence in CONTROL';

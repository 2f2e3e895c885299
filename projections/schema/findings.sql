-- What is or was wrong with the fleet, as the monitor remembers it: services/monitor/memory.py.
CREATE TABLE IF NOT EXISTS hot.findings (
    fingerprint VARCHAR NOT NULL,
    opening BIGINT NOT NULL,
    state VARCHAR NOT NULL,
    kind VARCHAR,
    severity VARCHAR,
    subject VARCHAR,
    title VARCHAR,
    detail VARCHAR,
    since TIMESTAMP,
    value DOUBLE,
    was DOUBLE,
    command VARCHAR,
    cause VARCHAR,
    evidence JSON,
    found_by VARCHAR,
    sweep VARCHAR,
    silenced_by VARCHAR NOT NULL,
    silenced_why VARCHAR NOT NULL,
    silenced_until TIMESTAMP,
    triage VARCHAR,
    triage_summary VARCHAR,
    triage_problem VARCHAR,
    proposals JSON,
    proposed_at TIMESTAMP,
    proposed_seq UBIGINT,
    raised BIGINT NOT NULL,
    changes BIGINT NOT NULL,
    opened_at TIMESTAMP,
    opened_seq UBIGINT,
    changed_at TIMESTAMP,
    changed_seq UBIGINT,
    closed_because VARCHAR,
    closed_by VARCHAR,
    closed_why VARCHAR,
    open_s DOUBLE,
    closed_at TIMESTAMP,
    closed_seq UBIGINT,
    first_seq UBIGINT NOT NULL,
    last_seq UBIGINT NOT NULL
);
COMMENT ON TABLE hot.findings IS 'Findings, and what was raised and not opened yet. Ask findings';
COMMENT ON COLUMN hot.findings.fingerprint IS 'The same for the same thing about the same subject';
COMMENT ON COLUMN hot.findings.opening IS 'Which time it is, from 1';
COMMENT ON COLUMN hot.findings.state IS 'open or closed; raised: somebody says so, and no sweep has opened it yet';
COMMENT ON COLUMN hot.findings.kind IS 'What is wrong, as a word';
COMMENT ON COLUMN hot.findings.severity IS 'concern or ultra, as it was told last';
COMMENT ON COLUMN hot.findings.subject IS 'Role, daemon, stream, bucket or guard that it is about';
COMMENT ON COLUMN hot.findings.title IS 'What is wrong, as a sentence';
COMMENT ON COLUMN hot.findings.detail IS 'More about it';
COMMENT ON COLUMN hot.findings.since IS 'When what is wrong began, as far as its finder knows';
COMMENT ON COLUMN hot.findings.value IS 'How much; more is worse, what it counts is in the title';
COMMENT ON COLUMN hot.findings.was IS 'What value was before the last change; NULL when it never changed';
COMMENT ON COLUMN hot.findings.command IS 'What a person runs; empty for nothing';
COMMENT ON COLUMN hot.findings.cause IS 'Fingerprint of the finding that explains and mutes it; empty for none';
COMMENT ON COLUMN hot.findings.evidence IS 'Messages that show it: a list of stream and seq';
COMMENT ON COLUMN hot.findings.found_by IS 'Who says so: monitor, a daemon of the watch ring, or whoever raised it';
COMMENT ON COLUMN hot.findings.sweep IS 'Sweep that opened it; empty where none did';
COMMENT ON COLUMN hot.findings.silenced_by IS 'Whose silence stands; empty for none, and once it is closed';
COMMENT ON COLUMN hot.findings.silenced_why IS 'Why, in their words';
COMMENT ON COLUMN hot.findings.silenced_until IS 'When that silence ends by itself';
COMMENT ON COLUMN hot.findings.triage IS 'Invocation of the triage that answered last; NULL for none';
COMMENT ON COLUMN hot.findings.triage_summary IS 'What it says';
COMMENT ON COLUMN hot.findings.triage_problem IS 'Why its answer is none; empty for a good one';
COMMENT ON COLUMN hot.findings.proposals IS 'What it would do: a list of action, target, why and allowed (may be done without a person)';
COMMENT ON COLUMN hot.findings.proposed_at IS 'When it answered';
COMMENT ON COLUMN hot.findings.proposed_seq IS 'Sequence in CONTROL of its answer';
COMMENT ON COLUMN hot.findings.raised IS 'How often somebody has raised it';
COMMENT ON COLUMN hot.findings.changes IS 'How often it got worse, better, muted or unmuted';
COMMENT ON COLUMN hot.findings.opened_at IS 'When it was found';
COMMENT ON COLUMN hot.findings.opened_seq IS 'Sequence in CONTROL of the event that opened it';
COMMENT ON COLUMN hot.findings.changed_at IS 'When it last got worse, better, muted or unmuted; NULL when it never did';
COMMENT ON COLUMN hot.findings.changed_seq IS 'Sequence in CONTROL of the event that says so';
COMMENT ON COLUMN hot.findings.closed_because IS 'gone, closed (by a person) or expired; NULL while it is open';
COMMENT ON COLUMN hot.findings.closed_by IS 'Who closed it';
COMMENT ON COLUMN hot.findings.closed_why IS 'Why, in a person''s words; empty for none';
COMMENT ON COLUMN hot.findings.open_s IS 'Seconds that it was open, by who closed it';
COMMENT ON COLUMN hot.findings.closed_at IS 'When it was over; NULL while it is open';
COMMENT ON COLUMN hot.findings.closed_seq IS 'Sequence in CONTROL of the event that closed it';
COMMENT ON COLUMN hot.findings.first_seq IS 'Sequence in CONTROL of its first event';
COMMENT ON COLUMN hot.findings.last_seq IS 'Sequence in CONTROL of its last event';

CREATE OR REPLACE VIEW findings AS
SELECT
    *,
    -- A silence is over at its time, also when no sweep comes to say so.
    state = 'open' AND cause = '' AND (silenced_by = '' OR coalesce(silenced_until <= moment(), false)) AS speaks
FROM hot.findings
WHERE opened_seq IS NOT NULL;
COMMENT ON VIEW findings IS 'What is or was wrong: one row for each time that a finding was opened';
COMMENT ON COLUMN findings.state IS 'open or closed';
COMMENT ON COLUMN findings.speaks IS 'It may call people: it is open, nothing explains it, and nobody has silenced it';

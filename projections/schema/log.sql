-- One row for each message of the event streams. The columns are those of projections/log.py, in its order.
CREATE SCHEMA IF NOT EXISTS hot;

CREATE TABLE IF NOT EXISTS hot.log (
    stream VARCHAR NOT NULL,
    seq UBIGINT NOT NULL,
    stored_at TIMESTAMP NOT NULL,
    subject VARCHAR NOT NULL,
    problem VARCHAR,
    raw BLOB NOT NULL USING COMPRESSION zstd,
    id VARCHAR,
    type VARCHAR,
    time TIMESTAMP,
    source VARCHAR,
    actor VARCHAR,
    correlation_id VARCHAR,
    causation_id VARCHAR,
    version SMALLINT,
    noun VARCHAR,
    key VARCHAR,
    event VARCHAR,
    project VARCHAR,
    role VARCHAR,
    parent VARCHAR,
    root VARCHAR,
    depth INTEGER,
    generation INTEGER,
    schedule VARCHAR,
    due TIMESTAMP,
    holder VARCHAR,
    runner VARCHAR,
    delivery INTEGER,
    attempt INTEGER,
    registry_revision UBIGINT,
    prompt_digest VARCHAR,
    reason VARCHAR,
    error_kind VARCHAR,
    error_message VARCHAR,
    error_fingerprint VARCHAR,
    permanent BOOLEAN,
    retry_at TIMESTAMP,
    input_tokens BIGINT,
    output_tokens BIGINT,
    model VARCHAR,
    duration_ms DOUBLE,
    age_s DOUBLE,
    hold_tokens BIGINT,
    hold_usd_micros BIGINT,
    settled_tokens BIGINT,
    settled_usd_micros BIGINT,
    assumed BOOLEAN
);
COMMENT ON TABLE hot.log IS 'Every message of the event streams that is not in the archive yet, good or bad';
COMMENT ON COLUMN hot.log.stream IS 'Stream that holds the message';
COMMENT ON COLUMN hot.log.seq IS 'Sequence in the stream: with stream, the name of the row';
COMMENT ON COLUMN hot.log.stored_at IS 'When the server stored it, UTC';
COMMENT ON COLUMN hot.log.subject IS 'NATS subject';
COMMENT ON COLUMN hot.log.problem IS 'Why it is no event of ours, in one sentence; NULL for an event';
COMMENT ON COLUMN hot.log.raw IS 'The body as it lay on the wire';
COMMENT ON COLUMN hot.log.id IS 'Id of the event, made before the first try to write it';
COMMENT ON COLUMN hot.log.type IS 'CloudEvents type: systems.<noun>.<event>';
COMMENT ON COLUMN hot.log.time IS 'When the writer decided it, by its own clock, UTC';
COMMENT ON COLUMN hot.log.source IS 'Who wrote it: /<daemon>/<boot id>, or /operator/<name>';
COMMENT ON COLUMN hot.log.actor IS 'On whose behalf: a person, a role, a schedule, a daemon';
COMMENT ON COLUMN hot.log.correlation_id IS 'Id of the run tree''s first invocation';
COMMENT ON COLUMN hot.log.causation_id IS 'Id of the event that caused this one';
COMMENT ON COLUMN hot.log.version IS 'Version of the shape of its data, as it was written';
COMMENT ON COLUMN hot.log.noun IS 'What it is about: invocation, daemon, freeze, …; advisory for the server''s own';
COMMENT ON COLUMN hot.log.key IS 'Which one: the invocation''s id, or the id token of ctl.<noun>.<id>.<event>';
COMMENT ON COLUMN hot.log.event IS 'What happened: the last part of its type';
COMMENT ON COLUMN hot.log.project IS 'Project that it is about, where it tells';
COMMENT ON COLUMN hot.log.role IS 'Role within the project, where it tells';
COMMENT ON COLUMN hot.log.parent IS 'Id of the invocation that asked; empty for a person''s or a schedule''s request';
COMMENT ON COLUMN hot.log.root IS 'Id of the run tree''s first invocation, as the request says';
COMMENT ON COLUMN hot.log.depth IS 'Distance from the root';
COMMENT ON COLUMN hot.log.generation IS 'How often the request was put back or redriven';
COMMENT ON COLUMN hot.log.schedule IS 'Name of the schedule that asked';
COMMENT ON COLUMN hot.log.due IS 'When it was due';
COMMENT ON COLUMN hot.log.holder IS 'Boot id of the runner that holds or held the claim';
COMMENT ON COLUMN hot.log.runner IS 'Instance name of the runner';
COMMENT ON COLUMN hot.log.delivery IS 'The server''s delivery count of the request, from 1';
COMMENT ON COLUMN hot.log.attempt IS 'Which try, from 1: errors and crashes before it, plus one';
COMMENT ON COLUMN hot.log.registry_revision IS 'Registry revision of the role that the claim works under';
COMMENT ON COLUMN hot.log.prompt_digest IS 'Digest of the prompt''s text that the claim works with';
COMMENT ON COLUMN hot.log.reason IS 'Why, in the event''s own word';
COMMENT ON COLUMN hot.log.error_kind IS 'Class of the error';
COMMENT ON COLUMN hot.log.error_message IS 'The error in one sentence';
COMMENT ON COLUMN hot.log.error_fingerprint IS '12 digits that errors of one cause share';
COMMENT ON COLUMN hot.log.permanent IS 'True: no retry can help';
COMMENT ON COLUMN hot.log.retry_at IS 'When a failed attempt is tried again; NULL when it is not';
COMMENT ON COLUMN hot.log.input_tokens IS 'Input tokens that the attempt reports';
COMMENT ON COLUMN hot.log.output_tokens IS 'Output tokens that the attempt reports';
COMMENT ON COLUMN hot.log.model IS 'Model that the attempt reports';
COMMENT ON COLUMN hot.log.duration_ms IS 'Milliseconds from the claim to the result';
COMMENT ON COLUMN hot.log.age_s IS 'Seconds that a swept claim was held';
COMMENT ON COLUMN hot.log.hold_tokens IS 'Tokens that the claim has reserved';
COMMENT ON COLUMN hot.log.hold_usd_micros IS 'Millionths of a US dollar that the claim has reserved';
COMMENT ON COLUMN hot.log.settled_tokens IS 'Tokens that the end of the claim is settled at';
COMMENT ON COLUMN hot.log.settled_usd_micros IS 'Millionths of a US dollar that the end of the claim is settled at';
COMMENT ON COLUMN hot.log.assumed IS 'True: nobody knows what the claim used, and its whole hold counts';

-- One row for each claim. Those that stand and those that have ended lie apart: an ended one never changes again.
CREATE TABLE IF NOT EXISTS hot.claims (
    project VARCHAR NOT NULL,
    role VARCHAR NOT NULL,
    id VARCHAR NOT NULL,
    root VARCHAR NOT NULL,
    claimed_seq UBIGINT NOT NULL,
    claimed_at TIMESTAMP NOT NULL,
    attempt INTEGER NOT NULL,
    delivery INTEGER NOT NULL,
    holder VARCHAR NOT NULL,
    runner VARCHAR NOT NULL,
    registry_revision UBIGINT NOT NULL,
    prompt_digest VARCHAR NOT NULL,
    hold_tokens BIGINT,
    hold_usd_micros BIGINT,
    ended_seq UBIGINT,
    ended_at TIMESTAMP,
    outcome VARCHAR,
    reason VARCHAR,
    duration_ms DOUBLE,
    input_tokens BIGINT,
    output_tokens BIGINT,
    model VARCHAR,
    error_kind VARCHAR,
    error_fingerprint VARCHAR,
    error_message VARCHAR,
    retry_at TIMESTAMP,
    settled_tokens BIGINT,
    settled_usd_micros BIGINT,
    assumed BOOLEAN
);
COMMENT ON TABLE hot.claims IS 'Claims that have ended and are not cold: one runner''s exclusive hold on an invocation, and how it ended';
COMMENT ON COLUMN hot.claims.project IS 'Project of the role';
COMMENT ON COLUMN hot.claims.role IS 'Role that does the work';
COMMENT ON COLUMN hot.claims.id IS 'Id of the invocation';
COMMENT ON COLUMN hot.claims.root IS 'Id of the run tree''s first invocation';
COMMENT ON COLUMN hot.claims.claimed_seq IS 'Sequence in INVOCATIONS of the claim: its name';
COMMENT ON COLUMN hot.claims.claimed_at IS 'When the claim was stored';
COMMENT ON COLUMN hot.claims.attempt IS 'Which try, from 1: errors and crashes before it, plus one';
COMMENT ON COLUMN hot.claims.delivery IS 'The server''s delivery count of the work item, from 1';
COMMENT ON COLUMN hot.claims.holder IS 'Boot id of the runner';
COMMENT ON COLUMN hot.claims.runner IS 'Instance name of the runner';
COMMENT ON COLUMN hot.claims.registry_revision IS 'Registry revision of the role that it works under';
COMMENT ON COLUMN hot.claims.prompt_digest IS 'Digest of the prompt that it works with; empty for a role without one';
COMMENT ON COLUMN hot.claims.hold_tokens IS 'Tokens that it has reserved on spend caps; NULL where no cap covers the role';
COMMENT ON COLUMN hot.claims.hold_usd_micros IS 'Millionths of a US dollar that it has reserved';
COMMENT ON COLUMN hot.claims.ended_seq IS 'Sequence of the event that ended it; NULL while it stands';
COMMENT ON COLUMN hot.claims.ended_at IS 'When that event was stored';
COMMENT ON COLUMN hot.claims.outcome IS 'That event: completed, failed, swept, released, cancelled or dead_lettered; requested or claimed if something that cannot follow took its place';
COMMENT ON COLUMN hot.claims.reason IS 'Why it was swept, released, cancelled or given up on';
COMMENT ON COLUMN hot.claims.duration_ms IS 'Milliseconds from the claim to the result, by the runner''s clock';
COMMENT ON COLUMN hot.claims.input_tokens IS 'Input tokens that it reports';
COMMENT ON COLUMN hot.claims.output_tokens IS 'Output tokens that it reports';
COMMENT ON COLUMN hot.claims.model IS 'Model that it reports';
COMMENT ON COLUMN hot.claims.error_kind IS 'Class of the error that it ended with';
COMMENT ON COLUMN hot.claims.error_fingerprint IS '12 digits that errors of one cause share';
COMMENT ON COLUMN hot.claims.error_message IS 'The error in one sentence';
COMMENT ON COLUMN hot.claims.retry_at IS 'When the work is tried again after its error';
COMMENT ON COLUMN hot.claims.settled_tokens IS 'Tokens that its hold was settled at; NULL without a hold';
COMMENT ON COLUMN hot.claims.settled_usd_micros IS 'Millionths of a US dollar that its hold was settled at';
COMMENT ON COLUMN hot.claims.assumed IS 'True: its holder died, nobody knows what it used, and the whole hold counts';

CREATE TABLE IF NOT EXISTS hot.standing (
    project VARCHAR NOT NULL,
    role VARCHAR NOT NULL,
    id VARCHAR NOT NULL,
    root VARCHAR NOT NULL,
    claimed_seq UBIGINT NOT NULL,
    claimed_at TIMESTAMP NOT NULL,
    attempt INTEGER NOT NULL,
    delivery INTEGER NOT NULL,
    holder VARCHAR NOT NULL,
    runner VARCHAR NOT NULL,
    registry_revision UBIGINT NOT NULL,
    prompt_digest VARCHAR NOT NULL,
    hold_tokens BIGINT,
    hold_usd_micros BIGINT
);
COMMENT ON TABLE hot.standing IS 'Claims that stand: work that is being done now';
COMMENT ON COLUMN hot.standing.project IS 'Project of the role';
COMMENT ON COLUMN hot.standing.role IS 'Role that does the work';
COMMENT ON COLUMN hot.standing.id IS 'Id of the invocation';
COMMENT ON COLUMN hot.standing.root IS 'Id of the run tree''s first invocation';
COMMENT ON COLUMN hot.standing.claimed_seq IS 'Sequence in INVOCATIONS of the claim: its name';
COMMENT ON COLUMN hot.standing.claimed_at IS 'When the claim was stored';
COMMENT ON COLUMN hot.standing.attempt IS 'Which try, from 1: errors and crashes before it, plus one';
COMMENT ON COLUMN hot.standing.delivery IS 'The server''s delivery count of the work item, from 1';
COMMENT ON COLUMN hot.standing.holder IS 'Boot id of the runner';
COMMENT ON COLUMN hot.standing.runner IS 'Instance name of the runner';
COMMENT ON COLUMN hot.standing.registry_revision IS 'Registry revision of the role that it works under';
COMMENT ON COLUMN hot.standing.prompt_digest IS 'Digest of the prompt that it works with; empty for a role without one';
COMMENT ON COLUMN hot.standing.hold_tokens IS 'Tokens that it has reserved on spend caps; NULL where no cap covers the role';
COMMENT ON COLUMN hot.standing.hold_usd_micros IS 'Millionths of a US dollar that it has reserved';

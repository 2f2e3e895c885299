-- What was given up on. A death is told by INVOCATIONS, its copy by DEAD_LETTERS, whichever is read first.
CREATE TABLE IF NOT EXISTS dead_letters (
    project VARCHAR NOT NULL,
    role VARCHAR NOT NULL,
    id VARCHAR NOT NULL,
    died_seq UBIGINT NOT NULL,
    died_at TIMESTAMP,
    reason VARCHAR,
    root VARCHAR,
    error_kind VARCHAR,
    error_fingerprint VARCHAR,
    error_message VARCHAR,
    kept_at TIMESTAMP,
    kept_seq UBIGINT,
    resolution VARCHAR,
    resolved_at TIMESTAMP,
    resolved_seq UBIGINT,
    resolved_by VARCHAR,
    resolved_why VARCHAR
);
COMMENT ON TABLE dead_letters IS 'Deaths: each time that an invocation was given up on, and what became of it';
COMMENT ON COLUMN dead_letters.project IS 'Project of the role';
COMMENT ON COLUMN dead_letters.role IS 'Role that was to do the work';
COMMENT ON COLUMN dead_letters.id IS 'Id of the invocation';
COMMENT ON COLUMN dead_letters.died_seq IS 'Sequence in INVOCATIONS of its dead_lettered event: the name of the death';
COMMENT ON COLUMN dead_letters.died_at IS 'When that was stored; NULL while only the copy in DEAD_LETTERS was seen';
COMMENT ON COLUMN dead_letters.reason IS 'Why: attempts_spent, crashes_spent, deliveries_spent, permanent_error, not_idempotent or tree_stopped';
COMMENT ON COLUMN dead_letters.root IS 'Id of the run tree''s first invocation';
COMMENT ON COLUMN dead_letters.error_kind IS 'Class of the last error; NULL when it died without one';
COMMENT ON COLUMN dead_letters.error_fingerprint IS '12 digits that errors of one cause share';
COMMENT ON COLUMN dead_letters.error_message IS 'The last error in one sentence';
COMMENT ON COLUMN dead_letters.kept_at IS 'When the warden had copied it whole into DEAD_LETTERS; NULL before';
COMMENT ON COLUMN dead_letters.kept_seq IS 'Sequence of that copy in DEAD_LETTERS';
COMMENT ON COLUMN dead_letters.resolution IS 'redriven, discarded or cancelled; NULL while it waits for a person';
COMMENT ON COLUMN dead_letters.resolved_at IS 'When that was stored';
COMMENT ON COLUMN dead_letters.resolved_seq IS 'Sequence in INVOCATIONS of the event that resolved it';
COMMENT ON COLUMN dead_letters.resolved_by IS 'On whose behalf';
COMMENT ON COLUMN dead_letters.resolved_why IS 'The reason that was given';

-- Who runs, and what they run under.
CREATE TABLE IF NOT EXISTS daemons (
    seat VARCHAR NOT NULL,
    daemon VARCHAR,
    host VARCHAR,
    state VARCHAR NOT NULL,
    since TIMESTAMP NOT NULL,
    boot_id VARCHAR,
    pid BIGINT,
    version VARCHAR,
    started_at TIMESTAMP,
    starts BIGINT NOT NULL,
    stops BIGINT NOT NULL,
    exits BIGINT NOT NULL,
    exited_at TIMESTAMP,
    exit_status BIGINT,
    restart_in_s DOUBLE,
    command VARCHAR,
    first_seq UBIGINT NOT NULL,
    last_seq UBIGINT NOT NULL
);
COMMENT ON TABLE daemons IS 'Seats of daemons, and what was last heard of each: started, stopped, exited, given up';
COMMENT ON COLUMN daemons.seat IS 'Where it sits: <instance>_<host>';
COMMENT ON COLUMN daemons.daemon IS 'Kind of daemon';
COMMENT ON COLUMN daemons.host IS 'Machine';
COMMENT ON COLUMN daemons.state IS 'Its last event: started, stopped (asked to), exited (by itself or killed) or gave_up (left down for a person)';
COMMENT ON COLUMN daemons.since IS 'When that was stored';
COMMENT ON COLUMN daemons.boot_id IS 'Boot id of its last start';
COMMENT ON COLUMN daemons.pid IS 'Process of its last start';
COMMENT ON COLUMN daemons.version IS 'Version of its last start';
COMMENT ON COLUMN daemons.started_at IS 'When it last started';
COMMENT ON COLUMN daemons.starts IS 'Starts so far';
COMMENT ON COLUMN daemons.stops IS 'Ends that somebody asked for';
COMMENT ON COLUMN daemons.exits IS 'Ends that nobody asked for';
COMMENT ON COLUMN daemons.exited_at IS 'When it last ended unasked';
COMMENT ON COLUMN daemons.exit_status IS 'How it last ended unasked: exit status, or minus the number of the signal';
COMMENT ON COLUMN daemons.restart_in_s IS 'Seconds until it was to be started again; NULL when it was not';
COMMENT ON COLUMN daemons.command IS 'What a person runs to bring it back, once the launcher has given up';
COMMENT ON COLUMN daemons.first_seq IS 'Sequence in CONTROL of its first event';
COMMENT ON COLUMN daemons.last_seq IS 'Sequence in CONTROL of its last event';

CREATE TABLE IF NOT EXISTS registry_versions (
    key VARCHAR NOT NULL,
    revision UBIGINT,
    replaced UBIGINT,
    removed BOOLEAN NOT NULL,
    value JSON,
    changed_at TIMESTAMP NOT NULL,
    actor VARCHAR,
    seq UBIGINT NOT NULL
);
COMMENT ON TABLE registry_versions IS 'Every value that a key of the registry ever had';
COMMENT ON COLUMN registry_versions.key IS 'Key of the registry: roles.<project>.<role>, prompts.<name>, guards.quota, …';
COMMENT ON COLUMN registry_versions.revision IS 'Revision of the value: what claims name';
COMMENT ON COLUMN registry_versions.replaced IS 'Revision that it replaced; 0 for a new key';
COMMENT ON COLUMN registry_versions.removed IS 'True: the key was taken out';
COMMENT ON COLUMN registry_versions.value IS 'The whole value; NULL for a removed key';
COMMENT ON COLUMN registry_versions.changed_at IS 'When the change was recorded';
COMMENT ON COLUMN registry_versions.actor IS 'On whose behalf it was recorded';
COMMENT ON COLUMN registry_versions.seq IS 'Sequence in CONTROL';

CREATE TABLE IF NOT EXISTS schedules (
    project VARCHAR NOT NULL,
    role VARCHAR NOT NULL,
    name VARCHAR NOT NULL,
    requests BIGINT NOT NULL,
    last_requested_at TIMESTAMP,
    last_due TIMESTAMP,
    last_id VARCHAR,
    last_seq UBIGINT,
    missed BIGINT NOT NULL,
    last_missed_at TIMESTAMP,
    last_missed_due TIMESTAMP,
    last_missed_reason VARCHAR,
    last_missed_seq UBIGINT
);
COMMENT ON TABLE schedules IS 'What became of the ticks of each schedule';
COMMENT ON COLUMN schedules.project IS 'Project of the role';
COMMENT ON COLUMN schedules.role IS 'Role that is asked';
COMMENT ON COLUMN schedules.name IS 'Name of the schedule';
COMMENT ON COLUMN schedules.requests IS 'Requests that it made';
COMMENT ON COLUMN schedules.last_requested_at IS 'When it last asked';
COMMENT ON COLUMN schedules.last_due IS 'Due time that it last asked for';
COMMENT ON COLUMN schedules.last_id IS 'Invocation that it last asked for';
COMMENT ON COLUMN schedules.last_seq IS 'Sequence in INVOCATIONS of its last request';
COMMENT ON COLUMN schedules.missed IS 'Due times that passed without a request';
COMMENT ON COLUMN schedules.last_missed_at IS 'When the last of them was found';
COMMENT ON COLUMN schedules.last_missed_due IS 'Which due time that was';
COMMENT ON COLUMN schedules.last_missed_reason IS 'too_late, overlap, unregistered or superseded';
COMMENT ON COLUMN schedules.last_missed_seq IS 'Sequence in CONTROL of the event that tells';

-- Guards that acted.
CREATE TABLE IF NOT EXISTS hot.trips (
    guard VARCHAR NOT NULL,
    scope VARCHAR NOT NULL,
    key VARCHAR NOT NULL,
    project VARCHAR,
    reason VARCHAR,
    tripped_at TIMESTAMP NOT NULL,
    until TIMESTAMP,
    stream VARCHAR NOT NULL,
    seq UBIGINT NOT NULL,
    actor VARCHAR,
    cleared_at TIMESTAMP,
    cleared_by VARCHAR,
    cleared_seq UBIGINT
);
COMMENT ON TABLE hot.trips IS 'Trips that stand until something clears them: the kill switch, spend caps, loops, pauses. Ask guard_trips: it has all guards';
COMMENT ON COLUMN hot.trips.guard IS 'kill_switch, quota, loop or pause';
COMMENT ON COLUMN hot.trips.scope IS 'What it covers: system, a counter, tree <root id>, or project/role';
COMMENT ON COLUMN hot.trips.key IS 'What its clearing names: the freeze, the counter, the root, the role';
COMMENT ON COLUMN hot.trips.project IS 'Project whose role tripped it; NULL where it concerns no role alone';
COMMENT ON COLUMN hot.trips.reason IS 'Why it tripped';
COMMENT ON COLUMN hot.trips.tripped_at IS 'When that was stored';
COMMENT ON COLUMN hot.trips.until IS 'When it ends by itself; NULL when somebody has to end it';
COMMENT ON COLUMN hot.trips.stream IS 'Stream of the events';
COMMENT ON COLUMN hot.trips.seq IS 'Sequence of the event that tripped it';
COMMENT ON COLUMN hot.trips.actor IS 'Who did it, where somebody did';
COMMENT ON COLUMN hot.trips.cleared_at IS 'When it was cleared; NULL while it stands';
COMMENT ON COLUMN hot.trips.cleared_by IS 'The event that cleared it';
COMMENT ON COLUMN hot.trips.cleared_seq IS 'Sequence of that event';

CREATE TABLE IF NOT EXISTS freezes (
    id VARCHAR NOT NULL,
    mode VARCHAR,
    reason VARCHAR,
    thrown_by VARCHAR,
    until TIMESTAMP,
    frozen_at TIMESTAMP,
    after_seq UBIGINT,
    owed BIGINT,
    receipts BIGINT NOT NULL,
    missing VARCHAR,
    thaw_receipts BIGINT NOT NULL,
    thawing_at TIMESTAMP,
    thawed_at TIMESTAMP,
    frozen_s DOUBLE,
    written BIGINT,
    first_seq UBIGINT NOT NULL,
    last_seq UBIGINT NOT NULL
);
COMMENT ON TABLE freezes IS 'The kill switch: each time that it was thrown, and how the fleet came out of it';
COMMENT ON COLUMN freezes.id IS 'Id of the freeze: r and the revision of the flag''s value';
COMMENT ON COLUMN freezes.mode IS 'soft or hard, as it is or was at last';
COMMENT ON COLUMN freezes.reason IS 'Why it was thrown';
COMMENT ON COLUMN freezes.thrown_by IS 'Who threw it';
COMMENT ON COLUMN freezes.until IS 'When it clears by itself; NULL when somebody has to clear it';
COMMENT ON COLUMN freezes.frozen_at IS 'When the server refused every write';
COMMENT ON COLUMN freezes.after_seq IS 'Last sequence of INVOCATIONS then: nothing may follow it before the thaw';
COMMENT ON COLUMN freezes.owed IS 'Daemons that owe a receipt';
COMMENT ON COLUMN freezes.receipts IS 'Receipts of the freeze that came';
COMMENT ON COLUMN freezes.missing IS 'Instances that gave none in time, as JSON; NULL when all did';
COMMENT ON COLUMN freezes.thaw_receipts IS 'Receipts of the thaw that came';
COMMENT ON COLUMN freezes.thawing_at IS 'When writes were taken again';
COMMENT ON COLUMN freezes.thawed_at IS 'When every role handed out work again; NULL while it stands';
COMMENT ON COLUMN freezes.frozen_s IS 'Seconds that it stood';
COMMENT ON COLUMN freezes.written IS 'Events that were stored while it stood: anything but 0 is a breach';
COMMENT ON COLUMN freezes.first_seq IS 'Sequence in CONTROL of its first event';
COMMENT ON COLUMN freezes.last_seq IS 'Sequence in CONTROL of its last event';

CREATE TABLE IF NOT EXISTS drills (
    guard VARCHAR NOT NULL,
    outcome VARCHAR NOT NULL,
    drilled_at TIMESTAMP NOT NULL,
    took_s DOUBLE,
    expected VARCHAR,
    got VARCHAR,
    evidence VARCHAR,
    seq UBIGINT NOT NULL
);
COMMENT ON TABLE drills IS 'Guards that were proven on the running fleet with a real fault';
COMMENT ON COLUMN drills.guard IS 'Guard that was proven';
COMMENT ON COLUMN drills.outcome IS 'passed or failed';
COMMENT ON COLUMN drills.drilled_at IS 'When that was stored';
COMMENT ON COLUMN drills.took_s IS 'Seconds from the fault to the guard''s act; NULL when it did not act';
COMMENT ON COLUMN drills.expected IS 'What had to happen, where it did not';
COMMENT ON COLUMN drills.got IS 'What happened instead';
COMMENT ON COLUMN drills.evidence IS 'What was seen, as JSON';
COMMENT ON COLUMN drills.seq IS 'Sequence in CONTROL';

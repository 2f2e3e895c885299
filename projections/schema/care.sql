-- What is done about the fleet: the monitor's sweeps, what people and daemons do, what was decided, and what waits for a person.
CREATE TABLE IF NOT EXISTS sweeps (
    id VARCHAR NOT NULL,
    "trigger" VARCHAR,
    why VARCHAR,
    verdict VARCHAR,
    open BIGINT,
    new BIGINT,
    still BIGINT,
    worse BIGINT,
    better BIGINT,
    gone BIGINT,
    muted BIGINT,
    silenced BIGINT,
    unseen VARCHAR[],
    findings VARCHAR[],
    positions JSON,
    took_ms DOUBLE,
    next_at TIMESTAMP,
    started_at TIMESTAMP,
    started_seq UBIGINT,
    finished_at TIMESTAMP,
    finished_seq UBIGINT,
    first_seq UBIGINT NOT NULL,
    last_seq UBIGINT NOT NULL
);
COMMENT ON TABLE sweeps IS 'Looks of the monitor at the whole fleet';
COMMENT ON COLUMN sweeps.id IS 'Id of the sweep';
COMMENT ON COLUMN sweeps."trigger" IS 'What asked for it: schedule, demand, event, look, start';
COMMENT ON COLUMN sweeps.why IS 'The same in words: the person, or the subject of the event';
COMMENT ON COLUMN sweeps.verdict IS 'nominal, concern or ultra; NULL: it was cut off, or goes on';
COMMENT ON COLUMN sweeps.open IS 'Findings that were open after it';
COMMENT ON COLUMN sweeps.new IS 'Findings that it opened';
COMMENT ON COLUMN sweeps.still IS 'Findings that were as before';
COMMENT ON COLUMN sweeps.worse IS 'Findings that had got worse';
COMMENT ON COLUMN sweeps.better IS 'Findings that had got better';
COMMENT ON COLUMN sweeps.gone IS 'Findings that it closed';
COMMENT ON COLUMN sweeps.muted IS 'Of the open ones: those that another one explains';
COMMENT ON COLUMN sweeps.silenced IS 'Of the open ones: those that a person has silenced';
COMMENT ON COLUMN sweeps.unseen IS 'What could not be looked at; such a sweep is never nominal';
COMMENT ON COLUMN sweeps.findings IS 'Fingerprints of the open findings that spoke for themselves, the worst first, at most 100';
COMMENT ON COLUMN sweeps.positions IS 'Last sequence of each stream when it looked';
COMMENT ON COLUMN sweeps.took_ms IS 'Milliseconds that it took';
COMMENT ON COLUMN sweeps.next_at IS 'When the next one was due by the schedule';
COMMENT ON COLUMN sweeps.started_at IS 'When it began; NULL for a look that wrote nothing before it had found something';
COMMENT ON COLUMN sweeps.started_seq IS 'Sequence in CONTROL of the event that says so';
COMMENT ON COLUMN sweeps.finished_at IS 'When it was over';
COMMENT ON COLUMN sweeps.finished_seq IS 'Sequence in CONTROL of the event that says so';
COMMENT ON COLUMN sweeps.first_seq IS 'Sequence in CONTROL of its first event';
COMMENT ON COLUMN sweeps.last_seq IS 'Sequence in CONTROL of its last event';

CREATE TABLE IF NOT EXISTS ops_actions (
    id VARCHAR NOT NULL,
    state VARCHAR NOT NULL,
    action VARCHAR,
    target VARCHAR,
    who VARCHAR,
    why VARCHAR,
    decision BIGINT,
    refused_because VARCHAR,
    command VARCHAR,
    lock VARCHAR,
    limit_s DOUBLE,
    ok BOOLEAN,
    took_s DOUBLE,
    evidence JSON,
    requested_at TIMESTAMP,
    requested_seq UBIGINT,
    refused_at TIMESTAMP,
    refused_seq UBIGINT,
    started_at TIMESTAMP,
    started_seq UBIGINT,
    finished_at TIMESTAMP,
    finished_seq UBIGINT,
    first_seq UBIGINT NOT NULL,
    last_seq UBIGINT NOT NULL
);
COMMENT ON TABLE ops_actions IS 'What people and daemons did to the fleet';
COMMENT ON COLUMN ops_actions.id IS 'Id of the action';
COMMENT ON COLUMN ops_actions.state IS 'Its last event: requested, refused, started, finished';
COMMENT ON COLUMN ops_actions.action IS 'restart, reload, config, rollback, apply, deploy, roll-out, roll-back';
COMMENT ON COLUMN ops_actions.target IS 'What it is done to';
COMMENT ON COLUMN ops_actions.who IS 'Who asked for it';
COMMENT ON COLUMN ops_actions.why IS 'In their words';
COMMENT ON COLUMN ops_actions.decision IS 'Number of the decision that it rests on; NULL for none';
COMMENT ON COLUMN ops_actions.refused_because IS 'Why it was refused; nothing was changed then';
COMMENT ON COLUMN ops_actions.command IS 'What a person runs instead of a refused one; empty for nothing';
COMMENT ON COLUMN ops_actions.lock IS 'What nobody else may begin meanwhile; empty for nothing';
COMMENT ON COLUMN ops_actions.limit_s IS 'Seconds after its start when it counts as abandoned';
COMMENT ON COLUMN ops_actions.ok IS 'Whether it was done; NULL while it goes on, and for a refused one';
COMMENT ON COLUMN ops_actions.took_s IS 'Seconds that it took';
COMMENT ON COLUMN ops_actions.evidence IS 'What was seen of it; of a failure, error';
COMMENT ON COLUMN ops_actions.requested_at IS 'When it was asked for';
COMMENT ON COLUMN ops_actions.requested_seq IS 'Sequence in CONTROL of the event that says so';
COMMENT ON COLUMN ops_actions.refused_at IS 'When it was refused; NULL when it was not';
COMMENT ON COLUMN ops_actions.refused_seq IS 'Sequence in CONTROL of the event that says so';
COMMENT ON COLUMN ops_actions.started_at IS 'When it began; NULL when it did not';
COMMENT ON COLUMN ops_actions.started_seq IS 'Sequence in CONTROL of the event that says so';
COMMENT ON COLUMN ops_actions.finished_at IS 'When it was over; NULL while it goes on';
COMMENT ON COLUMN ops_actions.finished_seq IS 'Sequence in CONTROL of the event that says so';
COMMENT ON COLUMN ops_actions.first_seq IS 'Sequence in CONTROL of its first event';
COMMENT ON COLUMN ops_actions.last_seq IS 'Sequence in CONTROL of its last event';

CREATE TABLE IF NOT EXISTS decisions (
    number BIGINT,
    title VARCHAR,
    decided_by VARCHAR,
    context VARCHAR,
    decision VARCHAR,
    consequences VARCHAR,
    supersedes BIGINT,
    superseded_by BIGINT,
    decided_at TIMESTAMP NOT NULL,
    seq UBIGINT NOT NULL,
    superseded_seq UBIGINT
);
COMMENT ON TABLE decisions IS 'What people have decided about the bus and the fleet, and why';
COMMENT ON COLUMN decisions.number IS 'From 1, without a gap';
COMMENT ON COLUMN decisions.title IS 'What it is about';
COMMENT ON COLUMN decisions.decided_by IS 'Who decided it';
COMMENT ON COLUMN decisions.context IS 'What made a decision necessary';
COMMENT ON COLUMN decisions.decision IS 'What was decided';
COMMENT ON COLUMN decisions.consequences IS 'What follows from it';
COMMENT ON COLUMN decisions.supersedes IS 'Number of the decision that it takes the place of; NULL for none';
COMMENT ON COLUMN decisions.superseded_by IS 'Number of the decision that has taken its place; NULL: it stands';
COMMENT ON COLUMN decisions.decided_at IS 'When it was recorded';
COMMENT ON COLUMN decisions.seq IS 'Sequence in CONTROL';
COMMENT ON COLUMN decisions.superseded_seq IS 'Sequence in CONTROL of the decision that has taken its place';

CREATE TABLE IF NOT EXISTS cards (
    seat VARCHAR NOT NULL,
    opening BIGINT NOT NULL,
    state VARCHAR NOT NULL,
    instance VARCHAR,
    host VARCHAR,
    reason VARCHAR,
    why VARCHAR,
    command VARCHAR,
    since TIMESTAMP,
    pid BIGINT,
    boot_id VARCHAR,
    handed_by VARCHAR,
    operation VARCHAR,
    closed_because VARCHAR,
    closed_by VARCHAR,
    waited_s DOUBLE,
    opened_at TIMESTAMP NOT NULL,
    closed_at TIMESTAMP,
    closed_seq UBIGINT,
    first_seq UBIGINT NOT NULL,
    last_seq UBIGINT NOT NULL
);
COMMENT ON TABLE cards IS 'What waits or has waited for a person: one row for each time that a seat had a card';
COMMENT ON COLUMN cards.seat IS 'Where the daemon sits: <instance>_<host>';
COMMENT ON COLUMN cards.opening IS 'Which card of the seat it is, from 1';
COMMENT ON COLUMN cards.state IS 'open (a person has to do something) or closed';
COMMENT ON COLUMN cards.instance IS 'Which process';
COMMENT ON COLUMN cards.host IS 'Machine on whose shell the command is pasted';
COMMENT ON COLUMN cards.reason IS 'gave_up, human, hung, deaf, inside or silent, as it was told last';
COMMENT ON COLUMN cards.why IS 'The same as a sentence';
COMMENT ON COLUMN cards.command IS 'What a person runs';
COMMENT ON COLUMN cards.since IS 'Since when a person is needed, as it was told last';
COMMENT ON COLUMN cards.pid IS 'Process, while it ran; NULL for none';
COMMENT ON COLUMN cards.boot_id IS 'Boot id that is to be replaced; empty for none';
COMMENT ON COLUMN cards.handed_by IS 'Who says so: launcher, a daemon of the watch ring, or whoever asked for an action';
COMMENT ON COLUMN cards.operation IS 'Action that it belongs to, see ops_actions; empty for none';
COMMENT ON COLUMN cards.closed_because IS 'back (another boot id sits there) or heard (it works again by itself); NULL while it is open';
COMMENT ON COLUMN cards.closed_by IS 'Boot id that sat there then';
COMMENT ON COLUMN cards.waited_s IS 'Seconds that it waited';
COMMENT ON COLUMN cards.opened_at IS 'When it was first handed to a person';
COMMENT ON COLUMN cards.closed_at IS 'When it was over; NULL while it is open';
COMMENT ON COLUMN cards.closed_seq IS 'Sequence in CONTROL of the event that closed it';
COMMENT ON COLUMN cards.first_seq IS 'Sequence in CONTROL of the event that opened it';
COMMENT ON COLUMN cards.last_seq IS 'Sequence in CONTROL of its last event';

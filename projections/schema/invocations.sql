-- One row for each invocation: the fold of its events, as bus/invocation/state.py has it, and what people ask beside it.
CREATE TABLE IF NOT EXISTS hot.invocations (
    project VARCHAR NOT NULL,
    role VARCHAR NOT NULL,
    id VARCHAR NOT NULL,
    state VARCHAR NOT NULL,
    reason VARCHAR NOT NULL,
    since TIMESTAMP NOT NULL,
    requested_at TIMESTAMP NOT NULL,
    first_claimed_at TIMESTAMP,
    last_claimed_at TIMESTAMP,
    retry_at TIMESTAMP,
    due TIMESTAMP,
    attempts BIGINT NOT NULL,
    errors BIGINT NOT NULL,
    crashes BIGINT NOT NULL,
    redrives BIGINT NOT NULL,
    releases BIGINT NOT NULL,
    deliveries INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    holder VARCHAR NOT NULL,
    runner VARCHAR NOT NULL,
    run_us BIGINT NOT NULL,
    input_tokens BIGINT NOT NULL,
    output_tokens BIGINT NOT NULL,
    model VARCHAR NOT NULL,
    unsettled_input_tokens BIGINT NOT NULL,
    unsettled_output_tokens BIGINT NOT NULL,
    settled_tokens BIGINT NOT NULL,
    settled_usd_micros BIGINT NOT NULL,
    assumed_usd_micros BIGINT NOT NULL,
    error_kind VARCHAR,
    error_fingerprint VARCHAR,
    error_message VARCHAR,
    parent VARCHAR NOT NULL,
    root VARCHAR NOT NULL,
    depth INTEGER NOT NULL,
    schedule VARCHAR NOT NULL,
    actor VARCHAR NOT NULL,
    registry_revision UBIGINT,
    prompt_digest VARCHAR,
    first_seq UBIGINT NOT NULL,
    last_seq UBIGINT NOT NULL,
    requested_seq UBIGINT NOT NULL,
    claimed_seq UBIGINT,
    error_seq UBIGINT
);
COMMENT ON TABLE hot.invocations IS 'One row for each invocation that is not cold: the fold of its events';
COMMENT ON COLUMN hot.invocations.project IS 'Project of the role';
COMMENT ON COLUMN hot.invocations.role IS 'Role that does the work';
COMMENT ON COLUMN hot.invocations.id IS 'Id of the invocation: what every command takes';
COMMENT ON COLUMN hot.invocations.state IS 'scheduled, queued, running, waiting (for its next attempt), completed, cancelled, dead_lettered or discarded';
COMMENT ON COLUMN hot.invocations.reason IS 'Why it is in this state, in the word of its last event; empty where that gives none';
COMMENT ON COLUMN hot.invocations.since IS 'When its last event was stored: for one that has ended, its end';
COMMENT ON COLUMN hot.invocations.requested_at IS 'When its first event was stored';
COMMENT ON COLUMN hot.invocations.first_claimed_at IS 'When a runner first claimed it; NULL before';
COMMENT ON COLUMN hot.invocations.last_claimed_at IS 'When a runner last claimed it; NULL before';
COMMENT ON COLUMN hot.invocations.retry_at IS 'When it is tried again; NULL unless it waits for that';
COMMENT ON COLUMN hot.invocations.due IS 'When it was due, for a schedule''s or a delayed request';
COMMENT ON COLUMN hot.invocations.attempts IS 'Claims so far, over all generations';
COMMENT ON COLUMN hot.invocations.errors IS 'Attempts that ended with an error since the last redrive';
COMMENT ON COLUMN hot.invocations.crashes IS 'Claims that were swept since the last redrive';
COMMENT ON COLUMN hot.invocations.redrives IS 'How often a person sent it back to work';
COMMENT ON COLUMN hot.invocations.releases IS 'How often it was put back at nobody''s cost';
COMMENT ON COLUMN hot.invocations.deliveries IS 'The server''s delivery count of its work item at the last claim';
COMMENT ON COLUMN hot.invocations.generation IS 'How often it was put back or redriven, as its latest request says';
COMMENT ON COLUMN hot.invocations.holder IS 'Boot id of the runner that holds the claim; empty while nobody does';
COMMENT ON COLUMN hot.invocations.runner IS 'Instance name of the runner that holds the claim; empty while nobody does';
COMMENT ON COLUMN hot.invocations.run_us IS 'Microseconds that its attempts ran, as the events that ended them say';
COMMENT ON COLUMN hot.invocations.input_tokens IS 'Input tokens of all attempts';
COMMENT ON COLUMN hot.invocations.output_tokens IS 'Output tokens of all attempts';
COMMENT ON COLUMN hot.invocations.model IS 'Model that was reported last; empty for none';
COMMENT ON COLUMN hot.invocations.unsettled_input_tokens IS 'Of the input tokens, those that no settlement covers: their money is computed from prices';
COMMENT ON COLUMN hot.invocations.unsettled_output_tokens IS 'Of the output tokens, those that no settlement covers';
COMMENT ON COLUMN hot.invocations.settled_tokens IS 'Tokens that its claims were settled at on spend caps';
COMMENT ON COLUMN hot.invocations.settled_usd_micros IS 'Millionths of a US dollar that its claims were settled at';
COMMENT ON COLUMN hot.invocations.assumed_usd_micros IS 'Of the settled money, what nobody knows: whole holds of claims whose holder died';
COMMENT ON COLUMN hot.invocations.error_kind IS 'Class of the last error; NULL without one';
COMMENT ON COLUMN hot.invocations.error_fingerprint IS '12 digits that errors of one cause share';
COMMENT ON COLUMN hot.invocations.error_message IS 'The last error in one sentence';
COMMENT ON COLUMN hot.invocations.parent IS 'Id of the invocation that asked; empty for a person''s or a schedule''s request';
COMMENT ON COLUMN hot.invocations.root IS 'Id of the run tree''s first invocation; its own at the root';
COMMENT ON COLUMN hot.invocations.depth IS 'Distance from the root';
COMMENT ON COLUMN hot.invocations.schedule IS 'Name of the schedule that asked; empty for none';
COMMENT ON COLUMN hot.invocations.actor IS 'On whose behalf it was asked for';
COMMENT ON COLUMN hot.invocations.registry_revision IS 'Registry revision of the role under the last claim';
COMMENT ON COLUMN hot.invocations.prompt_digest IS 'Digest of the prompt under the last claim; empty for a role without one';
COMMENT ON COLUMN hot.invocations.first_seq IS 'Sequence in INVOCATIONS of its first event';
COMMENT ON COLUMN hot.invocations.last_seq IS 'Sequence in INVOCATIONS of its last event';
COMMENT ON COLUMN hot.invocations.requested_seq IS 'Sequence of its latest request, the work item; 0 while it is scheduled';
COMMENT ON COLUMN hot.invocations.claimed_seq IS 'Sequence of its last claim; NULL before';
COMMENT ON COLUMN hot.invocations.error_seq IS 'Sequence of the event that holds its last error; NULL without one';

CREATE TABLE IF NOT EXISTS hot.recalled (
    project VARCHAR NOT NULL,
    role VARCHAR NOT NULL,
    id VARCHAR NOT NULL,
    last_seq UBIGINT NOT NULL
);
COMMENT ON TABLE hot.recalled IS 'Invocations that were cold and got another event: what the cold files say of them is out of date';
COMMENT ON COLUMN hot.recalled.project IS 'Project of the invocation';
COMMENT ON COLUMN hot.recalled.role IS 'Role of the invocation';
COMMENT ON COLUMN hot.recalled.id IS 'Id of the invocation';
COMMENT ON COLUMN hot.recalled.last_seq IS 'Cold rows of it up to this last_seq do not count any more';

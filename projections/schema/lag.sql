-- How far the tables are behind the streams, as the projector last saw it.
CREATE TABLE IF NOT EXISTS projection_lag (
    stream VARCHAR NOT NULL,
    seq UBIGINT NOT NULL,
    head UBIGINT NOT NULL,
    behind UBIGINT NOT NULL,
    seconds DOUBLE NOT NULL,
    stored_at TIMESTAMP,
    seen_at TIMESTAMP NOT NULL
);
COMMENT ON TABLE projection_lag IS 'How far these tables are behind each stream, as it was when they were published';
COMMENT ON COLUMN projection_lag.stream IS 'Name of the stream';
COMMENT ON COLUMN projection_lag.seq IS 'Sequence of the last message in the tables; every number here comes from this one or an earlier one';
COMMENT ON COLUMN projection_lag.head IS 'Sequence of the last message in the stream that the projector knew of';
COMMENT ON COLUMN projection_lag.behind IS 'Messages that were not in the tables yet';
COMMENT ON COLUMN projection_lag.seconds IS 'Age of the oldest of them, 0 when there was none';
COMMENT ON COLUMN projection_lag.stored_at IS 'When the server stored the last message in the tables, UTC';
COMMENT ON COLUMN projection_lag.seen_at IS 'When the projector looked, UTC';

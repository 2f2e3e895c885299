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
COMMENT ON TABLE projection_lag IS 'How far the tables are behind each stream';
COMMENT ON COLUMN projection_lag.stream IS 'Stream';
COMMENT ON COLUMN projection_lag.seq IS 'Sequence of the last message that is in the tables';
COMMENT ON COLUMN projection_lag.head IS 'Sequence of the last message in the stream';
COMMENT ON COLUMN projection_lag.behind IS 'Messages of the stream that are not in the tables yet';
COMMENT ON COLUMN projection_lag.seconds IS 'Seconds since the oldest of them was stored; 0 when there is none';
COMMENT ON COLUMN projection_lag.stored_at IS 'When the server stored the last message in the tables, UTC';
COMMENT ON COLUMN projection_lag.seen_at IS 'When this was looked at, UTC';

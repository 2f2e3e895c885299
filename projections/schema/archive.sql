-- The files of the archive, as far as they are registered here: what lies in them is no longer in hot.log.
CREATE TABLE IF NOT EXISTS archive_segments (
    stream VARCHAR NOT NULL,
    created VARCHAR NOT NULL,
    first_seq UBIGINT NOT NULL,
    last_seq UBIGINT NOT NULL,
    rows UBIGINT NOT NULL,
    absent STRUCT("first" UBIGINT, "last" UBIGINT)[] NOT NULL,
    first_at TIMESTAMP NOT NULL,
    last_at TIMESTAMP NOT NULL,
    day DATE NOT NULL,
    key VARCHAR NOT NULL,
    sha256 VARCHAR NOT NULL,
    size UBIGINT NOT NULL,
    log INTEGER NOT NULL,
    copied_to VARCHAR,
    copied_at TIMESTAMP,
    problem VARCHAR
);
COMMENT ON TABLE archive_segments IS 'Parquet files of the archive: one row each, with the sequences of its stream that it covers';
COMMENT ON COLUMN archive_segments.stream IS 'Stream whose messages it holds';
COMMENT ON COLUMN archive_segments.created IS 'When that stream was created: a stream that is created again is another one';
COMMENT ON COLUMN archive_segments.first_seq IS 'First sequence that it covers';
COMMENT ON COLUMN archive_segments.last_seq IS 'Last sequence that it covers: it is in it';
COMMENT ON COLUMN archive_segments.rows IS 'Messages in it';
COMMENT ON COLUMN archive_segments.absent IS 'Ranges of sequences in between that the stream did not hold';
COMMENT ON COLUMN archive_segments.first_at IS 'Earliest time at which the server stored one of its messages, UTC';
COMMENT ON COLUMN archive_segments.last_at IS 'Latest time at which the server stored one of its messages, UTC';
COMMENT ON COLUMN archive_segments.day IS 'Day of its first message, UTC: the folder that it lies in';
COMMENT ON COLUMN archive_segments.key IS 'Its path below HOME/archive, and its name in the object store';
COMMENT ON COLUMN archive_segments.sha256 IS 'SHA-256 of the file, hexadecimal';
COMMENT ON COLUMN archive_segments.size IS 'Bytes of the file';
COMMENT ON COLUMN archive_segments.log IS 'Version of its columns';
COMMENT ON COLUMN archive_segments.copied_to IS 'Store that holds a copy which was read back; NULL for none yet';
COMMENT ON COLUMN archive_segments.copied_at IS 'When that copy was proven, UTC, by the clock of the projector';
COMMENT ON COLUMN archive_segments.problem IS 'Why the file is not read from; NULL while it is sound';

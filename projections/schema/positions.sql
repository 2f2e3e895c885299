-- How far the tables are, and what is published of them.
CREATE SCHEMA IF NOT EXISTS hot;

CREATE TABLE IF NOT EXISTS hot.made (
    version VARCHAR NOT NULL,
    made_at TIMESTAMP NOT NULL,
    why VARCHAR NOT NULL,
    aside VARCHAR NOT NULL,
    told BOOLEAN NOT NULL
);
COMMENT ON TABLE hot.made IS 'Which tables these are: a projector of another version makes them anew';
COMMENT ON COLUMN hot.made.version IS 'Digest of the SQL and of the decoder that made them';
COMMENT ON COLUMN hot.made.made_at IS 'When their making began, UTC';
COMMENT ON COLUMN hot.made.why IS 'Why they were made anew; empty for those of a first start';
COMMENT ON COLUMN hot.made.aside IS 'Name of the file that holds the former ones; empty when nothing of them was kept';
COMMENT ON COLUMN hot.made.told IS 'The event about it was written';

CREATE TABLE IF NOT EXISTS hot.positions (
    stream VARCHAR NOT NULL,
    seq UBIGINT NOT NULL,
    stored_us BIGINT NOT NULL,
    era VARCHAR NOT NULL
);
COMMENT ON TABLE hot.positions IS 'How far each stream is in the tables; changes in the same transaction as they do';
COMMENT ON COLUMN hot.positions.stream IS 'Name of the stream';
COMMENT ON COLUMN hot.positions.seq IS 'Sequence of the last message applied';
COMMENT ON COLUMN hot.positions.stored_us IS 'When the server stored that message, microseconds since 1970: the proof that the history is still the same one';
COMMENT ON COLUMN hot.positions.era IS 'When the stream was made: one that was deleted and made anew is another stream';

CREATE TABLE IF NOT EXISTS snapshot (
    number UBIGINT NOT NULL,
    published_at TIMESTAMP NOT NULL,
    version VARCHAR NOT NULL,
    host VARCHAR NOT NULL,
    pause_s DOUBLE NOT NULL
);
COMMENT ON TABLE snapshot IS 'Which copy of the tables this file is; its age is now() minus published_at';
COMMENT ON COLUMN snapshot.number IS 'Counts the copies that were published; the larger one is the newer one, whatever the clocks said';
COMMENT ON COLUMN snapshot.published_at IS 'When it was made, UTC, by the clock of the projector';
COMMENT ON COLUMN snapshot.version IS 'Which tables these are: a digest of what makes them';
COMMENT ON COLUMN snapshot.host IS 'Where the projector runs';
COMMENT ON COLUMN snapshot.pause_s IS 'Seconds after which the next copy follows at the earliest, if something changes';

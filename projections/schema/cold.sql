-- Files with rows that no event is expected to change any more: derived, and made again with the tables.
CREATE TABLE IF NOT EXISTS cold_files (
    kind VARCHAR NOT NULL,
    key VARCHAR NOT NULL,
    from_seq UBIGINT NOT NULL,
    to_seq UBIGINT NOT NULL,
    rows UBIGINT NOT NULL,
    size UBIGINT NOT NULL
);
COMMENT ON TABLE cold_files IS 'Parquet files with invocations that have ended long ago, and their claims: the views read them beside the hot tables';
COMMENT ON COLUMN cold_files.kind IS 'invocations or claims';
COMMENT ON COLUMN cold_files.key IS 'Its path below HOME/history';
COMMENT ON COLUMN cold_files.from_seq IS 'Its rows ended at this sequence of INVOCATIONS or later';
COMMENT ON COLUMN cold_files.to_seq IS 'Its rows ended at this sequence of INVOCATIONS or before';
COMMENT ON COLUMN cold_files.rows IS 'Rows in it';
COMMENT ON COLUMN cold_files.size IS 'Bytes of the file';

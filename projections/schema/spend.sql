-- What was used, hour by hour. Small: one row for each hour, role and model in which anything was used.
CREATE TABLE IF NOT EXISTS spend (
    hour TIMESTAMP NOT NULL,
    project VARCHAR NOT NULL,
    role VARCHAR NOT NULL,
    model VARCHAR NOT NULL,
    ends BIGINT NOT NULL,
    input_tokens BIGINT NOT NULL,
    output_tokens BIGINT NOT NULL,
    unsettled_input_tokens BIGINT NOT NULL,
    unsettled_output_tokens BIGINT NOT NULL,
    settled_tokens BIGINT NOT NULL,
    settled_usd_micros BIGINT NOT NULL,
    assumed_usd_micros BIGINT NOT NULL,
    first_seq UBIGINT NOT NULL,
    last_seq UBIGINT NOT NULL
);
COMMENT ON TABLE spend IS 'What was used in each hour, by project, role and model; v_spend adds the money';
COMMENT ON COLUMN spend.hour IS 'Beginning of the hour, UTC, in which the events that tell the use were stored';
COMMENT ON COLUMN spend.project IS 'Project of the role';
COMMENT ON COLUMN spend.role IS 'Role that used it';
COMMENT ON COLUMN spend.model IS 'Model that was reported; empty for none, as of a claim whose holder died';
COMMENT ON COLUMN spend.ends IS 'Ends of claims that told a use or a settlement';
COMMENT ON COLUMN spend.input_tokens IS 'Input tokens';
COMMENT ON COLUMN spend.output_tokens IS 'Output tokens';
COMMENT ON COLUMN spend.unsettled_input_tokens IS 'Of the input tokens, those that no settlement covers: their money is computed from prices';
COMMENT ON COLUMN spend.unsettled_output_tokens IS 'Of the output tokens, those that no settlement covers';
COMMENT ON COLUMN spend.settled_tokens IS 'Tokens that claims were settled at on spend caps';
COMMENT ON COLUMN spend.settled_usd_micros IS 'Millionths of a US dollar that claims were settled at';
COMMENT ON COLUMN spend.assumed_usd_micros IS 'Of the settled money, whole holds of claims whose holder died';
COMMENT ON COLUMN spend.first_seq IS 'Sequence in INVOCATIONS of the first event in it';
COMMENT ON COLUMN spend.last_seq IS 'Sequence in INVOCATIONS of the last event in it';

CREATE TABLE IF NOT EXISTS prices (
    revision UBIGINT NOT NULL,
    since TIMESTAMP NOT NULL,
    model VARCHAR NOT NULL,
    input_usd DECIMAL(18, 9) NOT NULL,
    output_usd DECIMAL(18, 9) NOT NULL,
    seq UBIGINT NOT NULL
);
COMMENT ON TABLE prices IS 'Prices of models, as each revision of the registry named them';
COMMENT ON COLUMN prices.revision IS 'Registry revision of the prices';
COMMENT ON COLUMN prices.since IS 'When they came into force; they end where the next revision begins';
COMMENT ON COLUMN prices.model IS 'Model, as providers report it; empty in the row that only says that the revision names no price';
COMMENT ON COLUMN prices.input_usd IS 'US dollars for a million input tokens';
COMMENT ON COLUMN prices.output_usd IS 'US dollars for a million output tokens';
COMMENT ON COLUMN prices.seq IS 'Sequence in CONTROL of the event that named it';

CREATE TABLE IF NOT EXISTS hot.price_book (
    book MAP(VARCHAR, STRUCT(since TIMESTAMP, until TIMESTAMP, input_usd DECIMAL(18, 9), output_usd DECIMAL(18, 9))[])
);
COMMENT ON TABLE hot.price_book IS 'All prices in one value, for the macro price_at: made from prices whenever these change';
COMMENT ON COLUMN hot.price_book.book IS 'Model -> its prices, each with since and until; revisions that changed nothing of a price are one span';

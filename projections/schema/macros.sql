-- Words that several statements share.
CREATE OR REPLACE MACRO state_after(event) AS CASE event
    WHEN 'requested' THEN 'queued'
    WHEN 'claimed' THEN 'running'
    WHEN 'failed' THEN 'waiting'
    WHEN 'swept' THEN 'queued'
    WHEN 'released' THEN 'queued'
    WHEN 'redriven' THEN 'queued'
    ELSE event
END;
-- A sum that no column holds stays at the column's end: a number that nobody can have meant must not stop the fold.
CREATE OR REPLACE MACRO bounded(total) AS CAST(greatest(least(total, 9223372036854775807), -9223372036854775807) AS BIGINT);
-- Whole microseconds, because sums of them do not depend on the order; at most 31 years.
CREATE OR REPLACE MACRO micros(amount) AS CASE WHEN amount IS NOT NULL THEN CAST(round(greatest(least(amount, 1e15), -1e15)) AS BIGINT) END;
-- A field of an event's data, as text; NULL where there is none. A body need not be text all through: what we do not read of it is not checked.
CREATE OR REPLACE MACRO said(raw, field) AS TRY(json_extract_string(decode(raw), '$.data.' || field));
CREATE OR REPLACE MACRO said_time(raw, field) AS make_timestamp(epoch_us(TRY_CAST(said(raw, field) AS TIMESTAMPTZ)));
CREATE OR REPLACE MACRO said_json(raw, field) AS TRY(json_extract(decode(raw), '$.data.' || field));
-- The moment that views look from, UTC: now; a look at the past puts its own moment here.
CREATE OR REPLACE MACRO moment() AS make_timestamp(epoch_us(now()));
CREATE OR REPLACE MACRO seconds_since(past) AS (epoch_us(moment()) - epoch_us(past)) / 1e6;
-- A model's price at a moment: under its own name, or under its name without a date. `book` is hot.price_book's map.
CREATE OR REPLACE MACRO undated(model) AS regexp_replace(model, '[-@](\d{4}-\d{2}-\d{2}|\d{8}|latest)$', '');
CREATE OR REPLACE MACRO price_at(book, model, at_) AS
    list_filter(list_concat(book[model], book[undated(model)]), lambda p: p.since <= at_ AND at_ < p.until)[1];
-- What a use costs in millionths of a US dollar, rounded up; NULL when nobody had named a price. A macro's text takes the place of
-- its name each time that it is named: the price is looked up in one place, or planning takes longer than the answer.
CREATE OR REPLACE MACRO cost_micros(input_tokens, output_tokens, price) AS list_transform([price], lambda p: CASE
    WHEN input_tokens <= 0 AND output_tokens <= 0 THEN 0
    WHEN p IS NOT NULL THEN CAST(least(ceil(
        CAST(greatest(input_tokens, 0) AS DECIMAL(20, 0)) * p.input_usd
        + CAST(greatest(output_tokens, 0) AS DECIMAL(20, 0)) * p.output_usd
    ), 9223372036854775807) AS BIGINT)
END)[1];
CREATE OR REPLACE MACRO usd(micros) AS CAST(micros AS DECIMAL(19, 0)) * 0.000001;
-- Whether a project is that of the drills, whose work is made to fail: what it leaves behind waits for nobody.
CREATE OR REPLACE MACRO drilled(project) AS coalesce(project = 'drill', false);

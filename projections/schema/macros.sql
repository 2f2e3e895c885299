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
CREATE OR REPLACE MACRO micros(amount) AS CAST(round(greatest(least(amount, 1e15), -1e15)) AS BIGINT);

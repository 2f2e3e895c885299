-- reads: registry.*
INSERT INTO registry_versions
SELECT
    coalesce(said(raw, 'key'), key), TRY_CAST(said(raw, 'revision') AS UBIGINT), coalesce(TRY_CAST(said(raw, 'replaced') AS UBIGINT), 0),
    event = 'removed', TRY(json_extract(decode(raw), '$.data.value')), stored_at, actor, seq
FROM batch
WHERE noun = 'registry';

-- Each revision of the prices whole, and one row without a model that says that it is there.
INSERT INTO prices
WITH quota AS (
    SELECT
        coalesce(TRY_CAST(said(raw, 'revision') AS UBIGINT), 0) AS revision, stored_at, seq,
        TRY(json_extract(decode(raw), '$.data.value.prices')) AS named
    FROM batch
    WHERE noun = 'registry' AND said(raw, 'key') = 'guards.quota'
),
listed AS (
    SELECT *, '/' || replace(replace(model, '~', '~0'), '/', '~1') AS place
    FROM (SELECT revision, stored_at, seq, named, unnest(json_keys(named)) AS model FROM quota WHERE json_type(named) = 'OBJECT')
)
SELECT revision, stored_at, '', 0, 0, seq FROM quota
UNION ALL
SELECT
    revision, stored_at, model,
    greatest(coalesce(TRY_CAST(json_extract_string(named, place || '/input') AS DECIMAL(18, 9)), 0), 0),
    greatest(coalesce(TRY_CAST(json_extract_string(named, place || '/output') AS DECIMAL(18, 9)), 0), 0),
    seq
FROM listed
WHERE model <> '';

DELETE FROM hot.price_book;
INSERT INTO hot.price_book
WITH revisions AS (
    SELECT seq, since, row_number() OVER (ORDER BY seq) AS number, lead(since, 1, TIMESTAMP '9999-01-01') OVER (ORDER BY seq) AS until
    FROM prices WHERE model = ''
),
named AS (
    SELECT
        p.model, p.input_usd, p.output_usd, r.since, r.until,
        r.number - row_number() OVER (PARTITION BY p.model, p.input_usd, p.output_usd ORDER BY r.number) AS island
    FROM prices AS p JOIN revisions AS r USING (seq)
    WHERE p.model <> ''
),
spans AS (
    SELECT model, {since: min(since), until: max(until), input_usd: input_usd, output_usd: output_usd} AS span
    FROM named GROUP BY model, input_usd, output_usd, island
)
SELECT map_from_entries(list((model, found))) AS book FROM (SELECT model, list(span ORDER BY span.since) AS found FROM spans GROUP BY model);

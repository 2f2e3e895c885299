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

-- name: what was changed in the registry: roles, prompts, prices, caps
-- param since: timestamp = moment() - INTERVAL 7 DAY: how far back to look
SELECT changed_at, key, revision, replaced, removed, left(CAST(value AS VARCHAR), 200) AS value, actor, seq
FROM registry_versions
WHERE changed_at >= $since
ORDER BY seq DESC

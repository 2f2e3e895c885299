-- name: which roles and people asked which roles for work, and what became of it
-- param since: timestamp = moment() - INTERVAL 1 DAY: requests from then on
SELECT
    CASE WHEN i.parent <> '' THEN coalesce(p.project || '/' || p.role, 'an invocation that is not known') WHEN i.schedule <> '' THEN 'schedule ' || i.schedule ELSE coalesce(nullif(i.actor, ''), 'nobody who gave a name') END AS asker,
    i.project || '/' || i.role AS asked,
    count(*) AS requests,
    count(*) FILTER (i.state = 'completed') AS completed,
    count(*) FILTER (i.state = 'dead_lettered') AS dead,
    count(*) FILTER (i.ended_at IS NULL) AS unfinished,
    max(i.depth) AS deepest,
    sum(i.cost_usd) AS cost_usd,
    min(i.first_seq) AS first_seq, max(i.first_seq) AS last_seq
FROM invocations AS i LEFT JOIN invocations AS p ON p.id = i.parent AND i.parent <> ''
WHERE i.requested_at >= $since
GROUP BY ALL
ORDER BY requests DESC, asker, asked

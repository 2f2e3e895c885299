-- name: dead letters by cause: which error, of which roles, how many still wait for a person
-- param since: timestamp = moment() - INTERVAL 30 DAY: deaths from then on
SELECT
    error_fingerprint AS fingerprint,
    count(*) AS deaths,
    count(*) FILTER (resolution IS NULL) AS waiting,
    list_sort(list(DISTINCT project || '/' || role)) AS roles,
    mode(reason) AS reason,
    any_value(error_kind ORDER BY died_seq DESC) AS error,
    any_value(error_message ORDER BY died_seq DESC) AS message,
    min(died_at) AS first_at, max(died_at) AS last_at,
    arg_max(id, died_seq) AS last_id, max(died_seq) AS seq
FROM dead_letters
WHERE died_at >= $since
GROUP BY error_fingerprint
ORDER BY waiting DESC, deaths DESC

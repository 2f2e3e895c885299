-- name: tokens and money by day and project
-- param since: timestamp = moment() - INTERVAL 30 DAY: days from then on, UTC
SELECT
    CAST(hour AS DATE) AS day, project,
    sum(ends) AS attempts, sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens, sum(cost_usd) AS cost_usd,
    min(first_seq) AS first_seq, max(last_seq) AS last_seq
FROM v_spend
WHERE hour >= date_trunc('day', $since)
GROUP BY ALL
ORDER BY day DESC, cost_usd DESC NULLS LAST

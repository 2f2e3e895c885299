-- name: tokens and money by role and model
-- param since: timestamp = moment() - INTERVAL 7 DAY: whole hours from then on
SELECT
    project || '/' || role AS role, model,
    sum(ends) AS attempts, sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens,
    sum(cost_usd) AS cost_usd, sum(assumed_usd) AS assumed_usd,
    min(first_seq) AS first_seq, max(last_seq) AS last_seq
FROM v_spend
WHERE hour >= date_trunc('hour', $since)
GROUP BY ALL
ORDER BY cost_usd DESC NULLS LAST, input_tokens DESC

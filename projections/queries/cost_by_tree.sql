-- name: the run trees that cost most, with all that they caused
-- param since: timestamp = moment() - INTERVAL 7 DAY: trees that did anything from then on
-- param most: bigint = 20: how many to show
SELECT root, asked, actor, requested_at, invocations, unfinished, dead, depth, attempts, input_tokens, output_tokens, cost_usd, first_seq, last_seq
FROM v_cost_by_tree
WHERE last_at >= $since
ORDER BY cost_usd DESC NULLS LAST, input_tokens + output_tokens DESC, first_seq
LIMIT $most

-- name: what failures cost, by run tree, the dearest first
-- param since: timestamp = moment() - INTERVAL 30 DAY: trees that failed from then on
-- param most: bigint = 20: how many to show
SELECT cause, root, projects, invocations, spoilt, errors, crashes, deaths, lost_usd, tree_usd, input_tokens, output_tokens, error_kind, error_message, first_seq, last_seq
FROM v_failure_bill
WHERE last_at IS NULL OR last_at >= $since
ORDER BY lost_usd DESC NULLS LAST, errors + crashes DESC, first_seq
LIMIT $most

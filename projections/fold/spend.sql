-- reads: invocation.completed, invocation.failed, invocation.swept, invocation.released, invocation.cancelled, invocation.dead_lettered
MERGE INTO spend AS t
USING (
    SELECT
        date_trunc('hour', stored_at) AS hour, project, role, coalesce(model, '') AS model,
        count(*) AS ends,
        coalesce(sum(input_tokens), 0) AS input_tokens,
        coalesce(sum(output_tokens), 0) AS output_tokens,
        coalesce(sum(input_tokens) FILTER (settled_tokens IS NULL), 0) AS unsettled_input_tokens,
        coalesce(sum(output_tokens) FILTER (settled_tokens IS NULL), 0) AS unsettled_output_tokens,
        coalesce(sum(greatest(settled_tokens, 0)), 0) AS settled_tokens,
        coalesce(sum(greatest(settled_usd_micros, 0)), 0) AS settled_usd_micros,
        coalesce(sum(greatest(settled_usd_micros, 0)) FILTER (assumed), 0) AS assumed_usd_micros,
        min(seq) AS first_seq,
        max(seq) AS last_seq
    FROM batch
    WHERE noun = 'invocation' AND (input_tokens IS NOT NULL OR settled_tokens IS NOT NULL)
    GROUP BY ALL
) AS c
ON t.hour = c.hour AND t.project = c.project AND t.role = c.role AND t.model = c.model
WHEN MATCHED THEN UPDATE SET
    ends = t.ends + c.ends,
    input_tokens = bounded(t.input_tokens::HUGEINT + c.input_tokens),
    output_tokens = bounded(t.output_tokens::HUGEINT + c.output_tokens),
    unsettled_input_tokens = bounded(t.unsettled_input_tokens::HUGEINT + c.unsettled_input_tokens),
    unsettled_output_tokens = bounded(t.unsettled_output_tokens::HUGEINT + c.unsettled_output_tokens),
    settled_tokens = bounded(t.settled_tokens::HUGEINT + c.settled_tokens),
    settled_usd_micros = bounded(t.settled_usd_micros::HUGEINT + c.settled_usd_micros),
    assumed_usd_micros = bounded(t.assumed_usd_micros::HUGEINT + c.assumed_usd_micros),
    last_seq = c.last_seq
WHEN NOT MATCHED THEN INSERT VALUES (
    c.hour, c.project, c.role, c.model, c.ends, bounded(c.input_tokens), bounded(c.output_tokens),
    bounded(c.unsettled_input_tokens), bounded(c.unsettled_output_tokens),
    bounded(c.settled_tokens), bounded(c.settled_usd_micros), bounded(c.assumed_usd_micros), c.first_seq, c.last_seq
);

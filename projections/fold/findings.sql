-- reads: finding.*
MERGE INTO hot.findings AS t
USING (
    WITH before AS (
        -- What the table knows: how often it was opened, and whether it is open now.
        SELECT fingerprint, max(opening) AS openings, arg_max(state, opening) = 'open' AS stands
        FROM hot.findings WHERE opened_seq IS NOT NULL GROUP BY fingerprint
    ),
    told AS (
        -- Whether the finding was open when it was said: by the last word before it in the batch, else by the table.
        SELECT
            b.key AS fingerprint, b.event, b.seq, b.stored_at, b.raw, coalesce(o.openings, 0) AS openings,
            coalesce(
                last_value(CASE WHEN b.event IN ('opened', 'closed') THEN b.event = 'opened' END IGNORE NULLS) OVER earlier,
                o.stands, false
            ) AS stood
        FROM batch AS b LEFT JOIN before AS o ON o.fingerprint = b.key
        WHERE b.noun = 'finding'
        WINDOW earlier AS (PARTITION BY b.key ORDER BY b.seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
    ),
    placed AS (
        -- What is raised while it is not open belongs to the next opening; all else that is said of it then, to none.
        SELECT
            *,
            openings + count(*) FILTER (event = 'opened' AND NOT stood) OVER so_far
            + CASE WHEN event = 'raised' AND NOT stood THEN 1 ELSE 0 END AS opening
        FROM told
        WHERE stood OR event IN ('opened', 'raised')
        WINDOW so_far AS (PARTITION BY fingerprint ORDER BY seq ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
    )
    SELECT
        fingerprint, opening,
        arg_min({stored_at: stored_at, seq: seq}, seq) FILTER (event = 'opened') AS opened,
        arg_max(
            {
                kind: said(raw, 'kind'), subject: said(raw, 'subject'), since: said_time(raw, 'since'),
                found_by: coalesce(said(raw, 'by'), 'monitor'), sweep: coalesce(said(raw, 'sweep'), '')
            }, seq
        ) FILTER (event = 'opened') AS begun,
        arg_max(
            {
                severity: said(raw, 'severity'), title: said(raw, 'title'), detail: coalesce(said(raw, 'detail'), ''),
                value: coalesce(TRY_CAST(said(raw, 'value') AS DOUBLE), 0), command: coalesce(said(raw, 'command'), ''),
                cause: coalesce(said(raw, 'cause'), ''), evidence: coalesce(said_json(raw, 'evidence'), '[]')
            }, seq
        ) FILTER (event IN ('opened', 'changed')) AS told,
        arg_max({was: coalesce(TRY_CAST(said(raw, 'was') AS DOUBLE), 0), stored_at: stored_at, seq: seq}, seq) FILTER (event = 'changed') AS changed,
        arg_max(
            CASE
                WHEN event = 'silenced' THEN {by_: coalesce(said(raw, 'owner'), ''), why: coalesce(said(raw, 'reason'), ''), until_: said_time(raw, 'until')}
                ELSE {by_: '', why: '', until_: NULL}
            END, seq
        ) FILTER (event IN ('silenced', 'unsilenced', 'closed')) AS silence,
        arg_max(
            {
                triage: said(raw, 'invocation'), summary: coalesce(said(raw, 'summary'), ''), problem: coalesce(said(raw, 'problem'), ''),
                proposals: coalesce(said_json(raw, 'proposals'), '[]'), stored_at: stored_at, seq: seq
            }, seq
        ) FILTER (event = 'proposed') AS proposed,
        arg_max(
            {
                reason: said(raw, 'reason'), by_: coalesce(said(raw, 'by'), 'monitor'), why: coalesce(said(raw, 'why'), ''),
                open_s: coalesce(TRY_CAST(said(raw, 'open_s') AS DOUBLE), 0), stored_at: stored_at, seq: seq
            }, seq
        ) FILTER (event = 'closed') AS closed,
        count(*) FILTER (event = 'raised') AS raised,
        count(*) FILTER (event = 'changed') AS changes,
        min(seq) AS first_seq,
        max(seq) AS last_seq
    FROM placed
    GROUP BY fingerprint, opening
) AS c
ON t.fingerprint = c.fingerprint AND t.opening = c.opening
WHEN MATCHED THEN UPDATE SET
    state = CASE WHEN c.closed IS NOT NULL THEN 'closed' WHEN c.opened IS NOT NULL THEN 'open' ELSE t.state END,
    kind = CASE WHEN c.begun IS NULL THEN t.kind ELSE c.begun.kind END,
    severity = CASE WHEN c.told IS NULL THEN t.severity ELSE c.told.severity END,
    subject = CASE WHEN c.begun IS NULL THEN t.subject ELSE c.begun.subject END,
    title = CASE WHEN c.told IS NULL THEN t.title ELSE c.told.title END,
    detail = CASE WHEN c.told IS NULL THEN t.detail ELSE c.told.detail END,
    since = CASE WHEN c.begun IS NULL THEN t.since ELSE c.begun.since END,
    value = CASE WHEN c.told IS NULL THEN t.value ELSE c.told.value END,
    was = CASE WHEN c.changed IS NULL THEN t.was ELSE c.changed.was END,
    command = CASE WHEN c.told IS NULL THEN t.command ELSE c.told.command END,
    cause = CASE WHEN c.told IS NULL THEN t.cause ELSE c.told.cause END,
    evidence = CASE WHEN c.told IS NULL THEN t.evidence ELSE c.told.evidence END,
    found_by = CASE WHEN c.begun IS NULL THEN t.found_by ELSE c.begun.found_by END,
    sweep = CASE WHEN c.begun IS NULL THEN t.sweep ELSE c.begun.sweep END,
    silenced_by = CASE WHEN c.silence IS NULL THEN t.silenced_by ELSE c.silence.by_ END,
    silenced_why = CASE WHEN c.silence IS NULL THEN t.silenced_why ELSE c.silence.why END,
    silenced_until = CASE WHEN c.silence IS NULL THEN t.silenced_until ELSE c.silence.until_ END,
    triage = CASE WHEN c.proposed IS NULL THEN t.triage ELSE c.proposed.triage END,
    triage_summary = CASE WHEN c.proposed IS NULL THEN t.triage_summary ELSE c.proposed.summary END,
    triage_problem = CASE WHEN c.proposed IS NULL THEN t.triage_problem ELSE c.proposed.problem END,
    proposals = CASE WHEN c.proposed IS NULL THEN t.proposals ELSE c.proposed.proposals END,
    proposed_at = CASE WHEN c.proposed IS NULL THEN t.proposed_at ELSE c.proposed.stored_at END,
    proposed_seq = CASE WHEN c.proposed IS NULL THEN t.proposed_seq ELSE c.proposed.seq END,
    raised = t.raised + c.raised,
    changes = t.changes + c.changes,
    opened_at = coalesce(t.opened_at, c.opened.stored_at),
    opened_seq = coalesce(t.opened_seq, c.opened.seq),
    changed_at = CASE WHEN c.changed IS NULL THEN t.changed_at ELSE c.changed.stored_at END,
    changed_seq = CASE WHEN c.changed IS NULL THEN t.changed_seq ELSE c.changed.seq END,
    closed_because = c.closed.reason,
    closed_by = c.closed.by_,
    closed_why = c.closed.why,
    open_s = c.closed.open_s,
    closed_at = c.closed.stored_at,
    closed_seq = c.closed.seq,
    last_seq = c.last_seq
WHEN NOT MATCHED THEN INSERT VALUES (
    c.fingerprint, c.opening,
    CASE WHEN c.closed IS NOT NULL THEN 'closed' WHEN c.opened IS NOT NULL THEN 'open' ELSE 'raised' END,
    c.begun.kind, c.told.severity, c.begun.subject, c.told.title, c.told.detail, c.begun.since,
    c.told.value, c.changed.was, c.told.command, c.told.cause, c.told.evidence, c.begun.found_by, c.begun.sweep,
    coalesce(c.silence.by_, ''), coalesce(c.silence.why, ''), c.silence.until_,
    c.proposed.triage, c.proposed.summary, c.proposed.problem, c.proposed.proposals, c.proposed.stored_at, c.proposed.seq,
    c.raised, c.changes, c.opened.stored_at, c.opened.seq, c.changed.stored_at, c.changed.seq,
    c.closed.reason, c.closed.by_, c.closed.why, c.closed.open_s, c.closed.stored_at, c.closed.seq, c.first_seq, c.last_seq
);

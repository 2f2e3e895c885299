-- reads: invocation.*
-- Runs only when `folded` has strangers: those that lie cold become hot again as they were, and the batch is folded over them anew.
CREATE OR REPLACE TEMP TABLE coming_back AS
SELECT c.*
FROM hot.cold_invocations AS c
WHERE EXISTS (FROM folded AS f WHERE f.stranger AND f.id = c.id AND f.role = c.role AND f.project = c.project);

INSERT INTO hot.recalled SELECT project, role, id, last_seq FROM coming_back;

INSERT INTO hot.invocations SELECT * FROM coming_back;

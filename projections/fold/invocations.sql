-- reads: invocation.*
DELETE FROM hot.invocations WHERE rowid IN (SELECT place FROM folded);
INSERT INTO hot.invocations SELECT * EXCLUDE (place, stranger) FROM folded;

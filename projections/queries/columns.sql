-- name: the columns of a table or view, with their types and what they are
-- param table: varchar: its name
SELECT column_name AS name, data_type AS type, comment AS what
FROM duckdb_columns()
WHERE database_name = current_database() AND schema_name = 'main' AND table_name = lower($table)
ORDER BY column_index

-- name: every table and view, with what is in it
SELECT name, what, columns FROM (
    SELECT view_name AS name, comment AS what, column_count AS columns FROM duckdb_views()
    WHERE database_name = current_database() AND schema_name = 'main' AND NOT internal
    UNION ALL
    SELECT table_name, comment, column_count FROM duckdb_tables()
    WHERE database_name = current_database() AND schema_name = 'main' AND NOT internal
)
ORDER BY name

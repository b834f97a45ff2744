"""The connection to PostgreSQL: prepared statements, retries, batches and bounded counts."""

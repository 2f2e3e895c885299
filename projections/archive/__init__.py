"""History for ever: what the streams held, in immutable Parquet files that tile each stream's sequences without a gap."""

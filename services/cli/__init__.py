"""The `systems` command: one module per command, and one that parses, calls and translates errors."""

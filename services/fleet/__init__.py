"""The fleet as data: the file, the registry, schemas and schedules."""

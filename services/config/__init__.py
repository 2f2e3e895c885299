"""The settings in effect: the registry as tables, its revisions, its changes, and how it differs from the fleet file."""

"""The example fleet: two projects, four roles, one kind of handler each for a trace, a program and Python functions."""

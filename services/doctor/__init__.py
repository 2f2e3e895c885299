"""Whether an installation can run a fleet: what was looked at, what was found, and what to do about it."""

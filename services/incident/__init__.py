"""Incidents: an ultra always reaches a person, and everybody affected knows until a person closes it."""

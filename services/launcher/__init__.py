"""Starts the fleet's processes, keeps them running, and stops them in reverse order."""

"""Versions of this program side by side, each in an environment of its own, and which daemon runs which of them."""

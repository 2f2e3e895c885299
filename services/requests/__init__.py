"""Asking roles for work: the checks, and the micro service."""

"""The fleet-health panel: what is there, what waits, what failed, and the verdict.

What could not be seen is named in `unseen` and is never nominal: a panel that shows green because it could not look is worse
than none.
"""

"""The composition root: every daemon is wired here and nowhere else, one module a daemon.

Reading one function shows all that a daemon consists of, in the order in which it is taken down again.
"""

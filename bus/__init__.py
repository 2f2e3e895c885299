"""The log itself: what is written, where, and under which fence.

Layout, from the inside out:

- ``errors`` ``clock`` ``ids``                 nothing but the standard library
- ``envelope`` ``events/`` ``upcasters``       what an event is
- ``subjects`` ``topology``                    where it lives, as data
- ``invocation``                               the life of one invocation: pure ``decide`` and ``evolve``
- ``wire`` ``connection`` ``publisher``        the one place that speaks JetStream's newer features
- ``store`` ``follower`` ``puller``            append under a fence, read back, follow
- ``registry`` ``flags`` ``liveness`` ...      the key-value buckets
- ``context`` ``server`` ``plan``              which server, an embedded one, and what would change on it

Nothing here knows DuckDB, Slack, or what a role means.
"""

from bus import later

later.install()

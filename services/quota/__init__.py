"""Spend caps: which cover a role, what a claim needs of them, and how they are reserved, judged and shown."""

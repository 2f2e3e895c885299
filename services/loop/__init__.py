"""The loop breaker: what a run tree has done so far (``tree``), and when that is too much (``breaker``)."""

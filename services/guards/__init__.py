"""Guards looked at as a whole: what they would have done with other limits."""

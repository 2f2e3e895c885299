"""The monitor: looks at the whole fleet by the clock and at once after what cannot wait, and remembers what it found."""

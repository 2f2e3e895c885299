"""Where the handlers of a rig's roles stand: tests put their functions here under names of their own."""

"""agent_runner: claims work and runs its handlers."""

"""warden: the guards, the schedules, and the services that people and agents ask."""

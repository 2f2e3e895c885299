"""What people and daemons do to a fleet: each action asked for, refused or begun, and done, as events."""

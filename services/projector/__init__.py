"""The projector daemon: events into tables, and answers out of them."""
